"""A recorder with known contents, a clock that stands still, and a small process to watch."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import pytest

from container.metrics.source import Health, ModelState, Snapshot
from handler.telemetry.recorder import LOADED_MODEL_BYTES, LOADED_MODEL_COUNT, LiveRecorder


class Clock:
    def __init__(self, now_s: float = 1_700_000_000.0) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s


@dataclass
class Process:
    """What the admin port watches, held in memory."""

    states: list[ModelState] = field(default_factory=list)
    is_alive: bool = True
    is_ready: bool = True
    reasons: tuple[str, ...] = ()
    started_s: float = 1_700_000_000.0 - 3_600
    budget_bytes: int = 1 << 30

    def health(self) -> Health:
        return Health(self.is_alive, self.is_ready, self.reasons)

    def models(self) -> Sequence[ModelState]:
        return tuple(self.states)

    def snapshot(self) -> Snapshot:
        n_bytes = sum(state.n_bytes for state in self.states)
        return Snapshot(
            "churn/AllTraffic", self.started_s, len(self.states), n_bytes, self.budget_bytes, n_bytes + 10**8
        )

    def hold(self, name: str, n_bytes: int = 70_000, hits: int = 1, idle_s: float = 1.0, age_s: float = 2.0) -> None:
        self.states.append(ModelState(name, "etag", n_bytes, age_s, idle_s, hits, 0))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def recorder(clock: Clock) -> LiveRecorder:
    return LiveRecorder(top_models=5, clock_s=clock)


@pytest.fixture
def process(recorder: LiveRecorder) -> Process:
    process = Process()
    recorder.gauge(LOADED_MODEL_COUNT, lambda: len(process.states))
    recorder.gauge(LOADED_MODEL_BYTES, lambda: sum(state.n_bytes for state in process.states))
    return process


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe's reading and writing end; a test may close either."""
    ends = os.pipe()
    yield ends
    for end in ends:
        with suppress(OSError):  # the test closed it
            os.close(end)
