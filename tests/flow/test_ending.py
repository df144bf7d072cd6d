"""How connections end: told so with the last answer when the endpoint stops, and by themselves when nobody uses them."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.rig import boosters, faulty_s3
from tests.rig.endpoint import Endpoint, needs_classes, until
from tests.rig.faulty_s3 import FaultyS3

pytestmark = needs_classes
ROW = "0.1,0.2,0.3,0.4,0.5,0.6"


class Caller:
    """One connection that is kept."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", endpoint.port, timeout=60)

    def call(self, target: str) -> tuple[int, str | None]:
        headers = {"Content-Type": "text/csv", "X-Amzn-SageMaker-Target-Model": target}
        self._connection.request("POST", "/invocations", ROW, headers)
        response = self._connection.getresponse()
        response.read()
        return response.status, response.getheader("Connection")


def test_from_sigterm_on_each_answer_is_the_last_on_its_connection(scratch: Path) -> None:
    with FaultyS3() as s3:
        for name in ("warm", "cold"):
            s3.put(f"{name}.tar.gz", boosters.segment_archive(1))
        held = threading.Event()
        s3.faults["cold.tar.gz"] = faulty_s3.held_until(held)
        endpoint = Endpoint(f"s3://{s3.bucket}", scratch, "--s3-endpoint-url", s3.url, "--workers", "4")
        with endpoint, ThreadPoolExecutor(1) as callers:
            quick, slow = Caller(endpoint), Caller(endpoint)
            assert quick.call("warm.tar.gz")[0] == 200
            assert quick.call("warm.tar.gz") == (200, "keep-alive")  # past MMS
            cold = callers.submit(slow.call, "cold.tar.gz")
            until(lambda: s3.requests["cold.tar.gz"] == 1, 30)
            os.kill(endpoint.pid, signal.SIGTERM)
            until(lambda: any("in flight" in line for line in endpoint.log), 30)
            until(lambda: quick.call("warm.tar.gz") == (200, "close"), 30)
            held.set()
            assert cold.result(30) == (200, "close")
            assert endpoint.wait() == 0


def test_a_connection_that_nobody_uses_is_closed(segments: Path, scratch: Path) -> None:
    with Endpoint(segments, scratch, "--workers", "2", "--idle", "1") as endpoint:
        with socket.create_connection(("127.0.0.1", endpoint.port), timeout=30) as silent:
            assert silent.recv(1) == b""
        used = Caller(endpoint)
        assert used.call("us/1.tar.gz") == (200, "keep-alive")
        stream = used._connection.sock
        stream.settimeout(30)
        assert stream.recv(1) == b""


def test_callers_who_come_again_and_again_meet_a_closed_door_before_the_drain_is_over(
    segments: Path, scratch: Path
) -> None:
    """At its end they would be cut off in the middle of a call."""
    with Endpoint(segments, scratch, "--workers", "2", "--drain", "5") as endpoint:
        assert Caller(endpoint).call("us/1.tar.gz")[0] == 200
        over = threading.Event()

        def come_again() -> Counter[object]:
            seen: Counter[object] = Counter()
            while not over.is_set():
                try:
                    seen[Caller(endpoint).call("us/1.tar.gz")] += 1
                except ConnectionRefusedError:
                    seen["refused"] += 1
                    over.wait(0.05)
            return seen

        with ThreadPoolExecutor(4) as callers:
            coming = [callers.submit(come_again) for _ in range(4)]
            time.sleep(0.5)
            os.kill(endpoint.pid, signal.SIGTERM)
            assert endpoint.wait() == 0
            over.set()
            seen = sum((one.result(30) for one in coming), Counter())
    assert set(seen) <= {(200, "keep-alive"), (200, "close"), "refused"}
    assert seen["refused"] >= 4
    assert any("nothing is in flight any more" in line for line in endpoint.log)
