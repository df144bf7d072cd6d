"""What CloudWatch is told about one metric over one interval, whichever way it is told.

Rule: values times counts add up to exactly what was recorded. A bucket of a distribution becomes at most two whole
numbers beside its mean, in the proportion that keeps its sum.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice

from handler.telemetry.recorder import INVOCATIONS, METRICS, MODEL_CACHE_HIT, Bucket, Metric, Totals
from handler.telemetry.traffic import OTHER, ModelTraffic

MODEL_DIMENSION = "ModelName"
MAX_DIMENSION_CHARS = 1024  # CloudWatch API, Dimension.Value


@dataclass(frozen=True, slots=True)
class Datapoint:
    """One metric over one interval: each value and how often it occurred. `model` is set on per-model figures only."""

    name: str
    unit: str
    values: tuple[float, ...]
    counts: tuple[int, ...]
    model: str | None = None

    @property
    def is_single(self) -> bool:
        return self.counts == (1,)

    @property
    def n_samples(self) -> int:
        return sum(self.counts)

    @property
    def total(self) -> float:
        return sum(value * count for value, count in zip(self.values, self.counts, strict=True))

    def split(self, max_values: int) -> Iterator[Datapoint]:
        """The same samples in datapoints of at most `max_values` distinct values."""
        pairs = iter(zip(self.values, self.counts, strict=True))
        while part := list(islice(pairs, max_values)):
            yield replace(self, values=tuple(value for value, _ in part), counts=tuple(count for _, count in part))


def datapoints(moved: Totals) -> list[Datapoint]:
    """The endpoint's metrics over an interval.

    moved    what `Totals.since` gave
    returns  a count always, so that silence reads as zero and not as missing data; a flag or time only when it was
             recorded; a gauge when it could be read
    """
    points = (_datapoint(metric, moved) for metric in METRICS)
    return [point for point in points if point is not None]


def model_datapoints(now: Totals, before: Totals) -> list[Datapoint]:
    """Invocations and ModelCacheHit of the busiest models, and of all others together as `other`.

    What a model did in the interval before it was listed, or as it left the list, is part of `other`: the rows add up
    to the endpoint's own.
    """
    earlier = {(row.model, row.listed_at_s): row for row in before.traffic}
    points: list[Datapoint] = []
    requests = now.all_traffic.requests - before.all_traffic.requests
    hits = now.all_traffic.hits - before.all_traffic.hits
    for row in now.traffic:
        if row.model == OTHER:
            continue
        was = earlier.get((row.model, row.listed_at_s))
        row_requests, row_hits = _since(row, was)
        requests -= row_requests
        hits -= row_hits
        points += _traffic_points(row.model, row_requests, row_hits)
    return points + _traffic_points(OTHER, requests, hits)


def dimension_value(text: str) -> str:
    """`text` as CloudWatch takes it: printable ASCII, 1 to 1024 characters, not blank. Never raises."""
    ascii_only = "".join(char if " " <= char <= "~" else "?" for char in text[:MAX_DIMENSION_CHARS])
    return ascii_only if ascii_only.strip() else "-"


def dimension_values(dimensions: Mapping[str, str]) -> dict[str, str]:
    return {name: dimension_value(value) for name, value in dimensions.items()}


def _datapoint(metric: Metric, moved: Totals) -> Datapoint | None:
    if metric.kind == "gauge":
        value = moved.gauges.get(metric.name, math.nan)
        # Neither JSON nor CloudWatch knows NaN or infinity; one would cost the whole report.
        return Datapoint(metric.name, metric.unit, (value,), (1,)) if math.isfinite(value) else None
    if metric.kind == "count":
        return Datapoint(metric.name, metric.unit, (moved.total(metric),), (1,))
    if metric.kind == "flag":
        samples = _flag_samples(moved.count(metric), moved.total(metric))
    else:
        samples = _time_samples(moved.buckets(metric))
    if not samples:
        return None
    return Datapoint(metric.name, metric.unit, tuple(samples), tuple(samples.values()))


def _flag_samples(occasions: int, ones: int) -> dict[float, int]:
    samples: dict[float, int] = {0: occasions - ones, 1: ones}
    return {value: count for value, count in samples.items() if count}


def _time_samples(buckets: tuple[Bucket | None, ...]) -> dict[float, int]:
    samples: dict[float, int] = {}
    for bucket in buckets:
        if bucket is None:
            continue
        low, n_high = divmod(bucket.total, bucket.count)
        for value, count in ((low, bucket.count - n_high), (low + 1, n_high)):
            if count:
                samples[value] = samples.get(value, 0) + count
    return samples


def _since(row: ModelTraffic, was: ModelTraffic | None) -> tuple[int, int]:
    return (row.requests, row.hits) if was is None else (row.requests - was.requests, row.hits - was.hits)


def _traffic_points(model: str, requests: int, hits: int) -> list[Datapoint]:
    if requests == 0:
        return []
    samples = _flag_samples(requests, hits)
    return [
        Datapoint(INVOCATIONS.name, INVOCATIONS.unit, (requests,), (1,), model),
        Datapoint(MODEL_CACHE_HIT.name, MODEL_CACHE_HIT.unit, tuple(samples), tuple(samples.values()), model),
    ]
