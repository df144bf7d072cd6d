"""What Application Auto Scaling knows: targets, policies, scheduled actions, activities, and how a state file has them.

Rule: these are records; autoscaling.py changes them.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from container.platform.clock import Timer
from container.platform.scaling.resources import Address
from container.platform.scaling.schedules import Schedule, parse

SUSPENDED = ("DynamicScalingInSuspended", "DynamicScalingOutSuspended", "ScheduledScalingSuspended")


@dataclass
class Move:
    """A change of count, and its cooldown, which begins when the change has come. `until` is None before that."""

    cooldown_s: float
    n_before: int
    until: datetime.datetime | None = None

    def is_cooling(self, at: datetime.datetime) -> bool:
        return self.until is None or at < self.until


@dataclass
class Target:
    address: Address
    arn: str
    role_arn: str
    created: datetime.datetime
    least: int
    most: int
    suspended: dict[str, bool] = field(default_factory=lambda: dict.fromkeys(SUSPENDED, False))
    last_out: Move | None = None
    last_in: Move | None = None
    tags: dict[str, str] = field(default_factory=dict)


@dataclass
class Policy:
    arn: str
    name: str
    address: Address
    kind: str
    config: dict[str, Any]
    created: datetime.datetime
    alarm_names: tuple[str, ...] = ()  # high, low: of target tracking alone


@dataclass
class Action:
    """A scheduled one."""

    arn: str
    name: str
    address: Address
    text: str
    zone: str | None
    schedule: Schedule
    start: datetime.datetime | None
    end: datetime.datetime | None
    least: int | None
    most: int | None
    created: datetime.datetime
    timer: Timer | None = None


@dataclass
class Activity:
    id: str
    address: Address
    description: str
    cause: str
    start: datetime.datetime
    status: str
    message: str | None = None
    end: datetime.datetime | None = None
    wanted: int | None = None
    move: Move | None = None
    not_scaled: dict[str, Any] | None = None


def kept(record: Target | Policy | Action | Activity, *names: str) -> dict[str, Any]:
    """Those of its members, and where it belongs."""
    where = {"resource_id": record.address.resource_id, "dimension": record.address.dimension}
    return {**where, **{name: getattr(record, name) for name in names}}


TARGET = ("arn", "role_arn", "created", "least", "most", "suspended", "tags")
POLICY = ("arn", "name", "kind", "config", "created", "alarm_names")
ACTION = ("arn", "name", "text", "zone", "start", "end", "least", "most", "created")
ACTIVITY = ("id", "description", "cause", "start", "status", "message", "end", "wanted", "not_scaled")


def given(value: Mapping[str, Any]) -> dict[str, Any]:
    """A kept record as its class takes it."""
    rest = dict(value)
    return {"address": Address(rest.pop("resource_id"), rest.pop("dimension")), **rest}


def action_of(value: Mapping[str, Any]) -> Action:
    known = given(value)
    return Action(**known, schedule=parse(known["text"], known["zone"], known["start"] or known["created"]))
