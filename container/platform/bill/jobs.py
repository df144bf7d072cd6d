"""Jobs as their events tell of them: what ran on what for how long.

Rule: what an event says last is what is known; one that comes twice is one.
Source: SageMaker guide, automating-sagemaker-with-eventbridge: times are milliseconds since 1970, or ISO 8601.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from container.platform.bill.ledger import Kind
from container.platform.bus import Event
from container.platform.jobs.plan import PROCESSING, TRAINING, TRANSFORM

# Detail type -> kind, and where its detail has the name and the instances.
_KINDS: dict[str, tuple[Kind, str, tuple[str, ...]]] = {
    "SageMaker Training Job State Change": ("training", "Training", TRAINING.resources),
    "SageMaker Processing Job State Change": ("processing", "Processing", PROCESSING.resources),
    "SageMaker Transform Job State Change": ("transform", "Transform", TRANSFORM.resources),
}


@dataclass(frozen=True)
class Job:
    """billable_s   of one host, when AWS's own figure is known; else from start to end"""

    kind: Kind
    name: str
    status: str
    instance_type: str
    n_instances: int
    began: datetime.datetime | None
    ended: datetime.datetime | None
    billable_s: float | None
    is_spot: bool

    def seconds(self, now: datetime.datetime) -> float:
        """Of all its instances together, as they are paid for."""
        if self.billable_s is not None:
            return self.billable_s * self.n_instances
        if self.began is None:
            return 0.0
        return ((self.ended or now) - self.began).total_seconds() * self.n_instances


def jobs(events: Iterable[Event]) -> list[Job]:
    """In the order they were first heard of."""
    found: dict[tuple[Kind, str], Job] = {}
    for event in events:
        if event.detail_type in _KINDS:
            job = _job(event)
            found[job.kind, job.name] = job
    return list(found.values())


def _job(event: Event) -> Job:
    kind, word, path = _KINDS[event.detail_type]
    detail = event.detail
    resources: Mapping[str, Any] = detail
    for name in path:
        resources = resources.get(name, {})
    billable = detail.get("BillableTimeInSeconds")
    return Job(
        kind,
        detail[f"{word}JobName"],
        detail[f"{word}JobStatus"],
        resources.get("InstanceType", ""),
        int(resources.get("InstanceCount", 1)),
        _at(detail.get(f"{word}StartTime")),
        _at(detail.get(f"{word}EndTime")),
        None if billable is None else float(billable),
        bool(detail.get("EnableManagedSpotTraining")),
    )


def _at(told: Any) -> datetime.datetime | None:
    """They come as numbers, as text of numbers, and, of a transform job, as ISO 8601."""
    if told is None:
        return None
    if isinstance(told, str) and not told.replace(".", "", 1).isdigit():
        return datetime.datetime.fromisoformat(told)
    return datetime.datetime.fromtimestamp(float(told) / 1000, datetime.UTC)
