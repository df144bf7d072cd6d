"""A plan carried out, and looked at again until there is nothing left to do.

Rule: any call may be the last. What was done is found by looking, never remembered, so that a second `apply` goes on where
the first was cut off. InService is not success: success is the config that was asked for.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from container.operate.deploy.aws import Aws, AwsRefused
from container.operate.deploy.file import Wanted
from container.operate.deploy.look import look
from container.operate.deploy.names import Json
from container.operate.deploy.plan import (
    COMPONENT_GONE,
    COMPONENT_SETTLED,
    ENDPOINT_GONE,
    ENDPOINT_SETTLED,
    Plan,
    Step,
    has_no_room,
    plan,
    reserved_mib,
)
from container.operate.deploy.resources import WAKE_POLICY
from container.operate.deploy.there import There
from container.operate.deploy.trouble import NotAsAsked
from container.operate.troubles import NotNow, Refused

POLL_S = 10.0
N_ROUNDS = 24  # each step down of a reservation is one; without those, two or three
N_SHOWN_LATE = 2  # times that the same plan comes again before it is told that AWS does not do it
ENDPOINT_MOST_S = 3600.0  # to begin with; an update has its own limit besides
COMPONENT_MOST_S = 2400.0

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Pace:
    """How time passes while AWS works. sleep and monotonic are real seconds unless a test has others."""

    poll_s: float = POLL_S
    sleep: Callable[[float], None] = time.sleep
    monotonic: Callable[[], float] = time.monotonic


@dataclass(frozen=True, slots=True)
class Applied:
    n_calls: int
    there: There


class _LookAgain(Exception):
    """What is there is otherwise than the plan took it to be."""


class _UnderWay(_LookAgain):
    """It is at something that somebody else has begun, and takes no call before that is over."""


def apply(
    aws: Aws,
    wanted: Wanted,
    *,
    tell: Tell,
    pace: Pace | None = None,
    over_drift: bool = False,
    warm: Callable[[], None] | None = None,
) -> Applied:
    """tell: progress, a line each; warm: calls the busiest targets, once the new fleet answers. Raises CommandFailed."""
    carrier = Carrier(aws, wanted, tell, pace or Pace(), warm)
    n_calls = n_same = 0
    steps: tuple[Step, ...] = ()
    for n in range(N_ROUNDS):
        there = look(aws, wanted)
        planned = plan(wanted, there)
        refuse(planned, over_drift=over_drift or n > 0)
        if not planned.steps:
            return Applied(n_calls, there)
        n_same = n_same + 1 if planned.steps == steps else 0
        if n_same > N_SHOWN_LATE:
            raise NotAsAsked(
                f"done and still not so: {planned.steps[0].what}; {'; '.join(planned.drift) or 'AWS shows nothing of it'}"
            )
        if n_same:  # AWS may show late what it did
            carrier.pause()
        steps = planned.steps
        n_calls += carrier.carry_out(steps, looks_again=True)
    raise NotNow(f"after {N_ROUNDS} rounds there is still something to do: {planned.steps[0].what}; call again")


def refuse(planned: Plan, *, over_drift: bool) -> None:
    """Raises Refused when the plan may not be carried out."""
    if planned.refused:
        raise Refused("; ".join(planned.refused))
    if planned.drift and not over_drift:
        raise Refused(
            f"changed by hand since: {'; '.join(planned.drift)}; put it into the file, or run over it with --over-drift"
        )


class Carrier:
    """Carries steps out, in their order."""

    def __init__(
        self, aws: Aws, wanted: Wanted, tell: Tell, pace: Pace, warm: Callable[[], None] | None = None
    ) -> None:
        self._aws, self._wanted, self._tell, self._pace, self._warm = aws, wanted, tell, pace, warm
        self._policy_arns: dict[str, str] = {}

    def pause(self) -> None:
        self._pace.sleep(self._pace.poll_s)

    def carry_out(self, steps: tuple[Step, ...], *, looks_again: bool = False) -> int:
        """How many calls were made. Raises CommandFailed. looks_again: the caller does, and comes with what is left to do."""
        n_calls = 0
        for step in steps:
            self._tell(step.what)
            try:
                if step.operation:
                    n_calls += 1
                    self._do(step)
                if step.then:
                    self._wait(step)
            except _UnderWay as found:
                if not looks_again:
                    raise NotNow(f"{found.__cause__}; call again when that is over") from found
                self.pause()
                return n_calls
            except _LookAgain:
                return n_calls
        return n_calls

    def _do(self, step: Step) -> None:
        arguments = step.arguments
        if WAKE_POLICY in arguments.get("AlarmActions", ()):
            arguments = {**arguments, "AlarmActions": [self._wake_arn()]}
        try:
            answer = self._aws.call(step.service, step.operation, arguments)
        except AwsRefused as error:
            self._explain(step, error)
            return
        if step.operation == "PutScalingPolicy":
            self._policy_arns[arguments["PolicyName"]] = answer["PolicyARN"]

    def _explain(self, step: Step, error: AwsRefused) -> None:
        """What AWS's refusal means here: nothing, when it says that the step was done before. Raises otherwise."""
        is_making, is_taking = step.operation.startswith("Create"), step.operation.startswith(("Delete", "Deregister"))
        if (is_making and error.is_taken) or (is_taking and error.is_absent):
            return  # done by a call whose answer was lost, or shown late
        if error.is_under_way:  # begun since we looked: by the autoscaler, or by somebody
            raise _UnderWay from error
        if step.operation == "CreateInferenceComponent" and "hardware" in error.message.lower():
            raise NotAsAsked(f"{error}; ask for less: [zero] memory") from error
        if "min instance count" in error.message.lower():
            raise Refused(
                f"this region takes no endpoint that scales to zero machines ({error.message}); nothing that costs was made; "
                'another region does, or kind = "multi-model"'
            ) from error
        if error.is_denied:
            raise Refused(
                f"a right is missing: {error}; mme deploy template --iam deployer prints all that are needed"
            ) from error
        raise error

    def _wake_arn(self) -> str:
        found = [arn for name, arn in self._policy_arns.items() if "-wake-" in name]
        if found:
            return found[-1]
        there = look(self._aws, self._wanted)
        arn = next((one["PolicyARN"] for one in there.policies.values() if one["PolicyType"] == "StepScaling"), None)
        if arn is None:
            raise _LookAgain
        return str(arn)

    # waiting

    def _wait(self, step: Step) -> None:
        if step.then == ENDPOINT_SETTLED:
            self._wait_for_endpoint(step)
        elif step.then == ENDPOINT_GONE:
            self._until_gone("endpoint", "DescribeEndpoint", {"EndpointName": self._wanted.name}, "EndpointStatus")
        elif step.then == COMPONENT_SETTLED:
            self._wait_for_component(step)
        elif step.then == COMPONENT_GONE:
            name = step.arguments.get("InferenceComponentName", self._wanted.name)
            self._until_gone(
                "component", "DescribeInferenceComponent", {"InferenceComponentName": name}, "InferenceComponentStatus"
            )

    def _wait_for_endpoint(self, step: Step) -> None:
        busy = ("Creating", "Updating", "SystemUpdating", "RollingBack")
        seen, warmed = "", set[str]()
        until = self._pace.monotonic() + ENDPOINT_MOST_S + self._wanted.update.most_s
        while True:
            told = self._described("DescribeEndpoint", {"EndpointName": self._wanted.name})
            if told is None:
                raise _LookAgain
            seen = self._told(seen, endpoint_text(told))
            if told["EndpointStatus"] not in busy:
                break
            # In each phase of a deployment more of the calls reach the new fleet; in the last one, all of them.
            if self._warm is not None and step.operation == "UpdateEndpoint" and not _phases(told) <= warmed:
                warmed |= _phases(told)
                self._warm()
            self._sleep(until, f"the endpoint is {told['EndpointStatus']}")
        if not step.operation:
            return  # somebody else's update; what it left is looked at anew
        if told["EndpointStatus"] != "InService":
            raise NotAsAsked(
                f"the endpoint is {told['EndpointStatus']}: {told.get('FailureReason') or 'AWS gives no reason'}"
            )
        asked = step.arguments.get("EndpointConfigName")
        if asked is not None and told["EndpointConfigName"] != asked:
            raise NotAsAsked(self._why_rolled_back(told, step))

    def _why_rolled_back(self, told: Json, step: Step) -> str:
        """The update that did not hold. AWS says InService and, at times, no reason."""
        asked = step.arguments["EndpointConfigName"]
        reason = told.get("FailureReason") or "AWS gives no reason: the rollback was silent"
        lines = [f"rolled back: {told['EndpointConfigName']} answers, not {asked}", reason]
        watching = (step.arguments.get("DeploymentConfig") or {}).get("AutoRollbackConfiguration", {}).get("Alarms", [])
        names = [one["AlarmName"] for one in watching]
        if names:
            found = list(self._aws.pages("cloudwatch", "DescribeAlarms", "MetricAlarms", {"AlarmNames": names}))
            rung = [
                f"{one['AlarmName']} ({one.get('StateReason', 'no reason')})"
                for one in found
                if one["StateValue"] == "ALARM"
            ]
            lines.append(f"alarms that rang: {', '.join(rung)}" if rung else "none of its alarms is ringing now")
        lines.append(f"its log: /aws/sagemaker/Endpoints/{self._wanted.name}")
        return "; ".join(lines)

    def _wait_for_component(self, step: Step) -> None:
        name = step.arguments.get("InferenceComponentName", self._wanted.name)
        seen = ""
        until = self._pace.monotonic() + COMPONENT_MOST_S + (self._wanted.zero.start_s if self._wanted.zero else 0)
        while True:
            told = self._described("DescribeInferenceComponent", {"InferenceComponentName": name})
            if told is None:
                raise _LookAgain
            seen = self._told(seen, component_text(told))
            status = told["InferenceComponentStatus"]
            if status not in ("Creating", "Updating"):
                break
            self._sleep(
                until,
                f"the component is {status} and is billed; while it is, AWS deletes the endpoint under it, but not it,",
            )
        if status == "Failed" and step.operation:
            self._component_failed(told)

    def _component_failed(self, told: Json) -> None:
        why = told.get("FailureReason") or "AWS gives no reason"
        is_ours = self._wanted.zero is not None and not self._wanted.zero.memory
        if has_no_room(told) and is_ours and reserved_mib(told) > 128:
            self._tell(f"no room for a copy of {reserved_mib(told):,} MiB beside AWS's own; asking for less")
            raise _LookAgain
        hint = "; ask for less: [zero] memory" if has_no_room(told) else ""
        raise NotAsAsked(
            f"the component failed: {why}{hint}; its log: /aws/sagemaker/InferenceComponents/{self._wanted.name}"
        )

    def _until_gone(self, what: str, operation: str, arguments: Json, status: str) -> None:
        until = self._pace.monotonic() + ENDPOINT_MOST_S
        seen = ""
        while (told := self._described(operation, arguments)) is not None:
            seen = self._told(seen, f"{what} {told[status]}")
            if told[status] == "Failed":
                raise NotAsAsked(
                    f"the {what} could not be deleted: {told.get('FailureReason') or 'AWS gives no reason'}"
                )
            self._sleep(until, f"the {what} is {told[status]}")

    def _described(self, operation: str, arguments: Json) -> Json | None:
        try:
            return self._aws.call("sagemaker", operation, arguments)
        except AwsRefused as error:
            if error.is_absent:
                return None
            raise

    def _told(self, seen: str, text: str) -> str:
        if text != seen:
            self._tell(f"  {text}")
        return text

    def _sleep(self, until: float, what: str) -> None:
        if self._pace.monotonic() >= until:
            raise NotNow(
                f"{what} for longer than it may; mme deploy status says how it is, mme deploy doctor what it costs"
            )
        self._pace.sleep(self._pace.poll_s)


def endpoint_text(told: Json) -> str:
    """`Updating, Baking, config prices-0123456789`."""
    parts = [told["EndpointStatus"]]
    pending = told.get("PendingDeploymentSummary") or {}
    for variant in pending.get("ProductionVariants", ()):
        parts += [one["Status"] for one in variant.get("VariantStatus", ())]
    name = pending.get("EndpointConfigName") or told.get("EndpointConfigName")
    return ", ".join([*parts, f"config {name}"])


def component_text(told: Json) -> str:
    runtime = told.get("RuntimeConfig") or {}
    copies = f"{runtime.get('CurrentCopyCount', 0)} of {runtime.get('DesiredCopyCount', 0)} copies"
    return f"component {told['InferenceComponentStatus']}, {copies}"


def _phases(told: Json) -> set[str]:
    """In which the new fleet answers, by when they began. Source: VariantStatus in botocore's model."""
    pending = told.get("PendingDeploymentSummary") or {}
    return {
        str(one.get("StartTime", one.get("StatusMessage", "")))
        for variant in pending.get("ProductionVariants", ())
        for one in variant.get("VariantStatus", ())
        if one["Status"] == "Baking"
    }
