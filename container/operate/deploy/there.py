"""What is there: an account's answers about one deployment, gathered once.

Rule: read-only, and plain values afterwards, so that what is decided from them can be tried without an account. What may
not be read is None and is told; it stops nothing by itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from container.operate.deploy.names import Json
from container.operate.deploy.reservation import Models


@dataclass(frozen=True, slots=True)
class There:
    """By name where there may be several; configs and models are this deployment's own, the newest first.

    config        of the endpoint, as it is now
    role_exists   None: it may not be asked
    models_below  what lies below the live prefix; None: it may not be listed
    """

    name: str
    region: str
    endpoint: Json | None = None
    endpoint_tags: dict[str, str] = field(default_factory=dict)
    config: Json | None = None
    configs: dict[str, Json] = field(default_factory=dict)
    models: dict[str, Json] = field(default_factory=dict)
    components: tuple[Json, ...] = ()
    target: Json | None = None
    policies: dict[str, Json] = field(default_factory=dict)
    scheduled: dict[str, Json] = field(default_factory=dict)
    alarms: dict[str, Json] = field(default_factory=dict)
    role_exists: bool | None = None
    models_below: Models | None = None
    unread: tuple[str, ...] = ()

    @property
    def component(self) -> Json | None:
        """The one that the deployment makes."""
        return next((one for one in self.components if one["InferenceComponentName"] == self.name), None)
