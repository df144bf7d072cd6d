"""What a stranger does to an endpoint is his own loss: others are answered meanwhile, and all is well afterwards."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import time
from pathlib import Path

from tests.rig.endpoint import Endpoint, until

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
