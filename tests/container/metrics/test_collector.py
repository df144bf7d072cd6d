"""One thread for all sinks: on time, to the last recording, and whatever a sink does."""

from __future__ import annotations

import json
import os
import threading
import time

from container.metrics.collector import Collector, Sink, _next
from container.metrics.emf import EmfSink
from container.metrics.history import History
from handler.telemetry.recorder import EVICTIONS, INVOCATIONS, MODEL_LATENCY, LiveRecorder, Totals


class Ledger:
    """A sink that adds up what it is told."""

    def __init__(self) -> None:
        self.evictions = 0
        self.reported = threading.Event()
        self.closed_with_s: float | None = None

    def report(self, now: Totals, before: Totals) -> None:
        self.evictions += now.since(before).total(EVICTIONS)
        self.reported.set()

    def close(self, deadline_s: float) -> None:
        self.closed_with_s = deadline_s


class Broken:
    def report(self, now: Totals, before: Totals) -> None:
        raise RuntimeError("no")

    def close(self, deadline_s: float) -> None:
        raise RuntimeError("no")


class Stuck:
    def __init__(self) -> None:
        self.let_go = threading.Event()

    def report(self, now: Totals, before: Totals) -> None:
        self.let_go.wait()

    def close(self, deadline_s: float) -> None:
        pass


def collector_of(recorder: LiveRecorder, *sinks: Sink, interval_s: float = 3_600) -> Collector:
    return Collector(recorder, History(), sinks, interval_s=interval_s)


def test_each_sink_is_told_everything_once_and_the_rest_at_the_end(recorder: LiveRecorder) -> None:
    first, second = Ledger(), Ledger()
    collector = collector_of(recorder, first, second)
    recorder.count(EVICTIONS, 2)
    collector.start()
    recorder.count(EVICTIONS, 3)
    collector.report()
    recorder.count(EVICTIONS, 5)
    assert collector.close(5) is True
    assert first.evictions == second.evictions == 10
    assert first.closed_with_s is not None


def test_what_was_recorded_just_before_the_end_is_in_the_last_report(
    recorder: LiveRecorder, pipe: tuple[int, int]
) -> None:
    sink = EmfSink(pipe[1], recorder=recorder, namespace="n", dimensions={"EndpointName": "e"})
    collector = collector_of(recorder, sink)
    collector.start()
    writer = threading.Thread(target=lambda: [recorder.invocation("a", True, 9, 5, 200) for _ in range(1_000)])
    writer.start()
    writer.join()
    collector.close(5)
    os.close(pipe[1])
    with os.fdopen(os.dup(pipe[0])) as stream:
        documents = [json.loads(line) for line in stream]
    assert sum(document.get("Invocations", 0) for document in documents) == 1_000


def test_a_broken_sink_keeps_nothing_from_the_others(recorder: LiveRecorder) -> None:
    ledger = Ledger()
    collector = collector_of(recorder, Broken(), ledger)
    collector.start()
    recorder.count(EVICTIONS)
    collector.report()
    collector.close(5)
    assert ledger.evictions == 1
    assert ledger.closed_with_s is not None


def test_a_stuck_sink_holds_up_the_end_no_longer_than_the_deadline(recorder: LiveRecorder) -> None:
    stuck = Stuck()
    collector = collector_of(recorder, stuck)
    collector.start()
    started = time.monotonic()
    assert collector.close(0.2) is False
    assert time.monotonic() - started < 20
    stuck.let_go.set()
    collector._thread.join(5)


def test_reports_and_points_come_by_themselves(recorder: LiveRecorder) -> None:
    ledger, history = Ledger(), History()
    collector = Collector(recorder, history, [ledger], interval_s=0.02, point_s=0.01)
    collector.start()
    assert ledger.reported.wait(5)
    collector.close(5)
    assert history.points()


def test_a_collector_that_was_never_started_still_reports_at_the_end(recorder: LiveRecorder) -> None:
    ledger = Ledger()
    collector = collector_of(recorder, ledger)
    recorder.count(EVICTIONS, 4)
    assert collector.close(1) is True
    assert ledger.evictions == 4


def test_a_point_holds_what_happened_since_the_last_one(recorder: LiveRecorder) -> None:
    history = History(capacity=2)
    collector = Collector(recorder, history)
    for i in range(3):
        for _ in range(i + 1):
            recorder.invocation("a", i > 0, 1_000, 900, 200)
        collector.point()
    assert [(point.requests, point.hits) for point in history.points()] == [(2, 2), (3, 3)]
    assert history.points()[0].model_p50_us == 900
    assert recorder.collect().total(INVOCATIONS) == 6
    assert recorder.collect().count(MODEL_LATENCY) == 6


def test_a_paused_process_does_not_catch_up_point_by_point() -> None:
    assert _next(10.0, 5.0, 10.1) == 15.0
    assert _next(10.0, 5.0, 61.0) == 65.0
