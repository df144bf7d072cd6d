"""Alarms and policies over a clock that stands still, and a resource whose count can be set and does nothing else."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from container.platform.clock import ManualClock
from container.platform.metrics import MetricName, Metrics
from container.platform.scaling.alarms import Alarms, Rule
from container.platform.scaling.autoscaling import AutoScaling
from container.platform.scaling.pulse import Pulse
from container.platform.scaling.resources import COMPONENT, Address
from container.platform.service.faults import ServiceFault

ADDRESS = Address("inference-component/churn", COMPONENT.dimension)
LOAD = MetricName.of("Shop", "Load", {})
MIDNIGHT = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


@dataclass
class Copies:
    """As many as were asked for, at once, or `takes_s` later."""

    clock: ManualClock
    n: int = 1
    takes_s: float = 0.0
    refuses: str | None = None
    asked: list[int] = field(default_factory=list)
    _busy_until_s: float = 0.0

    def desired(self) -> int:
        return self.n

    def is_settled(self) -> bool:
        return self.clock.monotonic() >= self._busy_until_s

    def trouble(self) -> str | None:
        return None

    def set_desired(self, n: int) -> None:
        if self.refuses:
            raise ServiceFault(self.refuses, "ValidationException", 400)
        self.n = n
        self.asked.append(n)
        self._busy_until_s = self.clock.monotonic() + self.takes_s


class World:
    """What a test turns and looks at."""

    def __init__(self) -> None:
        self.clock = ManualClock(MIDNIGHT)
        self.metrics = Metrics(self.clock)
        self.alarms = Alarms(self.clock, self.metrics, "us-east-1", "123456789012")
        self.copies = Copies(self.clock)
        self.scaling = AutoScaling(self.clock, self.alarms, "us-east-1", "123456789012")
        self.scaling.find = self.find
        self.pulse = Pulse(self.clock)
        self.pulse.add(self.alarms.look)
        self.pulse.add(self.scaling.settle)
        self.pulse.start()

    def find(self, address: Address) -> Copies | None:
        return self.copies if address == ADDRESS else None

    def rule(self, name: str = "busy", metric: MetricName = LOAD, **fields: Any) -> Rule:
        """One breach of one minute above 10, unless said otherwise."""
        given = {
            "statistic": "Sum",
            "period_s": 60,
            "n_periods": 1,
            "n_to_alarm": 1,
            "threshold": 10.0,
            "comparison": "GreaterThanThreshold",
            **fields,
        }
        return Rule(name, self.alarms.arn(name), metric, **given)

    def put(self, value: float, metric: str = "Load", dimensions: dict[str, str] | None = None) -> None:
        self.metrics.put("AWS/SageMaker" if dimensions else "Shop", metric, dimensions or {}, value)

    def minutes(self, n: int, each: Callable[[], object] = lambda: None) -> None:
        """`each` is called in the middle of each."""
        for _ in range(n):
            self.clock.advance(30)
            each()
            self.clock.advance(30)


@pytest.fixture
def world() -> World:
    return World()
