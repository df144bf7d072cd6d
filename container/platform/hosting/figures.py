"""The six metrics that SageMaker publishes for a multi-model endpoint, with the statistics it offers for each.

Source: SageMaker guide, "CloudWatch Metrics for Multi-Model Endpoint Deployments". Times are microseconds.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass

from handler.telemetry.recorder import (
    LOADED_MODEL_COUNT,
    MODEL_CACHE_HIT,
    MODEL_DOWNLOADING_TIME,
    MODEL_LOADING_TIME,
    MODEL_LOADING_WAIT_TIME,
    MODEL_UNLOADING_TIME,
    Metric,
)

SIX = (
    MODEL_LOADING_WAIT_TIME,
    MODEL_UNLOADING_TIME,
    MODEL_DOWNLOADING_TIME,
    MODEL_LOADING_TIME,
    MODEL_CACHE_HIT,
    LOADED_MODEL_COUNT,
)


@dataclass(slots=True)
class Statistics:
    SampleCount: int = 0
    Sum: float = 0
    Minimum: float | None = None
    Maximum: float | None = None

    def add(self, value: float) -> None:
        self.SampleCount += 1
        self.Sum += value
        self.Minimum = value if self.Minimum is None else min(self.Minimum, value)
        self.Maximum = value if self.Maximum is None else max(self.Maximum, value)


class Figures:
    """Counts from the start; any thread may add.

    loaded   how many models each instance holds now
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._statistics = {metric.name: Statistics() for metric in SIX}
        self.loaded: Callable[[], list[int]] = list

    def add(self, metric: Metric, value: float) -> None:
        with self._lock:
            self._statistics[metric.name].add(value)

    def to_dict(self) -> dict[str, dict[str, object]]:
        """Name -> unit and statistics; LoadedModelCount is read now, one sample for each instance."""
        now = Statistics()
        for n_models in self.loaded():
            now.add(n_models)
        with self._lock:
            told = {name: asdict(statistics) for name, statistics in self._statistics.items()}
        told[LOADED_MODEL_COUNT.name] = asdict(now)
        units = {metric.name: metric.unit for metric in SIX}
        return {name: {"Unit": units[name], **values, "Average": _average(values)} for name, values in told.items()}


def _average(values: dict[str, float]) -> float | None:
    return values["Sum"] / values["SampleCount"] if values["SampleCount"] else None
