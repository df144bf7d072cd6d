"""The access log: errors always, the rest by sample, and never in a request's way."""

from __future__ import annotations

import contextlib
import json
import os
import time

from hypothesis import given
from hypothesis import strategies as st

from container.metrics import access_log
from container.metrics.access_log import MAX_LINE_BYTES, AccessLog, access_line, server_timing
from handler.telemetry.recorder import LOG_LINES_DROPPED, Invocation, LiveRecorder

COLD = Invocation(
    request_id="inference-7",
    target="eu/Houston_TX.tar.gz",
    status=200,
    is_hit=False,
    total_us=84_211,
    stages_us=(("wait", 84_000), ("decode", 41), ("predict", 63), ("encode", 12)),
)


def test_a_line_says_who_what_cold_or_warm_how_long_and_how_it_ended() -> None:
    assert json.loads(access_line(1_700_000_000.12345, COLD)) == {
        "at": 1_700_000_000.123,
        "request_id": "inference-7",
        "target": "eu/Houston_TX.tar.gz",
        "status": 200,
        "cache": "cold",
        "total_ms": 84.211,
        "stages_ms": {"wait": 84.0, "decode": 0.041, "predict": 0.063, "encode": 0.012},
    }


@given(st.text(), st.one_of(st.none(), st.text(max_size=3_000)), st.one_of(st.none(), st.text(min_size=2_000)))
def test_whatever_a_caller_sends_becomes_one_line_that_fits_one_write(
    request_id: str, target: str | None, error: str | None
) -> None:
    line = access_line(1.0, Invocation(request_id, target, 400, None, 5, (), error))
    assert len(line) <= MAX_LINE_BYTES
    assert line.count(b"\n") == 1
    assert json.loads(line)["status"] == 400


def test_a_line_of_control_characters_is_cut_until_it_fits() -> None:
    line = access_line(1.0, Invocation("\x01" * 9_000, "\x02" * 9_000, 400, None, 5, (), "\udc00" * 9_000))
    assert len(line) <= MAX_LINE_BYTES
    json.loads(line)


def test_errors_are_always_wanted_and_successes_by_sample(recorder: LiveRecorder, pipe: tuple[int, int]) -> None:
    draws = iter([0.05, 0.15])
    log = AccessLog(pipe[1], recorder=recorder, sample=0.1, draw=lambda: next(draws))
    assert [log.wants(status) for status in (200, 200, 400, 503)] == [True, False, True, True]
    log.close()


def test_without_a_sample_no_success_is_wanted(recorder: LiveRecorder, pipe: tuple[int, int]) -> None:
    log = AccessLog(pipe[1], recorder=recorder)
    assert not log.wants(200)
    assert log.wants(429)
    log.close()


def test_what_was_queued_is_written_before_the_end(recorder: LiveRecorder, pipe: tuple[int, int]) -> None:
    log = AccessLog(pipe[1], recorder=recorder, sample=1.0)
    for _ in range(100):
        log.write(COLD)
    log.close()
    os.close(pipe[1])
    with os.fdopen(os.dup(pipe[0])) as stream:
        assert [json.loads(line)["target"] for line in stream] == ["eu/Houston_TX.tar.gz"] * 100
    assert recorder.collect().total(LOG_LINES_DROPPED) == 0


def test_a_log_nobody_reads_makes_no_request_wait_and_counts_every_line_it_drops(
    recorder: LiveRecorder, pipe: tuple[int, int], monkeypatch: object
) -> None:
    log = AccessLog(pipe[1], recorder=recorder, sample=1.0)
    n = access_log.MAX_QUEUED + 3_000
    slowest = 0.0
    for _ in range(n):
        started = time.perf_counter()
        log.write(COLD)
        slowest = max(slowest, time.perf_counter() - started)
    assert slowest < 0.5
    log.close(deadline_s=0.1)
    dropped = recorder.collect().total(LOG_LINES_DROPPED)
    # The pipe's reading end lets the writer thread, which is still in its write, come to an end.
    os.set_blocking(pipe[0], False)
    written = b""
    while log._writer.is_alive():
        try:
            written += os.read(pipe[0], 1 << 16)
        except BlockingIOError:
            time.sleep(0.001)
    with contextlib.suppress(BlockingIOError):  # it may have been read to its end already
        written += os.read(pipe[0], 1 << 20)
    assert dropped + written.count(b"\n") == n


def test_a_log_that_fails_counts_its_lines_and_ends_no_request(recorder: LiveRecorder, pipe: tuple[int, int]) -> None:
    os.close(pipe[0])
    log = AccessLog(pipe[1], recorder=recorder, sample=1.0)
    for _ in range(5):
        log.write(COLD)
    log.close()
    assert recorder.collect().total(LOG_LINES_DROPPED) == 5


def test_stages_render_as_a_server_timing_header() -> None:
    assert server_timing(COLD.stages_us) == "wait;dur=84, decode;dur=0.041, predict;dur=0.063, encode;dur=0.012"
    assert server_timing([('we"ird, stage', 1_500)]) == "we-ird--stage;dur=1.5"
    assert server_timing([]) == ""
