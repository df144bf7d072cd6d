"""Datapoints add up to exactly what was recorded."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from container.metrics.datapoints import Datapoint, datapoints, dimension_value, model_datapoints
from handler.telemetry.recorder import LOADED_MODEL_COUNT, METRICS, MODEL_CACHE_HIT, MODEL_LATENCY, LiveRecorder, Totals


def named(points: list[Datapoint]) -> dict[str, Datapoint]:
    return {point.name: point for point in points}


@given(st.lists(st.integers(0, 10**13), min_size=1, max_size=300))
def test_values_times_counts_are_the_exact_sum_of_the_times(values: list[int]) -> None:
    recorder = LiveRecorder()
    for value in values:
        recorder.time_us(MODEL_LATENCY, value)
    point = named(datapoints(recorder.collect()))["ModelLatency"]
    assert point.total == sum(values)
    assert point.n_samples == len(values)
    assert len(set(point.values)) == len(point.values)
    assert point.values == tuple(sorted(point.values))


@given(st.lists(st.integers(1, 9), min_size=1, max_size=500), st.integers(1, 150))
def test_a_split_datapoint_has_the_same_samples_in_pieces_that_fit(counts: list[int], max_values: int) -> None:
    whole = Datapoint("ModelLatency", "Microseconds", tuple(float(i) for i in range(len(counts))), tuple(counts))
    pieces = list(whole.split(max_values))
    assert all(1 <= len(piece.values) <= max_values for piece in pieces)
    assert tuple(value for piece in pieces for value in piece.values) == whole.values
    assert tuple(count for piece in pieces for count in piece.counts) == whole.counts


def test_silence_reads_as_zero_counts_and_absent_times() -> None:
    points = named(datapoints(LiveRecorder().collect()))
    counts = {metric.name for metric in METRICS if metric.kind == "count"}
    assert set(points) == counts
    assert all(point.values == (0,) for point in points.values())


def test_hits_and_misses_are_ones_and_zeros_so_that_their_average_is_the_hit_ratio() -> None:
    recorder = LiveRecorder()
    for is_hit in (True, True, True, False):
        recorder.invocation("a", is_hit, 1, 1, 200)
    point = named(datapoints(recorder.collect()))[MODEL_CACHE_HIT.name]
    assert dict(zip(point.values, point.counts, strict=True)) == {0: 1, 1: 3}
    assert point.total / point.n_samples == 0.75


def test_a_gauge_is_its_value_at_the_reading() -> None:
    recorder = LiveRecorder()
    recorder.gauge(LOADED_MODEL_COUNT, lambda: 17)
    assert named(datapoints(recorder.collect()))["LoadedModelCount"].values == (17.0,)


def test_figures_by_model_add_up_to_the_endpoints_through_changes_of_the_list() -> None:
    recorder = LiveRecorder(top_models=2)
    before, booked, recorded = Totals.nothing(), 0.0, 0
    for favourite in ("a", "b", "c", "d", "a"):
        for model, n in ((favourite, 40), ("a", 3), ("z", 1)):
            for _ in range(n):
                recorder.invocation(model, True, 10, 5, 200)
                recorded += 1
            recorder.collect()  # the list changes between reports too
        now = recorder.collect()
        points = model_datapoints(now, before)
        assert all(value > 0 for point in points for value in point.counts)
        booked += sum(point.total for point in points if point.name == "Invocations")
        before = now
    assert booked == recorded


@given(st.text())
def test_any_text_becomes_a_dimension_value_cloudwatch_takes(text: str) -> None:
    value = dimension_value(text)
    assert 1 <= len(value) <= 1024
    assert value.isascii()
    assert value.isprintable()
    assert value.strip()
