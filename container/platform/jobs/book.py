"""The jobs of one kind, by name: those that live, and those of before.

Rule: a name is used once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import Any

from container.platform.jobs.life import FAILED, INTERNAL, Life, State, Transition
from container.platform.service.faults import ResourceInUse


class Record:
    """One job: what was asked for, and its life, or how that ended."""

    def __init__(self, name: str, arn: str, asked: Mapping[str, Any]) -> None:
        self.name = name
        self.arn = arn
        self.asked = asked
        self.life: Life | None = None
        self._last: State | None = None

    @property
    def state(self) -> State:
        if self.life is not None:
            return self.life.state
        assert self._last is not None
        return self._last

    def dump(self) -> Any:
        return {"name": self.name, "arn": self.arn, "asked": self.asked, "state": asdict(self.state)}

    @classmethod
    def restored(cls, value: Mapping[str, Any]) -> Record:
        """One that was not over ended with the platform that had it."""
        record = cls(value["name"], value["arn"], value["asked"])
        transitions = tuple(Transition(**one) for one in value["state"]["transitions"])
        metrics = tuple((name, figure, at) for name, figure, at in value["state"]["metrics"])
        state = State(**{**value["state"], "transitions": transitions, "metrics": metrics})
        if not state.is_over:
            state = replace(
                state, status=FAILED, secondary=FAILED, failure=INTERNAL, ended_at=state.ended_at or state.modified_at
            )
        record._last = state
        return record


class Book:
    """Any thread may ask. taken: the fault's words for a name that there is already, of its ARN."""

    def __init__(self, taken: Callable[[str], str]) -> None:
        self._taken = taken
        self._lock = threading.Lock()
        self._records: dict[str, Record] = {}

    def add(self, record: Record, life: Callable[[Record], Life]) -> None:
        """Raises ResourceInUse."""
        with self._lock:
            self.refuse_taken(record.name)
            record.life = life(record)
            self._records[record.name] = record

    def refuse_taken(self, name: str) -> None:
        """Raises ResourceInUse."""
        if (other := self._records.get(name)) is not None:
            raise ResourceInUse(self._taken(other.arn))

    def get(self, name: str) -> Record | None:
        return self._records.get(name)

    def all(self) -> list[Record]:
        with self._lock:
            return list(self._records.values())

    def close(self) -> None:
        lives = [record.life for record in self.all() if record.life is not None]
        for life in lives:
            life.want_close()
        for life in lives:
            life.close()

    def dump(self) -> Any:
        return [record.dump() for record in self.all()]

    def restore(self, value: Any) -> None:
        self._records = {one["name"]: Record.restored(one) for one in value}
