"""Nobody who logs ever waits for whoever reads the log."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time

from container.log_stream import LogStream
from tests.rig.endpoint import until


def read_all(descriptor: int, end: bytes) -> bytes:
    data = b""
    while not data.endswith(end):
        data += os.read(descriptor, 1 << 16)
    return data


def test_lines_arrive_whole_and_in_order() -> None:
    ours, theirs = os.pipe()
    stream = LogStream(theirs)
    print("one", "half", file=stream)
    stream.write("a line in ")
    stream.write("two pieces\nand another\nthe beginning of")
    stream.write(" a last one \udc80\n")
    assert stream.drain(5)
    assert (
        os.read(ours, 1 << 16) == b"one half\na line in two pieces\nand another\nthe beginning of a last one \\udc80\n"
    )
    os.close(ours)
    os.close(theirs)


def test_a_log_nobody_reads_holds_nobody_up_and_says_later_what_it_dropped() -> None:
    ours, theirs = os.pipe()
    dropped: list[int] = []
    stream = LogStream(theirs, max_bytes=100_000)
    stream.on_dropped = dropped.append
    log = logging.Logger("a")
    log.addHandler(logging.StreamHandler(stream))
    began = time.monotonic()
    for number in range(5_000):
        log.warning("%099d", number)  # 100 KB are queued, 64 KB in the pipe
    assert time.monotonic() - began < 5
    assert dropped
    assert not stream.drain(0.01)
    text = read_all(ours, b"nobody read it\n").decode()
    lines = text.splitlines()
    assert lines[-1].endswith(f"{sum(dropped)} lines of this log were dropped: nobody read it")
    assert len(lines) - 1 == 5_000 - sum(dropped)
    assert [int(line) for line in lines[:-1]] == sorted(int(line) for line in lines[:-1])
    log.warning("again")
    until(lambda: os.read(ours, 100) == b"again\n")
    os.close(ours)
    os.close(theirs)


def test_a_process_ends_whose_log_nobody_reads_and_writes_its_last_words_where_somebody_does() -> None:
    program = (
        "import logging, sys; from container.log_stream import take_over_stderr; take_over_stderr(); "
        "logging.basicConfig(); [logging.error('x' * 80) for _ in range(int(sys.argv[1]))]; raise SystemError('last')"
    )
    ours, theirs = os.pipe()
    began = time.monotonic()
    stuck = subprocess.Popen([sys.executable, "-c", program, "5000"], stderr=theirs)
    assert stuck.wait(10) == 1
    assert time.monotonic() - began < 10
    os.close(ours)
    os.close(theirs)
    read = subprocess.run([sys.executable, "-c", program, "10"], stderr=subprocess.PIPE, check=False)
    assert read.stderr.count(b"ERROR") == 10
    assert read.stderr.endswith(b"SystemError: last\n")
