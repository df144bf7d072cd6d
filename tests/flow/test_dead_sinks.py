"""Metrics that nobody takes: no call waits for them, and neither does the end."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.rig.emf import problems, samples
from tests.rig.endpoint import Endpoint

ROW = "0.1,0.2,0.3,0.4,0.5,0.6"
SECONDS = 4.0  # several reports, one a second
PATIENCE_S = 1.5  # for one call; a write to the full pipe would last for ever, a connection to the tarpit for five


@pytest.fixture
def full_pipe() -> Iterator[tuple[int, int, int]]:
    """A pipe nobody has read for long: its ends, and how much is in it."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    n_bytes = 0
    try:
        while True:
            n_bytes += os.write(writing, b" " * 4096)
    except BlockingIOError:
        os.set_blocking(writing, True)
    yield reading, writing, n_bytes
    for end in (reading, writing):
        os.close(end)


@pytest.fixture
def tarpit() -> Iterator[str]:
    """An address that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def test_calls_are_answered_while_no_sink_takes_anything_and_are_told_when_one_does(
    segments: Path, scratch: Path, full_pipe: tuple[int, int, int], tarpit: str
) -> None:
    reading, writing, n_bytes = full_pipe
    flags = ("--emf", "--cloudwatch", "--cloudwatch-endpoint-url", tarpit, "--metrics-interval", "1")
    n_calls, slowest_s = 0, 0.0
    with Endpoint(segments, scratch, *flags, "--workers", "2", output=writing) as endpoint:
        endpoint.post("us/0.tar.gz", ROW)
        ends_s = time.monotonic() + SECONDS
        while time.monotonic() < ends_s:
            started_s = time.monotonic()
            assert endpoint.post("us/0.tar.gz", ROW).status == 200
            slowest_s = max(slowest_s, time.monotonic() - started_s)
            n_calls += 1
        while n_bytes:
            n_bytes -= len(os.read(reading, min(n_bytes, 1 << 16)))
        stopped_s = time.monotonic()
    assert slowest_s < PATIENCE_S
    assert time.monotonic() - stopped_s < 15
    os.set_blocking(reading, False)
    lines = os.read(reading, 1 << 20).splitlines(keepends=True)
    assert [problem for line in lines for problem in problems(line)] == []
    told = [pair for line in lines for pair in samples(json.loads(line), "Invocations")]
    assert sum(value for value, _ in told) == n_calls + 1
