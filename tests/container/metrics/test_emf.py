"""Lines of embedded metric format: valid, whole, exact, and never in anybody's way."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from container.metrics.datapoints import Datapoint
from container.metrics.emf import MAX_BACKLOG_LINES, MAX_LINE_BYTES, EmfSink, emf_lines
from handler.telemetry.recorder import LOADED_MODEL_COUNT, METRICS, MODEL_LATENCY, LiveRecorder, Totals
from tests.rig.emf import problems, samples

NOW_S = 1_700_000_000.0  # on the recorder's clock
DIMENSIONS = {"EndpointName": "churn", "VariantName": "AllTraffic"}


def sink_to(fd: int, recorder: LiveRecorder, **options: Any) -> EmfSink:
    return EmfSink(fd, recorder=recorder, namespace="MultiModelEndpoint", dimensions=DIMENSIONS, **options)


def read_lines(fd: int) -> list[dict[str, Any]]:
    os.set_blocking(fd, False)
    text = b""
    while True:
        try:
            part = os.read(fd, 1 << 20)
        except BlockingIOError:
            break
        if not part:
            break
        text += part
    lines = text.splitlines(keepends=True)
    assert [problem for line in lines for problem in problems(line, now_s=NOW_S)] == []
    return [json.loads(line) for line in lines]


def record_everything(recorder: LiveRecorder) -> None:
    for metric in METRICS:
        for i in range(200):
            if metric.kind == "gauge":
                recorder.gauge(metric, lambda: 42.5)
            elif metric.kind == "time":
                recorder.time_us(metric, i**4)
            elif metric.kind == "flag":
                recorder.count(metric, i % 2)
            else:
                recorder.count(metric, i)


@pytest.mark.parametrize("lists", [False, True])
def test_every_line_is_valid_by_the_published_schema_and_fits_one_write(
    pipe: tuple[int, int], recorder: LiveRecorder, lists: bool
) -> None:
    record_everything(recorder)
    recorder.invocation("a", True, 120, 80, 200)
    sink = sink_to(pipe[1], recorder, per_model=True, lists=lists)
    sink.report(recorder.collect(), Totals.nothing())
    documents = read_lines(pipe[0])
    for document in documents:
        assert len(json.dumps(document, separators=(",", ":"))) < MAX_LINE_BYTES
    assert {metric["Name"] for d in documents for metric in d["_aws"]["CloudWatchMetrics"][0]["Metrics"]} == {
        metric.name for metric in METRICS
    }


@pytest.mark.parametrize("lists", [False, True])
def test_the_lines_hold_exactly_what_was_recorded(pipe: tuple[int, int], recorder: LiveRecorder, lists: bool) -> None:
    record_everything(recorder)
    totals = recorder.collect()
    sink_to(pipe[1], recorder, lists=lists).report(totals, Totals.nothing())
    documents = read_lines(pipe[0])
    for metric in METRICS:
        if metric.kind == "gauge":
            continue
        told = [pair for document in documents for pair in samples(document, metric.name)]
        assert sum(value * count for value, count in told) == totals.total(metric)
        if metric.kind != "count":
            assert sum(count for _, count in told) == totals.count(metric)


def test_a_minute_of_heavy_traffic_takes_no_more_bytes_than_one_of_light_traffic(
    pipe: tuple[int, int], recorder: LiveRecorder
) -> None:
    def size_after(n: int) -> int:
        before = recorder.collect()
        for i in range(n):
            recorder.invocation("a", True, 200 + i % 50, 100 + i % 50, 200)
        lines = read_after_report(before)
        return sum(len(json.dumps(line)) for line in lines)

    def read_after_report(before: Totals) -> list[dict[str, Any]]:
        sink_to(pipe[1], recorder).report(recorder.collect(), before)
        return read_lines(pipe[0])

    assert size_after(20_000) < size_after(500) * 1.2


@settings(deadline=None)
@given(st.lists(st.integers(1, 10**12), min_size=1, max_size=400, unique=True), st.booleans(), st.integers(1, 3))
def test_a_distribution_of_any_width_is_split_into_lines_that_fit(values: list[int], lists: bool, n_long: int) -> None:
    dimensions = {f"Dimension{i}": "x" * 1_024 for i in range(n_long)}
    point = Datapoint("ModelLatency", "Microseconds", tuple(values), (3,) * len(values))
    lines = list(emf_lines([point], at_s=1.0, namespace="n", dimensions=dimensions, lists=lists))
    assert all(len(line) <= MAX_LINE_BYTES and line.endswith(b"\n") for line in lines)
    told = [pair for line in lines for pair in samples(json.loads(line), "ModelLatency")]
    assert sum(value * count for value, count in told) == 3 * sum(values)


def test_hostile_names_stay_inside_their_json_string(pipe: tuple[int, int], recorder: LiveRecorder) -> None:
    name = 'a"\n{"_aws":1}\udc80' + "\N{SNOWMAN}" * 2_000
    recorder.invocation(name, True, 1, 1, 200)
    sink_to(pipe[1], recorder, per_model=True).report(recorder.collect(), Totals.nothing())
    documents = read_lines(pipe[0])
    (model,) = {document["ModelName"] for document in documents if "ModelName" in document}
    assert model.startswith('a"?{"_aws":1}??')


def test_a_reader_that_stopped_reading_delays_and_loses_nothing(pipe: tuple[int, int], recorder: LiveRecorder) -> None:
    sink = sink_to(pipe[1], recorder)
    os.set_blocking(pipe[1], False)
    filled = 0
    try:
        while True:
            filled += os.write(pipe[1], b" " * 4096)
    except BlockingIOError:
        os.set_blocking(pipe[1], True)
    recorder.time_us(MODEL_LATENCY, 70)
    first = recorder.collect()
    started = time.monotonic()
    sink.report(first, Totals.nothing())
    assert time.monotonic() - started < 20
    while filled:
        filled -= len(os.read(pipe[0], min(filled, 1 << 16)))
    recorder.time_us(MODEL_LATENCY, 30)
    sink.report(recorder.collect(), first)
    told = [pair for document in read_lines(pipe[0]) for pair in samples(document, "ModelLatency")]
    assert told == [(70, 1), (30, 1)]


def test_a_log_nobody_will_ever_read_holds_a_bounded_backlog_and_counts_what_it_drops(
    pipe: tuple[int, int], recorder: LiveRecorder
) -> None:
    sink = sink_to(pipe[1], recorder)
    os.close(pipe[0])  # EPIPE from now on; Python ignores SIGPIPE
    for _ in range(MAX_BACKLOG_LINES + 20):
        sink.report(recorder.collect(), Totals.nothing())
    sink.close(0.1)
    assert len(sink._waiting) == MAX_BACKLOG_LINES
    (dropped,) = [metric for metric in METRICS if metric.name == "ReportsDropped"]
    assert recorder.collect().total(dropped) >= 20


@pytest.mark.parametrize("reading", [math.nan, math.inf, -math.inf])
def test_a_gauge_that_is_no_number_is_left_out(pipe: tuple[int, int], recorder: LiveRecorder, reading: float) -> None:
    recorder.gauge(LOADED_MODEL_COUNT, lambda: reading)
    sink_to(pipe[1], recorder).report(recorder.collect(), Totals.nothing())
    (document,) = read_lines(pipe[0])
    assert LOADED_MODEL_COUNT.name not in document


VALID = (
    b'{"_aws":{"Timestamp":1700000000000,"CloudWatchMetrics":[{"Namespace":"n","Dimensions":[["d"]],'
    b'"Metrics":[{"Name":"m","Unit":"Count"}]}]},"d":"x","m":{"Values":[1,2],"Counts":[3,1],"Min":1,"Max":2,'
    b'"Sum":5,"Count":4}}\n'
)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"Min":1', b'"Min":0'),
        (b'"Sum":5', b'"Sum":6'),
        (b'"Count":4', b'"Count":5'),
        (b"[3,1]", b"[4]"),
        (b"[1,2]", b"[1,NaN]"),
        (b"[1,2]", b"[1,1e400]"),
        (b"[1,2]", b"[" + b",".join([b"1"] * 101) + b"]"),
        (b'"d":"x"', b'"d":1'),
        (b'"d":"x"', b'"d":"' + b"x" * 1025 + b'"'),
        (b'"d":"x",', b""),
        (b'"m":{', b'"o":{'),
        (b'{"Name":"m","Unit":"Count"}', b",".join([b'{"Name":"m"}'] * 2)),
        (b'{"Name":"m","Unit":"Count"}', b",".join([b'{"Name":"m"}'] * 101)),
        (b'["d"]', b"[" + b",".join(b'"d%d"' % n for n in range(31)) + b"]"),
        (b'"Unit":"Count"', b'"Unit":"Pounds"'),
        (b'"Timestamp":1700000000000', b'"Timestamp":1600000000000'),
        (b'"d":"x"', b'"d":"x",' + b",".join(b'"p%d":"%s"' % (n, b"x" * 1000) for n in range(270))),
        (b"}\n", b"}"),
        (b"}\n", b"\n}\n"),
    ],
)
def test_the_judge_of_lines_finds_what_cloudwatch_would_not_take(old: bytes, new: bytes) -> None:
    assert problems(VALID, now_s=NOW_S) == []
    assert old in VALID
    assert problems(VALID.replace(old, new), now_s=NOW_S) != []


WRITER = """
import sys
from container.metrics.emf import EmfSink
from handler.telemetry.recorder import METRICS, LiveRecorder, Totals
recorder = LiveRecorder()
for metric in METRICS:
    for i in range(100):
        if metric.kind == "time":
            recorder.time_us(metric, i**4)
sink = EmfSink(1, recorder=recorder, namespace="n", dimensions={"EndpointName": sys.argv[1]})
totals = recorder.collect()
for _ in range(60):
    sink.report(totals, Totals.nothing())
"""


def test_lines_of_processes_that_share_a_pipe_never_interleave(recorder: LiveRecorder) -> None:
    reader, writer = os.pipe()
    root = Path(__file__).resolve().parents[3]
    processes = [
        subprocess.Popen([sys.executable, "-c", WRITER, f"p{i}" * 50], stdout=writer, cwd=root) for i in range(3)
    ]
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        documents = [json.loads(line) for line in stream]
    assert [process.wait(20) for process in processes] == [0, 0, 0]
    names = [document["EndpointName"] for document in documents]
    assert {name: names.count(name) for name in set(names)} == dict.fromkeys(
        (f"p{i}" * 50 for i in range(3)), len(names) // 3
    )
