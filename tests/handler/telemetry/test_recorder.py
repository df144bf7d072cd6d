"""The table of metrics, and a recorder that loses nothing and makes nobody wait."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handler.telemetry import recorder as telemetry
from handler.telemetry.recorder import (
    AGE_AT_EVICTION,
    BOUNDS_US,
    DOWNLOADED_BYTES,
    EVICTIONS,
    INVOCATION_4XX_ERRORS,
    INVOCATION_5XX_ERRORS,
    INVOCATIONS,
    LOADED_MODEL_COUNT,
    METRICS,
    MODEL_CACHE_HIT,
    MODEL_DOWNLOADING_TIME,
    MODEL_LATENCY,
    MODEL_LOADING_TIME,
    MODEL_LOADING_WAIT_TIME,
    MODEL_NOT_READY,
    MODEL_UNLOADING_TIME,
    OVERHEAD_LATENCY,
    QUEUE_DEPTH,
    RELOADS_WITHIN_MINUTES,
    LiveRecorder,
    Metric,
    Recorder,
    Silent,
    Totals,
    as_markdown,
)


class Clock:
    def __init__(self, now_s: float = 1_700_000_000.0) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def eager_switching() -> Iterator[None]:
    """Let threads interrupt each other as often as the interpreter can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_amazons_six_metrics_have_amazons_names_and_units() -> None:
    units = {metric.name: metric.unit for metric in METRICS}
    assert {
        "ModelCacheHit": "None",
        "ModelLoadingWaitTime": "Microseconds",
        "ModelDownloadingTime": "Microseconds",
        "ModelLoadingTime": "Microseconds",
        "ModelUnloadingTime": "Microseconds",
        "LoadedModelCount": "None",
    }.items() <= units.items()


def test_every_metric_defined_is_a_row_of_the_table_and_only_once() -> None:
    defined = {value for value in vars(telemetry).values() if isinstance(value, Metric)}
    assert set(METRICS) == defined
    assert len({metric.name for metric in METRICS}) == len(METRICS)


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_every_metric_says_in_one_sentence_when_it_moves(metric: Metric) -> None:
    assert metric.when.endswith(".")
    assert "|" not in metric.when
    assert (metric.unit == "Microseconds") == (metric.kind == "time")


def test_the_table_renders_as_markdown() -> None:
    lines = as_markdown().splitlines()
    assert lines[:2] == ["| metric | unit | when it moves |", "| --- | --- | --- |"]
    assert len(lines) == 2 + len(METRICS)
    assert f"| `ModelCacheHit` | None | {MODEL_CACHE_HIT.when} |" in lines


def test_bounds_rise_by_at_most_a_third() -> None:
    steps = [high / low for low, high in pairwise(BOUNDS_US)]
    assert min(steps) > 1.2
    assert max(steps) <= 1.34


def test_an_invocation_moves_all_that_belongs_to_it() -> None:
    recorder = LiveRecorder()
    recorder.invocation("a", True, 150, 90, 200)
    recorder.invocation("a", False, 50_000, 100, 200, wait_us=49_000)
    recorder.invocation("a", False, 60_000_000, None, 429, wait_us=60_000_000)
    recorder.invocation(None, None, 40, None, 503)
    totals = recorder.collect()
    assert totals.total(INVOCATIONS) == 4
    assert (totals.total(MODEL_CACHE_HIT), totals.count(MODEL_CACHE_HIT)) == (1, 3)
    assert (totals.total(MODEL_LATENCY), totals.count(MODEL_LATENCY)) == (190, 2)
    assert (totals.total(OVERHEAD_LATENCY), totals.count(OVERHEAD_LATENCY)) == (60 + 49_900 + 60_000_000 + 40, 4)
    assert (totals.total(MODEL_LOADING_WAIT_TIME), totals.count(MODEL_LOADING_WAIT_TIME)) == (60_049_000, 2)
    assert (totals.total(INVOCATION_4XX_ERRORS), totals.count(INVOCATION_4XX_ERRORS)) == (1, 4)
    assert (totals.total(INVOCATION_5XX_ERRORS), totals.count(INVOCATION_5XX_ERRORS)) == (1, 4)
    assert totals.total(MODEL_NOT_READY) == 1


def test_a_time_that_runs_backwards_counts_as_none() -> None:
    recorder = LiveRecorder()
    recorder.invocation("a", True, -5, 20, 200, wait_us=-1)
    recorder.time_us(MODEL_LOADING_TIME, -7)
    totals = recorder.collect()
    assert (totals.total(OVERHEAD_LATENCY), totals.total(MODEL_LOADING_TIME)) == (0, 0)
    assert (totals.count(OVERHEAD_LATENCY), totals.count(MODEL_LOADING_TIME)) == (1, 1)


@given(st.lists(st.integers(0, 10**14), min_size=1, max_size=200))
def test_a_distribution_keeps_the_number_the_sum_and_the_bucket_of_every_value(values: list[int]) -> None:
    recorder = LiveRecorder()
    for value in values:
        recorder.time_us(MODEL_LATENCY, value)
    totals = recorder.collect()
    assert (totals.count(MODEL_LATENCY), totals.total(MODEL_LATENCY)) == (len(values), sum(values))
    edges = zip((-1, *BOUNDS_US), (*BOUNDS_US, 10**15), totals.buckets(MODEL_LATENCY), strict=True)
    for above, upto, bucket in edges:
        inside = [value for value in values if above < value <= upto]
        assert (bucket is None) == (not inside)
        if bucket:
            assert (bucket.count, bucket.total) == (len(inside), sum(inside))


@given(st.lists(st.integers(10, 10**9), min_size=1, max_size=200), st.sampled_from([50, 90, 99, 100]))
def test_a_percentile_is_off_by_no_more_than_a_bucket(values: list[int], percent: int) -> None:
    recorder = LiveRecorder()
    for value in values:
        recorder.time_us(MODEL_LATENCY, value)
    rank = -(-len(values) * percent // 100)
    exact = sorted(values)[rank - 1]
    estimate = recorder.collect().percentile_us(MODEL_LATENCY, percent)
    assert estimate is not None
    assert exact / 1.34 <= estimate <= exact * 1.34


def test_percentiles_of_nothing_are_unknown() -> None:
    assert LiveRecorder().collect().percentile_us(MODEL_LATENCY, 99) is None


def test_nothing_is_lost_between_threads_that_record_end_and_are_read(eager_switching: None) -> None:
    recorder = LiveRecorder()
    recording = threading.Event()
    recording.set()
    per_thread = 500

    def record(n: int) -> None:
        for i in range(per_thread):
            recorder.invocation(f"model-{(n + i) % 300}", i % 3 > 0, 150 + i, 90, 500 if i % 100 == 0 else 200)
            recorder.count(DOWNLOADED_BYTES, 7)

    def read() -> list[Totals]:
        readings = [recorder.collect()]
        while recording.is_set():
            readings.append(recorder.collect())
        return [*readings, recorder.collect()]

    with ThreadPoolExecutor(2) as readers:
        reading = [readers.submit(read) for _ in range(2)]
        for _ in range(4):  # waves, so that ledgers of dead threads are folded while others are written
            writers = [threading.Thread(target=record, args=(n,)) for n in range(8)]
            for writer in writers:
                writer.start()
            for writer in writers:
                writer.join()
        recording.clear()
        all_readings = [future.result() for future in reading]

    n = 4 * 8 * per_thread
    for readings in all_readings:
        moved = [now.since(before) for before, now in pairwise(readings)]
        for metric, total in ((INVOCATIONS, n), (DOWNLOADED_BYTES, 7 * n), (MODEL_LATENCY, 90 * n)):
            assert sum(step.total(metric) for step in moved) + readings[0].total(metric) == total
            assert all(step.total(metric) >= 0 for step in moved)
        assert readings[-1].all_traffic.requests == n
    assert readings[-1].all_traffic.errors == 4 * 8 * 5


def test_a_reader_never_sees_a_count_without_its_sum(eager_switching: None) -> None:
    recorder = LiveRecorder()
    stop = threading.Event()

    def record() -> None:
        while not stop.is_set():
            recorder.time_us(MODEL_LATENCY, 1_000)

    writer = threading.Thread(target=record)
    writer.start()
    try:
        for _ in range(300):
            totals = recorder.collect()
            assert totals.total(MODEL_LATENCY) == 1_000 * totals.count(MODEL_LATENCY)
    finally:
        stop.set()
        writer.join()


def test_ledgers_of_ended_threads_are_let_go_and_their_figures_kept() -> None:
    recorder = LiveRecorder()
    for _ in range(50):
        thread = threading.Thread(target=recorder.count, args=(EVICTIONS,))
        thread.start()
        thread.join()
    assert recorder.collect().total(EVICTIONS) == 50
    assert len(recorder._enrolled) == 1  # this thread's own
    assert recorder.collect().total(EVICTIONS) == 50


def test_what_moved_is_the_difference_of_two_readings_and_gauges_are_of_the_later() -> None:
    clock = Clock()
    recorder = LiveRecorder(clock_s=clock)
    loaded = [3]
    recorder.gauge(LOADED_MODEL_COUNT, lambda: loaded[0])
    recorder.count(EVICTIONS, 2)
    before = recorder.collect()
    loaded[0] = 4
    clock.now_s += 60
    recorder.count(EVICTIONS, 5)
    moved = recorder.collect().since(before)
    assert moved.total(EVICTIONS) == 5
    assert moved.gauges == {"LoadedModelCount": 4.0}
    assert moved.at_s == clock.now_s


def test_a_gauge_that_fails_takes_no_other_along(caplog: pytest.LogCaptureFixture) -> None:
    recorder = LiveRecorder()

    def broken() -> float:
        raise RuntimeError("the cache is closed")

    recorder.gauge(QUEUE_DEPTH, broken)
    recorder.gauge(LOADED_MODEL_COUNT, lambda: 1)
    assert recorder.collect().gauges == {"LoadedModelCount": 1.0}
    assert "QueueDepth" in caplog.text


def test_only_a_gauge_is_read_by_callback() -> None:
    with pytest.raises(ValueError, match="Evictions is a count"):
        LiveRecorder().gauge(EVICTIONS, lambda: 1)


def test_a_load_moves_what_belongs_to_it() -> None:
    recorder = LiveRecorder()
    recorder.loaded("a", load_us=20_000, download_us=30_000, downloaded_bytes=4_096)
    recorder.loaded("b", load_us=10_000)
    totals = recorder.collect()
    assert (totals.total(MODEL_LOADING_TIME), totals.count(MODEL_LOADING_TIME)) == (30_000, 2)
    assert (totals.total(MODEL_DOWNLOADING_TIME), totals.count(MODEL_DOWNLOADING_TIME)) == (30_000, 1)
    assert totals.total(DOWNLOADED_BYTES) == 4_096
    assert totals.total(RELOADS_WITHIN_MINUTES) == 0


@pytest.mark.parametrize(("away_s", "is_reload"), [(1, True), (300, True), (301, False)])
def test_a_model_that_returns_within_five_minutes_of_its_eviction_is_a_reload(away_s: float, is_reload: bool) -> None:
    clock = Clock()
    recorder = LiveRecorder(clock_s=clock)
    recorder.loaded("a", load_us=1)
    recorder.evicted("a", unload_us=250, age_us=9_000_000, n_bytes=1_000)
    clock.now_s += away_s
    recorder.loaded("a", load_us=1)
    recorder.loaded("a", load_us=1)  # a second load without a second eviction is no second reload
    totals = recorder.collect()
    assert totals.total(RELOADS_WITHIN_MINUTES) == int(is_reload)
    assert [(reload.model, reload.away_s) for reload in recorder.recent_reloads()] == [("a", away_s)] * is_reload
    assert (totals.total(EVICTIONS), totals.total(AGE_AT_EVICTION), totals.total(MODEL_UNLOADING_TIME)) == (
        1,
        9_000_000,
        250,
    )


def test_memory_of_evictions_is_bounded() -> None:
    recorder = LiveRecorder()
    for i in range(telemetry.MAX_EVICTED_REMEMBERED + 500):
        recorder.evicted(f"m{i}", unload_us=1, age_us=1, n_bytes=1)
    assert len(recorder._evicted_at_s) == telemetry.MAX_EVICTED_REMEMBERED
    recent = recorder.recent_evictions()
    assert len(recent) == telemetry.RECENT_EVICTIONS
    assert recent[0].model == f"m{telemetry.MAX_EVICTED_REMEMBERED + 499}"


def test_silent_takes_every_call_a_recorder_takes() -> None:
    recorders: list[Recorder] = [Silent(), LiveRecorder()]
    for recorder in recorders:
        recorder.invocation("a", True, 1, 1, 200)
        recorder.count(EVICTIONS)
        recorder.time_us(MODEL_LATENCY, 1)
        recorder.gauge(QUEUE_DEPTH, lambda: 0)
        recorder.loaded("a", load_us=1)
        recorder.evicted("a", unload_us=1, age_us=1, n_bytes=1)
