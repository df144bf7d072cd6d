"""One inference component: what was asked for, the copies there are, and how it is shown.

Rule: it changes on the clock's thread or under the room's lock; nothing here waits.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from container.platform.components.pool import Need
from container.platform.hosting.contract import Reply

Status = Literal["Creating", "InService", "Updating", "Failed", "Deleting"]

# What an operation says that comes while another is under way. Source: measured by others, see README.md
UNDER_WAY = {"Creating": "CREATE_IN_PROGRESS", "Updating": "UPDATE_RC_IN_PROGRESS", "Deleting": "DELETE_IN_PROGRESS"}


class Served(Protocol):
    """A container that is healthy."""

    @property
    def pid(self) -> int | None: ...

    def invoke(self, body: bytes, headers: Mapping[str, str], *, is_stream: bool = False) -> Reply:
        """Raises ServiceError."""

    def stop(self) -> None: ...


@dataclass(frozen=True)
class CopySpec:
    """What a copy runs.

    startup_s   of platform time, until the first healthy ping
    """

    component: str
    image: str
    environment: Mapping[str, str]
    artifact_url: str | None
    startup_s: float


@dataclass(eq=False)
class Copy:
    """generation   of the specification that it runs
    served   None until it is healthy
    """

    instance_id: str
    generation: int
    served: Served | None = None
    is_leaving: bool = False
    n_calls: int = 0

    @property
    def is_ready(self) -> bool:
        return self.served is not None and not self.is_leaving


@dataclass
class Component:
    name: str
    arn: str
    endpoint: str
    endpoint_arn: str
    variant: str
    specification: Mapping[str, Any]
    runs: CopySpec
    need: Need
    desired: int
    created: datetime.datetime
    modified: datetime.datetime
    status: Status = "Creating"
    reason: str | None = None
    generation: int = 0
    copies: list[Copy] = field(default_factory=list)
    n_calls_most: int = 0  # at once, since the figures were published last

    @property
    def dimensions(self) -> dict[str, str]:
        return {"InferenceComponentName": self.name}

    @property
    def strategy(self) -> Literal["SPREAD", "BINPACK"]:
        found: Literal["SPREAD", "BINPACK"] = self.specification.get("SchedulingConfig", {}).get(
            "PlacementStrategy", "SPREAD"
        )
        return found

    @property
    def current(self) -> list[Copy]:
        """Copies of the present specification that are to stay, ready or not."""
        return [copy for copy in self.copies if copy.generation == self.generation and not copy.is_leaving]

    @property
    def former(self) -> list[Copy]:
        return [copy for copy in self.copies if copy.generation != self.generation and not copy.is_leaving]

    @property
    def ready(self) -> list[Copy]:
        return [copy for copy in self.copies if copy.is_ready]

    @property
    def n_calls(self) -> int:
        return sum(copy.n_calls for copy in self.copies)

    def change(self, status: Status, at: datetime.datetime, reason: str | None = None) -> None:
        self.status, self.reason, self.modified = status, reason, at

    def described(self) -> dict[str, Any]:
        """As DescribeInferenceComponent answers."""
        given = dict(self.specification)
        if "Container" in given:
            image = given["Container"].get("Image", "")
            shown = {"SpecifiedImage": image, "ResolvedImage": image, "ResolutionTime": self.created}
            rest = {name: value for name, value in given["Container"].items() if name != "Image"}
            given["Container"] = {"DeployedImage": shown, **rest}
        return {
            **self.listed(),
            "FailureReason": self.reason,
            "Specification": given,
            "RuntimeConfig": {"DesiredCopyCount": self.desired, "CurrentCopyCount": len(self.ready)},
        }

    def listed(self) -> dict[str, Any]:
        return {
            "InferenceComponentName": self.name,
            "InferenceComponentArn": self.arn,
            "EndpointName": self.endpoint,
            "EndpointArn": self.endpoint_arn,
            "VariantName": self.variant,
            "InferenceComponentStatus": self.status,
            "CreationTime": self.created,
            "LastModifiedTime": self.modified,
        }
