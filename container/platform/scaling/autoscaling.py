"""Application Auto Scaling: what is to be scaled, by which policies, when, and what came of it.

Rule: a count changes here in one way only, `_scale`: within the target's limits, one change at a time, noted as an activity.
An alarm that goes on asks again each minute, so what cannot be done now is not kept for later.
"""

from __future__ import annotations

import datetime
import threading
import uuid
from collections.abc import Sequence
from typing import Any

from container.platform.clock import Clock
from container.platform.scaling import arithmetic, records
from container.platform.scaling.alarms import Alarms, Firing
from container.platform.scaling.records import SUSPENDED, Action, Activity, Move, Policy, Target
from container.platform.scaling.resources import NAMESPACE, Address, Finder, Resource
from container.platform.scaling.tracking import rules
from container.platform.service.faults import ObjectNotFoundException, ServiceFault, ValidationException

DEFAULT_COOLDOWN_S = 300  # user guide, "Define cooldown periods", for SageMaker
MAX_ACTIVITIES = 5000
MAX_KEPT = 200  # activities, in a state file


class AutoScaling:
    """All of one platform. Any thread may ask.

    find   what is at an address; set by whoever knows
    """

    def __init__(self, clock: Clock, alarms: Alarms, region: str, account: str) -> None:
        self._clock = clock
        self._alarms = alarms
        self.find: Finder = lambda _: None
        self.region = region
        self.account = account
        self._lock = threading.RLock()
        self._targets: dict[Address, Target] = {}
        self._policies: dict[tuple[Address, str], Policy] = {}
        self._actions: dict[tuple[Address, str], Action] = {}
        self._activities: list[Activity] = []
        alarms.on_policy = self.fired

    # Targets

    def register(
        self, address: Address, least: int | None, most: int | None, suspended: dict[str, bool], role_arn: str | None
    ) -> Target:
        """Make or change. A count outside of the limits is brought inside at once."""
        with self._lock:
            target = self._targets.get(address)
            if target is None:
                if least is None or most is None:
                    raise ValidationException(
                        "Both minCapacity and maxCapacity must be provided to register a new scalable target"
                    )
                if self.find(address) is None:
                    raise ValidationException(f"The following resource doesn't exist: {address.resource_id}")
                target = Target(
                    address, self._target_arn(), role_arn or self._linked_role(), self._clock.now(), least, most
                )
            limits = target.least if least is None else least, target.most if most is None else most
            self._check_limits(address, *limits)
            target.least, target.most = limits
            target.suspended |= suspended
            self._targets[address] = target
        self._bring_inside(target, _limits_cause(least, most))
        return target

    def deregister(self, address: Address) -> None:
        with self._lock:
            self.target(address)
            for policy in self.policies_of(address):
                self.delete_policy(address, policy.name)
            for action in [one for one in self._actions.values() if one.address == address]:
                self.delete_action(address, action.name)
            del self._targets[address]

    def forget_endpoint(self, name: str) -> None:
        """SageMaker deregisters the variants of an endpoint that is deleted."""
        for target in self.targets():
            if target.address.resource_id.startswith(f"endpoint/{name}/variant/"):
                self.deregister(target.address)

    def target(self, address: Address) -> Target:
        """Raises ObjectNotFoundException."""
        with self._lock:
            if address not in self._targets:
                raise ObjectNotFoundException(f"No scalable target registered for {_words(address)}")
            return self._targets[address]

    def is_registered(self, address: Address) -> bool:
        """Takes no lock: endpoints ask while they hold theirs, and a policy that fires asks endpoints."""
        return address in self._targets

    def targets(self) -> list[Target]:
        with self._lock:
            return sorted(self._targets.values(), key=lambda one: one.created)

    # Policies

    def put_policy(self, address: Address, name: str, kind: str, config: dict[str, Any]) -> Policy:
        """`config` has been checked. A policy that was there keeps its ARN, and gets its alarms anew."""
        with self._lock:
            self.target(address)
            there = self._policies.get((address, name))
            arn = there.arn if there else self._arn("scalingPolicy", address, "policyName", name)
            if there:
                self._alarms.delete(there.alarm_names)
            policy = Policy(arn, name, address, kind, config, there.created if there else self._clock.now())
            self._policies[address, name] = policy
            if kind == "TargetTrackingScaling":
                policy.alarm_names = self._make_alarms(policy)
            return policy

    def delete_policy(self, address: Address, name: str) -> None:
        with self._lock:
            policy = self._policies.pop((address, name), None)
            if policy is None:
                raise ObjectNotFoundException(f"No scaling policy found for {_words(address)}, policy name: {name}")
            self._alarms.delete(policy.alarm_names)

    def policies_of(self, address: Address) -> list[Policy]:
        return [one for one in self.policies() if one.address == address]

    def policies(self) -> list[Policy]:
        with self._lock:
            return sorted(self._policies.values(), key=lambda one: one.created)

    def alarms_of(self, policy: Policy) -> list[tuple[str, str]]:
        """(name, ARN): those that AWS makes for target tracking, and those that name a step policy among their actions."""
        if policy.alarm_names:
            return [(name, self._alarms.arn(name)) for name in policy.alarm_names]
        return [(one.rule.name, one.rule.arn) for one in self._alarms.all() if policy.arn in one.rule.alarm_actions]

    # Scheduled actions

    def put_action(self, action: Action) -> None:
        with self._lock:
            self.target(action.address)
            there = self._actions.get((action.address, action.name))
            if there:
                action.arn, action.created = there.arn, there.created
                if there.timer:
                    there.timer.cancel()
            self._actions[action.address, action.name] = action
            self._arm(action, self._clock.now())

    def delete_action(self, address: Address, name: str) -> None:
        with self._lock:
            action = self._actions.pop((address, name), None)
            if action is None:
                raise ObjectNotFoundException(
                    f"No scheduled action found for {_words(address)}, scheduled action name: {name}"
                )
            if action.timer:
                action.timer.cancel()

    def action(self, address: Address, name: str) -> Action | None:
        with self._lock:
            return self._actions.get((address, name))

    def actions(self) -> list[Action]:
        with self._lock:
            return sorted(self._actions.values(), key=lambda one: one.created)

    def new_action_arn(self, address: Address, name: str) -> str:
        return self._arn("scheduledAction", address, "scheduledActionName", name)

    # --state

    def dump(self) -> Any:
        """What is under way is lost, and so are cooldowns."""
        with self._lock:
            over = [one for one in self._activities if one.status != "InProgress"]
            return {
                "targets": [records.kept(one, *records.TARGET) for one in self.targets()],
                "policies": [records.kept(one, *records.POLICY) for one in self.policies()],
                "actions": [records.kept(one, *records.ACTION) for one in self.actions()],
                "activities": [records.kept(one, *records.ACTIVITY) for one in over[-MAX_KEPT:]],
            }

    def restore(self, value: Any) -> None:
        with self._lock:
            for one in value["targets"]:
                target = Target(**records.given(one))
                self._targets[target.address] = target
            for one in value["policies"]:
                policy = Policy(**records.given(one))
                policy.alarm_names = tuple(policy.alarm_names)
                self._policies[policy.address, policy.name] = policy
                if policy.alarm_names:
                    self._make_alarms(policy, policy.alarm_names)
            for one in value["actions"]:
                self.put_action(records.action_of(one))
            self._activities = [Activity(**records.given(one)) for one in value["activities"]]

    # What happens

    def activities(self) -> list[Activity]:
        """The newest first."""
        with self._lock:
            return self._activities[::-1]

    def fired(self, policy_arn: str, firing: Firing) -> None:
        """An alarm of a policy goes on."""
        with self._lock:
            policy = next((one for one in self._policies.values() if one.arn == policy_arn), None)
            target = self._targets.get(policy.address) if policy else None
            if policy is None or target is None or not firing.values:
                return
            cause = f"monitor alarm {firing.rule.name} in state ALARM triggered policy {policy.name}"
            if policy.kind == "StepScaling":
                self._step(target, policy, firing, cause)
            elif firing.rule.name == policy.alarm_names[0]:
                self._track_out(target, policy, firing, cause)
            else:
                self._track_in(target, firing, cause)

    def settle(self, at: datetime.datetime) -> None:
        """Finish the activities whose resource is as it was wanted."""
        with self._lock:
            for activity in self._activities:
                if activity.status == "InProgress":
                    self._settle(activity, at)

    def _settle(self, activity: Activity, at: datetime.datetime) -> None:
        resource = self.find(activity.address)
        noun = activity.address.kind.noun
        trouble = "the resource is gone" if resource is None else resource.trouble()
        if trouble is not None:
            self._finish(activity, "Failed", f"Failed to set desired {noun} to {activity.wanted}. Reason: {trouble}")
        elif resource is not None and resource.is_settled():
            if resource.desired() == activity.wanted:
                message = (
                    f"Successfully set desired {noun} to {activity.wanted}. Change successfully fulfilled by sagemaker."
                )
                self._finish(activity, "Successful", message)
            elif at > activity.start:  # a resource may need a moment to begin
                self._finish(activity, "Overridden", f"Desired {noun} was set to {resource.desired()} by someone else.")

    def _finish(self, activity: Activity, status: str, message: str) -> None:
        activity.status, activity.message, activity.end = status, message, self._clock.now()
        if activity.move is not None:
            cooldown_s = activity.move.cooldown_s if status == "Successful" else 0.0
            activity.move.until = activity.end + datetime.timedelta(seconds=cooldown_s)

    def _step(self, target: Target, policy: Policy, firing: Firing, cause: str) -> None:
        """In a cooldown, what the last step added counts as this one's."""
        resource = self.find(target.address)
        if resource is None:
            return
        adjustment = arithmetic.step_adjustment(
            policy.config["StepAdjustments"], firing.values[-1] - firing.rule.threshold
        )
        if adjustment is None:
            return
        kind, least = policy.config["AdjustmentType"], policy.config.get("MinAdjustmentMagnitude")
        now = resource.desired()
        is_out = arithmetic.adjusted(now, adjustment, kind, least) >= now
        base = self._base(target, now, firing.at) if is_out else now
        wanted = arithmetic.adjusted(base, adjustment, kind, least)
        cooldown_s = policy.config.get("Cooldown", DEFAULT_COOLDOWN_S)
        self._scale(
            target, resource, max(wanted, now) if is_out else wanted, cause, firing.at, cooldown_s, is_out=is_out
        )

    def _track_out(self, target: Target, policy: Policy, firing: Firing, cause: str) -> None:
        resource = self.find(target.address)
        if resource is None:
            return
        base = self._base(target, resource.desired(), firing.at)
        wanted = arithmetic.tracked(base, firing.values[-1], policy.config["TargetValue"])
        if wanted > resource.desired() or base == resource.desired():
            self._scale(
                target, resource, wanted, cause, firing.at, _cooldown_s(policy, "ScaleOutCooldown"), is_out=True
            )

    def _track_in(self, target: Target, firing: Firing, cause: str) -> None:
        """Only as far as every tracking policy that may scale in agrees to, and only when all of them have it in mind."""
        resource = self.find(target.address)
        agreeing = [
            one for one in self.policies_of(target.address) if one.alarm_names and not one.config.get("DisableScaleIn")
        ]
        if resource is None or any(self._alarms.state(one.alarm_names[-1]) != "ALARM" for one in agreeing):
            return
        now = resource.desired()
        wanted = max((self._tracked_in(one, now, firing.at) for one in agreeing), default=now)
        cooldown_s = max(_cooldown_s(one, "ScaleInCooldown") for one in agreeing)
        self._scale(target, resource, min(wanted, now), cause, firing.at, cooldown_s, is_out=False)

    def _tracked_in(self, policy: Policy, now: int, at: datetime.datetime) -> int:
        """By the highest figure of the low alarm's time, so that a short lull is not taken for the rule."""
        alarm = self._alarms.find(policy.alarm_names[-1])
        if alarm is None:
            return now
        values = [value for value in self._alarms.values(alarm.rule, at)[-alarm.rule.n_periods :] if value is not None]
        return arithmetic.tracked(now, max(values), policy.config["TargetValue"]) if values else now

    def _base(self, target: Target, now: int, at: datetime.datetime) -> int:
        """What an addition is counted from: in the cooldown of one, what there was before it."""
        last = target.last_out
        return min(now, last.n_before) if last is not None and last.is_cooling(at) else now

    def _scale(
        self,
        target: Target,
        resource: Resource,
        wanted: int,
        cause: str,
        at: datetime.datetime,
        cooldown_s: float,
        *,
        is_out: bool,
    ) -> None:
        """The one way in which an alarm changes a count."""
        now = resource.desired()
        suspended = SUSPENDED[1] if is_out else SUSPENDED[0]
        if target.suspended[suspended] or self._is_under_way(target):
            return
        if is_out and now >= target.most:
            self._not_scaled(target, cause, {"Code": "AlreadyAtMaxCapacity", "MaxCapacity": target.most})
        elif not is_out and now <= target.least and wanted <= now:
            self._not_scaled(target, cause, {"Code": "AlreadyAtMinCapacity", "MinCapacity": target.least})
        elif (wanted := min(max(wanted, target.least), target.most)) == now or (wanted > now) != is_out:
            code = "AlreadyAtDesiredCapacity" if is_out else "AutoScalingAnticipatedFlapping"
            self._not_scaled(target, cause, {"Code": code, "CurrentCapacity": now})
        elif is_out or target.last_in is None or not target.last_in.is_cooling(at):
            move = Move(cooldown_s, self._base(target, now, at) if is_out else now)
            if self._set(target, resource, wanted, cause, move):
                target.last_in = None if is_out else move
                target.last_out = move if is_out else target.last_out

    def _is_under_way(self, target: Target) -> bool:
        return any(one.status == "InProgress" and one.address == target.address for one in self._activities)

    def _set(self, target: Target, resource: Resource, wanted: int, cause: str, move: Move | None = None) -> bool:
        noun = target.address.kind.noun
        activity = self._note(
            Activity(
                self._new_id(),
                target.address,
                f"Setting desired {noun} to {wanted}.",
                cause,
                self._clock.now(),
                "InProgress",
            )
        )
        activity.wanted, activity.move = wanted, move
        try:
            resource.set_desired(wanted)
        except ServiceFault as fault:
            self._finish(activity, "Failed", f"Failed to set desired {noun} to {wanted}. Reason: {fault.message}")
            return False
        activity.message = (
            f"Successfully set desired {noun} to {wanted}. Waiting for change to be fulfilled by sagemaker."
        )
        return True

    def _not_scaled(self, target: Target, cause: str, reason: dict[str, Any]) -> None:
        """Once in a row: an alarm that goes on gives the same reason each minute."""
        last = next((one for one in reversed(self._activities) if one.address == target.address), None)
        if last is not None and last.not_scaled == reason and last.cause == cause:
            return
        description = "Attempting to scale due to alarm triggered"
        now = self._clock.now()
        self._note(
            Activity(self._new_id(), target.address, description, cause, now, "Failed", end=now, not_scaled=reason)
        )

    def _note(self, activity: Activity) -> Activity:
        self._activities = [*self._activities[1 - MAX_ACTIVITIES :], activity]
        return activity

    def _bring_inside(self, target: Target, cause: str) -> None:
        with self._lock:
            resource = self.find(target.address)
            if resource is not None and not self._is_under_way(target):
                now = resource.desired()
                wanted = min(max(now, target.least), target.most)
                if wanted != now:
                    self._set(target, resource, wanted, cause)

    def _arm(self, action: Action, after: datetime.datetime) -> None:
        """Have it run when it is due next."""
        if action.start:
            after = max(after, action.start - datetime.timedelta(seconds=1))
        when = action.schedule.next_after(after)
        action.timer = None
        if when is not None and (action.end is None or when <= action.end):
            left_s = (when - self._clock.now()).total_seconds()
            action.timer = self._clock.call_later(max(left_s, 0.0), lambda: self._run(action, when))

    def _run(self, action: Action, when: datetime.datetime) -> None:
        with self._lock:
            target = self._targets.get(action.address)
            if self._actions.get((action.address, action.name)) is not action or target is None:
                return
            self._arm(action, when)
            if target.suspended[SUSPENDED[2]]:
                return
            least = target.least if action.least is None else action.least
            most = target.most if action.most is None else action.most
            target.least, target.most = least, max(most, least)
        self._bring_inside(
            target, f"scheduled action name {action.name} was triggered, {_limits_cause(action.least, action.most)}"
        )

    def _check_limits(self, address: Address, least: int, most: int) -> None:
        if least < address.kind.least:
            raise ValidationException(f"Minimum capacity cannot be less than {address.kind.least}")
        if least > most:
            raise ValidationException("Maximum capacity cannot be less than minimum capacity")

    def _make_alarms(self, policy: Policy, names: Sequence[str] = ()) -> tuple[str, ...]:
        made = rules(policy, self._alarms.arn, names)
        for rule in made:
            self._alarms.put(rule)
        return tuple(rule.name for rule in made)

    def _arn(self, kind: str, address: Address, label: str, name: str) -> str:
        where = f"resource/{NAMESPACE}/{address.resource_id}:{label}/{name}"
        return f"arn:aws:autoscaling:{self.region}:{self.account}:{kind}:{uuid.uuid4()}:{where}"

    def _target_arn(self) -> str:
        return f"arn:aws:application-autoscaling:{self.region}:{self.account}:scalable-target/{uuid.uuid4().hex}"

    def _linked_role(self) -> str:
        where = "aws-service-role/sagemaker.application-autoscaling.amazonaws.com"
        return f"arn:aws:iam::{self.account}:role/{where}/AWSServiceRoleForApplicationAutoScaling_SageMakerEndpoint"

    @staticmethod
    def _new_id() -> str:
        return str(uuid.uuid4())


def _cooldown_s(policy: Policy, name: str) -> float:
    return float(policy.config.get(name, DEFAULT_COOLDOWN_S))


def _words(address: Address) -> str:
    return (
        f"service namespace: {NAMESPACE}, resource ID: {address.resource_id}, scalable dimension: {address.dimension}"
    )


def _limits_cause(least: int | None, most: int | None) -> str:
    """In AWS's words, of what was set."""
    parts = [("minimum", least), ("maximum", most)]
    return " and ".join(f"{name} capacity was set to {value}" for name, value in parts if value is not None)
