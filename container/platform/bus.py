"""The events that the platform's services send, in EventBridge's shape.

Rule: sending never fails and never waits for whoever listens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from container.platform.clock import Clock
from container.platform.traps import Traps

SOURCE = "aws.sagemaker"


@dataclass(frozen=True, slots=True)
class Event:
    detail_type: str
    detail: Mapping[str, Any]
    resources: tuple[str, ...]
    at: datetime


class Bus:
    """deliver   gets each event, in the sender's thread"""

    def __init__(self, clock: Clock, traps: Traps, deliver: Callable[[Event], None] = lambda _: None) -> None:
        self._clock = clock
        self._times = 2 if traps.is_on("double-events") else 1
        self._deliver = deliver
        self.sent: list[Event] = []
        self.on_event: list[Callable[[Event], None]] = []  # told once of each, in the sender's thread

    def send(self, detail_type: str, detail: Mapping[str, Any], resources: Sequence[str]) -> None:
        event = Event(detail_type, dict(detail), tuple(resources), self._clock.now())
        for _ in range(self._times):
            self.sent.append(event)
            self._deliver(event)
        for tell in self.on_event:
            tell(event)
