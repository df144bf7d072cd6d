"""The figures that the platform's services write to CloudWatch, and that alarms and policies read.

Rule: times are the platform's, and a period with no value has no datapoint.
"""

from __future__ import annotations

import math
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta

from container.platform.clock import Clock

MAX_VALUES = 200_000  # of one metric; the oldest are forgotten

Key = tuple[str, str, tuple[tuple[str, str], ...]]


class Metrics:
    """Any thread may ask and write."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._values: defaultdict[Key, deque[tuple[datetime, float]]] = defaultdict(lambda: deque(maxlen=MAX_VALUES))

    def put(
        self,
        namespace: str,
        name: str,
        dimensions: Mapping[str, str],
        value: float,
        unit: str | None = None,  # noqa: ARG002  CloudWatch's own interface shows it
        at: datetime | None = None,
    ) -> None:
        with self._lock:
            self._values[_key(namespace, name, dimensions)].append((at or self._clock.now(), value))

    def query(
        self,
        namespace: str,
        name: str,
        dimensions: Mapping[str, str],
        start: datetime,
        end: datetime,
        period_s: float,
        statistic: str,
    ) -> list[tuple[datetime, float]]:
        """(beginning of the period, value) of each period in [start, end) that has values.

        statistic   Sum, Average, Minimum, Maximum or SampleCount
        """
        with self._lock:
            values = list(self._values.get(_key(namespace, name, dimensions), ()))
        periods: defaultdict[float, list[float]] = defaultdict(list)
        for at, value in values:
            if start <= at < end:
                periods[math.floor(at.timestamp() / period_s) * period_s].append(value)
        return [(_at(second), _STATISTICS[statistic](found)) for second, found in sorted(periods.items())]


_STATISTICS: dict[str, Callable[[list[float]], float]] = {
    "Sum": math.fsum,
    "Average": lambda values: math.fsum(values) / len(values),
    "Minimum": min,
    "Maximum": max,
    "SampleCount": lambda values: float(len(values)),
}


def _key(namespace: str, name: str, dimensions: Mapping[str, str]) -> Key:
    return namespace, name, tuple(sorted(dimensions.items()))


def _at(second: float) -> datetime:
    return datetime.fromtimestamp(0, UTC) + timedelta(seconds=second)
