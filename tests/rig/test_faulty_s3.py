"""The misbehaving S3 misbehaves as told and leaves nothing behind. Asked without boto3, which would hide some of it."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tests.rig import faulty_s3
from tests.rig.faulty_s3 import ANY_KEY, FaultyS3


@pytest.fixture
def s3() -> Iterator[FaultyS3]:
    with FaultyS3() as s3:
        s3.put("a", b"0123456789")
        yield s3


def connect(s3: FaultyS3) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(s3.url.removeprefix("http://"), timeout=10)


def get(connection: http.client.HTTPConnection, key: str, **headers: str) -> tuple[int, bytes]:
    connection.request("GET", f"/models/{key}", headers={name.replace("_", "-"): v for name, v in headers.items()})
    response = connection.getresponse()
    return response.status, response.read()


def test_an_object_is_served_until_the_caller_has_it(s3: FaultyS3) -> None:
    connection = connect(s3)
    assert get(connection, "a") == (200, b"0123456789")
    assert get(connection, "a", If_None_Match=faulty_s3.etag(b"0123456789")) == (304, b"")
    assert get(connection, "b")[0] == 404
    assert s3.requests == {"a": 2, "b": 1}
    assert s3.connections == 1
    connection.close()


def test_a_fault_lasts_as_many_requests_as_told(s3: FaultyS3) -> None:
    connection = connect(s3)
    s3.put("b", b"b")
    s3.faults["a"] = faulty_s3.status(503, "SlowDown", times=2)
    s3.faults[ANY_KEY] = faulty_s3.status(500, "InternalError")
    assert [get(connection, "a")[0] for _ in range(3)] == [503, 503, 200]
    assert [get(connection, "b")[0] for _ in range(3)] == [500, 500, 500]
    connection.close()


def test_a_paced_answer_takes_its_time_and_is_whole(s3: FaultyS3) -> None:
    s3.put("large", bytes(1 << 20))
    s3.faults["large"] = faulty_s3.paced(0.1, 2e6)
    started = time.monotonic()
    assert get(connect(s3), "large") == (200, bytes(1 << 20))
    assert time.monotonic() - started > 0.4


@pytest.mark.parametrize("after_bytes", [None, 4])
def test_a_reset_is_a_tcp_reset(s3: FaultyS3, after_bytes: int | None) -> None:
    s3.faults["a"] = faulty_s3.reset(after_bytes)
    with socket.create_connection(("127.0.0.1", int(s3.url.rpartition(":")[2])), timeout=10) as raw:
        raw.sendall(b"GET /models/a HTTP/1.1\r\nHost: s3\r\n\r\n")
        with pytest.raises(ConnectionResetError):
            list(iter(lambda: raw.recv(1000), b""))


def test_leaving_ends_every_connection_and_thread_at_once() -> None:
    before = set(threading.enumerate())
    with FaultyS3() as s3:
        for key, fault in {
            "hang": faulty_s3.hang(),
            "half": faulty_s3.hang_mid_body(2),
            "drip": faulty_s3.drip(1, 30),
            "late": faulty_s3.latency(30),
            "held": faulty_s3.held_until(threading.Event()),
            "slow": faulty_s3.paced(30, 1e6),
        }.items():
            s3.put(key, b"0123456789")
            s3.faults[key] = fault
        connections = [connect(s3) for _ in range(7)]
        for key, connection in zip(s3.faults, connections[:6], strict=True):
            connection.request("GET", f"/models/{key}")
        assert get(connections[6], "idle, kept for a next request".replace(" ", "%20"))[0] == 404
        started = time.monotonic()
    assert time.monotonic() - started < 5
    assert set(threading.enumerate()) <= before
    for connection in connections:
        connection.close()
