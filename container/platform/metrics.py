"""Figures as CloudWatch keeps them: by namespace, name and dimensions, added up by the second, asked for by the period.

Rule: a period without a figure has no value; it is not 0.
"""

from __future__ import annotations

import bisect
import datetime
import math
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from container.platform.clock import Clock

KEPT_S = 15 * 86_400  # CloudWatch keeps 1-minute figures for 15 days
MAX_DISTINCT = 150  # of one second, for percentiles; what comes after is counted with its nearest neighbour

Dimensions = tuple[tuple[str, str], ...]


@dataclass(frozen=True, order=True)
class MetricName:
    namespace: str
    name: str
    dimensions: Dimensions

    @classmethod
    def of(cls, namespace: str, name: str, dimensions: Mapping[str, str]) -> MetricName:
        return cls(namespace, name, tuple(sorted(dimensions.items())))


@dataclass
class _Second:
    n: float = 0
    total: float = 0.0
    lowest: float = math.inf
    highest: float = -math.inf
    values: dict[float, float] = field(default_factory=dict)

    def add(self, value: float, n: float) -> None:
        self.n += n
        self.total += value * n
        self.lowest = min(self.lowest, value)
        self.highest = max(self.highest, value)
        if value not in self.values and len(self.values) >= MAX_DISTINCT:
            value = min(self.values, key=lambda other: abs(other - value))
        self.values[value] = self.values.get(value, 0) + n

    def add_set(self, n: float, total: float, lowest: float, highest: float) -> None:
        """A statistic set: percentiles know nothing of it, as in CloudWatch."""
        self.n += n
        self.total += total
        self.lowest = min(self.lowest, lowest)
        self.highest = max(self.highest, highest)


class Metrics:
    """All figures of one platform."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._seconds: dict[MetricName, dict[int, _Second]] = {}
        self._order: dict[MetricName, list[int]] = {}
        self.units: dict[MetricName, str] = {}

    def put(
        self,
        namespace: str,
        name: str,
        dimensions: Mapping[str, str],
        value: float,
        unit: str | None = None,
        at: datetime.datetime | None = None,
        n: float = 1,
    ) -> None:
        """`n` times `value`, now or at another time."""
        with self._lock:
            self._second(MetricName.of(namespace, name, dimensions), unit, at).add(value, n)

    def put_set(
        self,
        metric: MetricName,
        n: float,
        total: float,
        lowest: float,
        highest: float,
        unit: str | None = None,
        at: datetime.datetime | None = None,
    ) -> None:
        with self._lock:
            self._second(metric, unit, at).add_set(n, total, lowest, highest)

    def query(
        self,
        namespace: str,
        name: str,
        dimensions: Mapping[str, str],
        start: datetime.datetime,
        end: datetime.datetime,
        period_s: int,
        statistic: str,
    ) -> list[tuple[datetime.datetime, float]]:
        """One pair for each period that has figures, oldest first; a period is named by its beginning."""
        found: dict[int, list[_Second]] = {}
        metric = MetricName.of(namespace, name, dimensions)
        with self._lock:
            order, seconds = self._order.get(metric, []), self._seconds.get(metric, {})
            first = bisect.bisect_left(order, math.floor(start.timestamp()))
            last = bisect.bisect_left(order, math.ceil(end.timestamp()))
            for at in order[first:last]:
                found.setdefault(at - at % period_s, []).append(seconds[at])
            return [
                (datetime.datetime.fromtimestamp(at, datetime.UTC), value)
                for at, parts in found.items()
                if (value := _statistic(statistic, parts)) is not None
            ]

    def value(self, metric: MetricName, start_s: int, end_s: int, statistic: str) -> float | None:
        """Of one span, in seconds since 1970; None when it has no figures."""
        with self._lock:
            order, seconds = self._order.get(metric, []), self._seconds.get(metric, {})
            inside = order[bisect.bisect_left(order, start_s) : bisect.bisect_left(order, end_s)]
            return _statistic(statistic, [seconds[at] for at in inside]) if inside else None

    def names(self, namespace: str | None = None, name: str | None = None) -> list[MetricName]:
        with self._lock:
            return sorted(
                one for one in self._seconds if namespace in (None, one.namespace) and name in (None, one.name)
            )

    def _second(self, metric: MetricName, unit: str | None, at: datetime.datetime | None) -> _Second:
        stamp = math.floor((at or self._clock.now()).timestamp())
        seconds, order = self._seconds.setdefault(metric, {}), self._order.setdefault(metric, [])
        if unit is not None:
            self.units[metric] = unit
        if stamp not in seconds:
            bisect.insort(order, stamp)
            seconds[stamp] = _Second()
            while order[0] < stamp - KEPT_S:
                del seconds[order.pop(0)]
        return seconds[stamp]


STATISTICS = frozenset({"Sum", "Average", "Minimum", "Maximum", "SampleCount"})


def is_statistic(name: str) -> bool:
    """One of five, or a percentile such as p99.9."""
    return name in STATISTICS or (name.startswith("p") and name[1:].replace(".", "", 1).isdecimal())


def _statistic(name: str, parts: Iterable[_Second]) -> float | None:
    parts = list(parts)
    n = sum(part.n for part in parts)
    match name:
        case "Sum":
            return sum(part.total for part in parts)
        case "SampleCount":
            return n
        case "Average":
            return sum(part.total for part in parts) / n if n else None
        case "Minimum":
            return min(part.lowest for part in parts)
        case "Maximum":
            return max(part.highest for part in parts)
    return _percentile(float(name.removeprefix("p")), parts)


def _percentile(percent: float, parts: Iterable[_Second]) -> float | None:
    """The smallest value with at least so many per cent at or below it."""
    values: dict[float, float] = {}
    for part in parts:
        for value, n in part.values.items():
            values[value] = values.get(value, 0) + n
    missing = percent / 100 * sum(values.values())
    for value in sorted(values):
        missing -= values[value]
        if missing <= 1e-9:
            return value
    return None
