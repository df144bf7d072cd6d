"""The doctor: each trap switched on in an account that is well, found by name, and nothing found where there is none."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from container.operate.deploy.doctor import Finding, diagnose, safe_steps
from container.operate.deploy.file import KINDS, Wanted
from container.operate.deploy.health import Health
from container.operate.deploy.names import ASKED
from container.operate.deploy.policies import execution_policy
from container.operate.deploy.resources import WAKE_POLICY
from container.operate.deploy.there import There
from tests.container.operate.deploy.files import AT, applied, nothing, wanted

ZERO = wanted("zero", "[zero]\ncopies = 2\nnights = '22-06'")
MULTI = wanted()


def well(of: Wanted, there: There | None = None, **rest: Any) -> Health:
    told: dict[str, Any] = {
        "calls": 100.0,
        "activities": ({"StatusCode": "Successful", "NotScaledReasons": [{"Code": "AlreadyAtMinCapacity"}]},),
        "has_log": True,
        "role": (execution_policy(of),),
    }
    return Health(there=there or applied(of), at=AT, **{**told, **rest})


def found(of: Wanted, health: Health) -> dict[str, Finding]:
    return {one.check: one for one in diagnose(of, health)}


@pytest.mark.parametrize("kind", KINDS)
def test_an_account_that_is_well_has_nothing(kind: str) -> None:
    assert diagnose(wanted(kind), well(wanted(kind))) == ()


@pytest.mark.parametrize("kind", KINDS)
def test_what_could_not_be_read_says_nothing(kind: str) -> None:
    of = wanted(kind)
    unread = replace(well(of), calls=None, activities=None, has_log=None, role=None)
    assert diagnose(of, replace(unread, there=replace(unread.there, role_exists=None))) == ()


def changed(there: There, **members: Any) -> There:
    """members: of the one thing named before the underscores, `target__MinCapacity`."""
    for path, value in members.items():
        thing, member = path.split("__")
        if thing in ("endpoint", "target"):
            there = replace(there, **{thing: {**getattr(there, thing), member: value}})
        elif thing == "component":
            (component,) = there.components
            there = replace(there, components=({**component, member: value},))
        elif thing == "wake":
            name = next(one for one in there.alarms if "/wake-" in one)
            there = replace(there, alarms={**there.alarms, name: {**there.alarms[name], member: value}})
        elif thing == "track":
            name = next(one for one in there.policies if "-track-" in one)
            there = replace(there, policies={**there.policies, name: {**there.policies[name], member: value}})
        else:
            assert thing == "variant"
            assert there.config is not None
            variant = {**there.config["ProductionVariants"][0], member: value}
            there = replace(there, config={**there.config, "ProductionVariants": [variant]})
    return there


def without(there: There, group: str, word: str) -> There:
    return replace(there, **{group: {name: one for name, one in getattr(there, group).items() if word not in name}})


TRAPS: dict[str, Callable[[There], There]] = {
    "target-missing": lambda there: replace(there, target=None),
    "tracking-missing": lambda there: without(there, "policies", "-track-"),
    "wake-policy-missing": lambda there: without(there, "policies", "-wake-"),
    "suspended": lambda there: changed(there, target__SuspendedState={"DynamicScalingInSuspended": True}),
    "scale-in-disabled": lambda there: changed(
        there, track__TargetTrackingScalingPolicyConfiguration={"DisableScaleIn": True}
    ),
    "tracking-alarms-missing": lambda there: changed(there, track__Alarms=[]),
    "upper-bound": lambda there: changed(there, target__MaxCapacity=50),
    "lower-bound": lambda there: changed(there, target__MinCapacity=1),
    "machines-stay": lambda there: changed(there, variant__ManagedInstanceScaling={"Status": "DISABLED"}),
    "never-zero": lambda there: changed(
        there, variant__ManagedInstanceScaling={"Status": "ENABLED", "MinInstanceCount": 1, "MaxInstanceCount": 2}
    ),
    "wake-alarm-missing": lambda there: without(there, "alarms", "/wake-"),
    "wake-alarm-nowhere": lambda there: changed(there, wake__AlarmActions=["arn:aws:autoscaling:::gone"]),
    "wake-alarm-mute": lambda there: changed(there, wake__ActionsEnabled=False),
    "wake-alarm-deaf": lambda there: changed(there, wake__Threshold=2.0),
    "5xx-alarm-missing": lambda there: without(there, "alarms", "/5xx-"),
    "awake-alarm-missing": lambda there: without(there, "alarms", "/awake-"),
    "component-missing": lambda there: replace(there, components=()),
    "component-failed": lambda there: changed(
        there, component__InferenceComponentStatus="Failed", component__FailureReason="no ping"
    ),
    "component-stuck": lambda there: changed(
        there, component__InferenceComponentStatus="Creating", component__LastModifiedTime=AT - timedelta(hours=40)
    ),
    "component-foreign": lambda there: replace(
        there, components=(*there.components, {**there.components[0], "InferenceComponentName": "theirs"})
    ),
    "config-not-asked": lambda there: replace(
        there, endpoint_tags={**there.endpoint_tags, ASKED: "prices-" + "0" * 10}
    ),
    "endpoint-failed": lambda there: changed(
        there, endpoint__EndpointStatus="Failed", endpoint__FailureReason="no image"
    ),
    "rollback-failed": lambda there: changed(there, endpoint__EndpointStatus="UpdateRollbackFailed"),
    "endpoint-stuck": lambda there: changed(
        there, endpoint__EndpointStatus="Updating", endpoint__LastModifiedTime=AT - timedelta(hours=3)
    ),
    "endpoint-missing": lambda there: replace(there, endpoint=None),
    "component-left": lambda there: replace(there, endpoint=None),
    "role-missing": lambda there: replace(there, role_exists=False),
    "old-config": lambda there: replace(
        there, configs={**there.configs, **{f"prices-{n:010d}": {"ProductionVariants": [{}]} for n in range(9)}}
    ),
}
OF_HEALTH: dict[str, dict[str, Any]] = {
    "idle": {"calls": 0.0},
    "log-missing": {"has_log": False},
    "role-lacks": {"role": ()},
    "scaling-failed": {"activities": ({"StatusCode": "Failed", "StatusMessage": "no capacity"},)},
    "not-scaled": {"activities": 3 * ({"StatusCode": "Failed", "NotScaledReasons": [
        {"Code": "TargetServicePutResourceAsUnscalable"}]},)},
}  # fmt: skip


@pytest.mark.parametrize("trap", TRAPS)
def test_each_trap_is_found_with_what_it_costs_and_the_call_that_mends_it(trap: str) -> None:
    one = found(ZERO, well(ZERO, TRAPS[trap](applied(ZERO))))[trap]
    assert one.what
    assert one.costs
    assert one.mend


@pytest.mark.parametrize("trap", TRAPS)
def test_a_call_that_mends_can_be_typed_as_it_is_told(trap: str) -> None:
    of = wanted("zero", '[zero]\ncopies = 2\n[tags]\nowner = "the cook\'s"')
    for one in found(of, well(of, TRAPS[trap](applied(of)))).values():
        assert WAKE_POLICY not in one.mend
        if "--cli-input-json" in one.mend:
            json.loads(shlex.split(one.mend)[-1])


def test_old_alarms_are_named() -> None:
    there = applied(ZERO)
    old = {f"mme/prices/5xx-{n:010d}": {"StateValue": "OK"} for n in range(2)}
    one = found(ZERO, well(ZERO, replace(there, alarms={**there.alarms, **old})))["old-alarms"]
    assert one.what == "alarms that nobody needs: mme/prices/5xx-0000000000, mme/prices/5xx-0000000001"


@pytest.mark.parametrize("trap", OF_HEALTH)
def test_each_trap_of_figures_rights_and_activities_is_found(trap: str) -> None:
    assert list(found(ZERO, well(ZERO, **OF_HEALTH[trap]))) == [trap]


def test_what_runs_for_nobody_is_told_in_money() -> None:
    assert found(ZERO, well(ZERO, calls=0.0))["idle"].costs == "84 USD a month"  # 0.115 x 730
    stuck = found(ZERO, well(ZERO, TRAPS["component-stuck"](applied(ZERO))))["component-stuck"]
    assert "40.0 h" in stuck.what
    assert stuck.costs == "84 USD a month"


def test_what_is_not_scaled_now_and_then_is_no_fault() -> None:
    one = {"StatusCode": "Failed", "NotScaledReasons": [{"Code": "AutoScalingAnticipatedFlapping"}]}
    assert found(ZERO, well(ZERO, activities=(one, one))) == {}


def test_what_the_role_may_not_is_told_with_where() -> None:
    needed = execution_policy(ZERO)
    less = {**needed, "Statement": [one for one in needed["Statement"] if one["Sid"] != "KeepWarmList"]}
    assert found(ZERO, well(ZERO, role=(less,)))["role-lacks"].what == (
        "the execution role may not s3:GetObject, s3:PutObject on arn:aws:s3:::acme/prod.warm/prices/*"
    )


def test_a_new_endpoint_that_nobody_called_yet_is_not_idle() -> None:
    there = changed(applied(MULTI), endpoint__CreationTime=AT - timedelta(hours=5))
    assert found(MULTI, well(MULTI, there, calls=0.0)) == {}


def test_at_zero_nobody_calling_is_how_it_should_be() -> None:
    variant = {"VariantName": "AllTraffic", "CurrentInstanceCount": 0, "DesiredInstanceCount": 0}
    assert found(ZERO, well(ZERO, changed(applied(ZERO), endpoint__ProductionVariants=[variant]), calls=0.0)) == {}


def test_more_machines_than_the_file_allows_are_told_in_money() -> None:
    variant = {"VariantName": "AllTraffic", "CurrentInstanceCount": 9, "DesiredInstanceCount": 9}
    one = found(MULTI, well(MULTI, changed(applied(MULTI), endpoint__ProductionVariants=[variant])))[
        "too-many-machines"
    ]
    assert one.costs == "420 USD a month"  # 5 of 0.115 USD an hour


@pytest.mark.parametrize(
    "trap",
    ["target-missing", "tracking-missing", "suspended", "scale-in-disabled", "upper-bound", "wake-alarm-missing",
     "wake-alarm-nowhere", "wake-alarm-deaf", "old-config"],
)  # fmt: skip
def test_what_only_puts_back_what_the_file_says_is_fixed_by_itself(trap: str) -> None:
    health = well(ZERO, TRAPS[trap](applied(ZERO)))
    one = found(ZERO, health)[trap]
    assert one.is_safe
    assert one.mend.startswith("aws ")
    assert safe_steps(ZERO, health)


@pytest.mark.parametrize(
    "trap", ["endpoint-missing", "endpoint-failed", "component-missing", "component-failed", "never-zero"]
)
def test_what_would_disturb_callers_or_cost_is_told_and_not_done(trap: str) -> None:
    health = well(ZERO, TRAPS[trap](applied(ZERO)))
    assert not found(ZERO, health)[trap].is_safe
    made = {step.operation for step in safe_steps(ZERO, health)}
    assert not [one for one in made if one.startswith(("Create", "Delete", "Update"))]


def test_what_is_left_of_an_endpoint_that_is_gone_is_told() -> None:
    there = applied(MULTI)
    left = nothing(MULTI, configs=there.configs, models=there.models)
    assert set(found(MULTI, well(MULTI, left))) == {"endpoint-missing", "left-over"}
