"""The last hour in points of a few seconds, held in memory.

Rule: its size is fixed by its capacity, never by traffic or uptime.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from handler.telemetry.recorder import (
    EVICTIONS,
    INVOCATION_4XX_ERRORS,
    INVOCATION_5XX_ERRORS,
    INVOCATIONS,
    LOADED_MODEL_BYTES,
    LOADED_MODEL_COUNT,
    MODEL_CACHE_HIT,
    MODEL_LATENCY,
    MODEL_LOADING_TIME,
    RELOADS_WITHIN_MINUTES,
    Totals,
)

POINT_S = 5.0
CAPACITY = 720  # one hour at POINT_S


@dataclass(frozen=True, slots=True)
class Point:
    """What happened in the seconds before `at_s`, and what was true at it. None where nothing was recorded."""

    at_s: float
    duration_s: float
    requests: int
    lookups: int
    hits: int
    errors_4xx: int
    errors_5xx: int
    loads: int
    evictions: int
    reloads: int
    model_p50_us: float | None
    model_p99_us: float | None
    load_p50_us: float | None
    load_p99_us: float | None
    loaded_models: float | None
    loaded_bytes: float | None

    @staticmethod
    def between(before: Totals, now: Totals) -> Point:
        moved = now.since(before)
        return Point(
            at_s=now.at_s,
            duration_s=max(now.at_s - before.at_s, 0.001),  # a clock may be set back
            requests=moved.total(INVOCATIONS),
            lookups=moved.count(MODEL_CACHE_HIT),
            hits=moved.total(MODEL_CACHE_HIT),
            errors_4xx=moved.total(INVOCATION_4XX_ERRORS),
            errors_5xx=moved.total(INVOCATION_5XX_ERRORS),
            loads=moved.count(MODEL_LOADING_TIME),
            evictions=moved.total(EVICTIONS),
            reloads=moved.total(RELOADS_WITHIN_MINUTES),
            model_p50_us=moved.percentile_us(MODEL_LATENCY, 50),
            model_p99_us=moved.percentile_us(MODEL_LATENCY, 99),
            load_p50_us=moved.percentile_us(MODEL_LOADING_TIME, 50),
            load_p99_us=moved.percentile_us(MODEL_LOADING_TIME, 99),
            loaded_models=moved.gauges.get(LOADED_MODEL_COUNT.name),
            loaded_bytes=moved.gauges.get(LOADED_MODEL_BYTES.name),
        )


class History:
    """A ring of points, oldest first. One thread appends, any thread reads."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._points: deque[Point] = deque(maxlen=capacity)

    def append(self, point: Point) -> None:
        self._points.append(point)

    def points(self) -> tuple[Point, ...]:
        return tuple(self._points.copy())  # a deque copies in one step, so an append in between cannot disturb it

    def last(self, seconds: float) -> tuple[Point, ...]:
        """The points of the last `seconds`, counted back from the newest."""
        points = self.points()
        return tuple(point for point in points if point.at_s > points[-1].at_s - seconds)
