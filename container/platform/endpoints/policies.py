"""What a DeploymentConfig says, read and held against the guide's limits: pure values, no instance is touched.

Source: SageMaker guide, "Deployment guardrails"; botocore, BlueGreenUpdatePolicy, RollingUpdatePolicy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from container.platform.service.faults import ValidationException

ALL_AT_ONCE, CANARY, LINEAR, ROLLING = "ALL_AT_ONCE", "CANARY", "LINEAR", "ROLLING"

# Of a variant's instances, in percent: the least and the most.
LIMITS = {CANARY: (0, 50), LINEAR: (10, 50), ROLLING: (5, 50)}
MEMBERS = {CANARY: "CanarySize", LINEAR: "LinearStepSize", ROLLING: "MaximumBatchSize"}


@dataclass(frozen=True, slots=True)
class Size:
    """A CapacitySize."""

    is_percent: bool
    value: int

    def percent(self, n_instances: float) -> float:
        return self.value if self.is_percent else 100.0 * self.value / n_instances

    def instances(self, n_instances: int) -> int:
        """At least one, at most all."""
        wanted = math.ceil(n_instances * self.value / 100) if self.is_percent else self.value
        return max(1, min(n_instances, wanted))


@dataclass(frozen=True, slots=True)
class Policy:
    """How an update goes. All times are platform seconds.

    step     canary, linear step or rolling batch; None is all at once
    """

    kind: str = ALL_AT_ONCE
    step: Size | None = None
    wait_s: float = 0.0
    termination_wait_s: float = 0.0
    timeout_s: float = math.inf
    rollback: Size | None = None
    alarms: tuple[str, ...] = ()

    def shares(self, n_instances: float) -> list[float]:
        """Of the traffic that green gets, step by step; the last is all of it."""
        if self.step is None or self.kind == ALL_AT_ONCE:
            return [1.0]
        share = self.step.percent(n_instances) / 100
        if self.kind == CANARY:
            return [share, 1.0]
        n_steps = math.ceil(1 / share - 1e-9)
        return [min(1.0, share * number) for number in range(1, n_steps)] + [1.0]

    def batches(self, n_instances: int, size: Size | None = None) -> list[int]:
        """How many instances each rolling step replaces."""
        size = size or self.step
        each = size.instances(n_instances) if size else n_instances
        whole, rest = divmod(n_instances, each)
        return [each] * whole + ([rest] if rest else [])


def policy_of(config: Mapping[str, Any] | None) -> Policy:
    """Raises ValidationException: both kinds of policy, or a size is missing."""
    config = config or {}
    blue_green, rolling = config.get("BlueGreenUpdatePolicy"), config.get("RollingUpdatePolicy")
    if blue_green and rolling:
        raise ValidationException("Only one of BlueGreenUpdatePolicy and RollingUpdatePolicy can be specified")
    alarms = tuple(one["AlarmName"] for one in config.get("AutoRollbackConfiguration", {}).get("Alarms", ()))
    if rolling:
        return Policy(
            ROLLING,
            _size(rolling["MaximumBatchSize"]),
            rolling["WaitIntervalInSeconds"],
            0.0,
            rolling.get("MaximumExecutionTimeoutInSeconds", math.inf),
            _size(rolling["RollbackMaximumBatchSize"]) if "RollbackMaximumBatchSize" in rolling else None,
            alarms,
        )
    if not blue_green:
        return Policy(alarms=alarms)
    routing = blue_green["TrafficRoutingConfiguration"]
    kind = routing["Type"]
    member = MEMBERS.get(kind)
    if member is not None and member not in routing:
        raise ValidationException(f"{member} is required for traffic routing of type {kind}")
    other = {CANARY: "LinearStepSize", LINEAR: "CanarySize"}.get(kind)
    if (other and other in routing) or (kind == ALL_AT_ONCE and routing.keys() & {"CanarySize", "LinearStepSize"}):
        raise ValidationException(f"Traffic routing of type {kind} takes no other size than its own")
    return Policy(
        kind,
        _size(routing[member]) if member else None,
        routing["WaitIntervalInSeconds"],
        blue_green.get("TerminationWaitInSeconds", 0),
        blue_green.get("MaximumExecutionTimeoutInSeconds", math.inf),
        None,
        alarms,
    )


def check(policy: Policy, counts: Mapping[str, int]) -> None:
    """Whether variants of so many instances can be updated so. Raises ValidationException."""
    if policy.timeout_s <= policy.wait_s + policy.termination_wait_s:
        raise ValidationException(
            f"MaximumExecutionTimeoutInSeconds ({policy.timeout_s:g}) must be larger than the total waiting time in "
            f"TerminationWaitInSeconds and WaitIntervalInSeconds ({policy.wait_s + policy.termination_wait_s:g})"
        )
    if policy.step is None:
        return
    least, most = LIMITS[policy.kind]
    for name, n_instances in counts.items():
        percent = policy.step.percent(n_instances) if n_instances else math.inf
        if n_instances < 2 or not least <= percent <= most:
            raise ValidationException(
                f"{MEMBERS[policy.kind]} must be between {least}% and {most}% of the total instance count of variant "
                f"{name}, which has {n_instances}"
            )


def _size(value: Mapping[str, Any]) -> Size:
    return Size(value["Type"] == "CAPACITY_PERCENT", value["Value"])
