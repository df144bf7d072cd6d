"""An endpoint as it stands: the fleet that serves, perhaps one that is coming, and what is said of both.

Rule: this is the record; deployments.py changes it, describing.py tells it.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from container.platform.endpoints.variants import Variant
from container.platform.stories import Story

IN_SERVICE, CREATING, UPDATING, ROLLING_BACK = "InService", "Creating", "Updating", "RollingBack"
DELETING, FAILED, SYSTEM_UPDATING = "Deleting", "Failed", "SystemUpdating"
IN_PROGRESS = (CREATING, UPDATING, ROLLING_BACK, DELETING, SYSTEM_UPDATING)


@dataclass(slots=True)
class Side:
    """Blue or green: all variants of one config."""

    config_name: str
    variants: dict[str, Variant]

    @property
    def n_instances(self) -> int:
        return sum(len(variant.instances) for variant in self.variants.values())


@dataclass(slots=True)
class VariantNote:
    """What is going on with a variant just now: a VariantStatus."""

    status: str
    message: str
    started_at: datetime

    def told(self) -> dict[str, Any]:
        return {"Status": self.status, "StatusMessage": self.message, "StartTime": self.started_at}


@dataclass(slots=True)
class Pending:
    """A deployment under way."""

    started_at: datetime
    notes: dict[str, VariantNote] = field(default_factory=dict)


@dataclass(slots=True)
class Endpoint:
    """green_share   of the calls, while there is a green side"""

    name: str
    arn: str
    created_at: datetime
    modified_at: datetime
    blue: Side
    green: Side | None = None
    green_share: float = 0.0
    status: str = CREATING
    failure: str | None = None
    deployment_config: Mapping[str, Any] | None = None
    pending: Pending | None = None
    notes: dict[str, VariantNote] = field(default_factory=dict)
    story: Story | None = None

    @property
    def is_in_progress(self) -> bool:
        return self.status in IN_PROGRESS

    def side(self) -> Side:
        """The one that gets this call."""
        if self.green is not None and random.random() < self.green_share:  # noqa: S311
            return self.green
        return self.blue

    def sides(self) -> list[Side]:
        return [self.blue, self.green] if self.green else [self.blue]

    @contextmanager
    def noted(self, variant: str, status: str, message: str, at: datetime) -> Iterator[None]:
        """That something is going on with a variant of the coming side, else of the one there is."""
        notes = self.pending.notes if self.pending else self.notes
        notes[variant] = VariantNote(status, message, at)
        try:
            yield
        finally:
            notes.pop(variant, None)
