"""What a stranger does to an endpoint is his own loss: others are answered meanwhile, and all is well afterwards."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import struct
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.rig.endpoint import Endpoint, is_running, until

ROW = "0.1,0.2,0.3,0.4,0.5,0.6"
HEAD = (
    "POST /invocations HTTP/1.1\r\nHost: x\r\nX-Amzn-SageMaker-Target-Model: us/0.tar.gz\r\nContent-Type: text/csv\r\n"
)


def answers(endpoint: Endpoint) -> bool:
    return endpoint.post("us/0.tar.gz", ROW).status == 200


def test_a_log_that_nobody_reads_stops_nothing(segments: Path, scratch: Path) -> None:
    ours, theirs = os.pipe()
    os.set_blocking(theirs, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(theirs, b"x" * 4096)  # as full as it can be before the first line
    os.set_blocking(theirs, True)
    endpoint = Endpoint(segments, scratch, "--workers", "4", "--loaders", "2", "--access-log", "1", errors=theirs)
    try:
        endpoint.wait_ready()
        ends = time.monotonic() + 2
        while time.monotonic() < ends:  # each makes Java log an error
            with socket.create_connection(("127.0.0.1", endpoint.port)) as one:
                one.sendall(f"{HEAD}Content-Length: 100\r\n\r\n1".encode())
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        assert answers(endpoint)
        assert endpoint.ping() == 200
        os.kill(endpoint.runtime, signal.SIGKILL)
        until(lambda: answers(endpoint))
        assert endpoint.stop() == 0
    finally:
        endpoint.kill()
        os.close(ours)
        os.close(theirs)


def test_answers_that_nobody_reads_are_in_nobodys_way_until_there_are_too_many(segments: Path, scratch: Path) -> None:
    limits = ("--max-body", "10MiB", "--jvm-heap", "96MiB")  # of which all bodies together may have a sixth
    with Endpoint(segments, scratch, "--workers", "8", "--loaders", "2", *limits) as endpoint, ExitStack() as held:
        n_bytes = len(endpoint.post("us/0.tar.gz", "1\n", Content_Type="text/libsvm").body) + 1
        body = "1\n" * (9_500_000 // n_bytes)
        lines = [b"HTTP/1.1 200"]
        while lines[-1] == b"HTTP/1.1 200":
            assert endpoint.post("us/0.tar.gz", "\n".join([ROW] * 1000)).status == 200
            lines.append(held.enter_context(unread(endpoint, body)).recv(12))
        assert lines[-1] == b"HTTP/1.1 503"
        # All bodies may have 16 MiB, these answers eight times that.
        assert 8 * 16 // 10 <= len(lines) <= 8 * 16 // 9 + 2
        refused = endpoint.post("us/0.tar.gz", body, Content_Type="text/libsvm")
        assert refused.status == 503
        assert "too many answers" in refused.json["Message"]
        assert answers(endpoint)
        held.close()
        until(lambda: endpoint.post("us/0.tar.gz", body, Content_Type="text/libsvm").status == 200)


def unread(endpoint: Endpoint, body: str) -> socket.socket:
    """A connection over which an answer comes that nobody reads."""
    one = socket.socket()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    one.settimeout(60)
    one.connect(("127.0.0.1", endpoint.port))
    kind = HEAD.replace("text/csv", "text/libsvm")
    one.sendall(f"{kind}Content-Length: {len(body)}\r\n\r\n{body}".encode())
    return one


def removed(path: Path) -> bool:
    """The endpoint may write into a directory while it is being removed: rmtree then finds it not empty."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
    return not path.exists()


@pytest.mark.parametrize("what", ["", "tmp/relay.sock", "tmp"])
def test_a_scratch_directory_that_somebody_removes_ends_the_endpoint_with_the_reason(
    segments: Path, scratch: Path, what: str
) -> None:
    endpoint = Endpoint(segments, scratch, "--workers", "4", "--loaders", "2")
    try:
        endpoint.wait_ready()
        (root,) = scratch.iterdir()
        gone = root / what
        until(lambda: removed(gone))
        assert endpoint.wait() == 1
        assert any(f"{gone} was removed by somebody else" in line for line in endpoint.log)
    finally:
        endpoint.kill()


def test_an_endpoint_that_was_killed_leaves_nothing_that_the_next_does_not_sweep(segments: Path, scratch: Path) -> None:
    killed = Endpoint(segments, scratch, "--workers", "4", "--loaders", "2")
    killed.wait_ready()
    family = killed.family()
    killed.kill()
    until(lambda: not any(map(is_running, family)))
    assert list(scratch.iterdir())
    with Endpoint(segments, scratch, "--workers", "4", "--loaders", "2") as next_one:
        assert answers(next_one)
        assert len(list(scratch.iterdir())) == 1
