"""Plans: values from values. What AWS's models do not know is found here, before any AWS is asked."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import botocore.session
import pytest
from botocore.validate import ParamValidator

from container.operate.deploy import reservation
from container.operate.deploy.file import KINDS, Wanted
from container.operate.deploy.names import ASKED, BEFORE, BOUNDS, is_named
from container.operate.deploy.plan import Plan, Step, memory_of, plan
from container.operate.deploy.reservation import Models
from container.operate.deploy.resources import WAKE_POLICY, alarm_word, resources
from container.operate.deploy.there import There
from container.platform.scaling.evaluation import State, judge, looked_at
from tests.container.operate.deploy.files import IMAGE, applied, nothing, wanted

OLD = "prices-" + "a" * 10


@cache
def shapes(service: str) -> Any:
    return botocore.session.Session().get_service_model(service)


def assert_aws_knows(steps: tuple[Step, ...]) -> None:
    for step in steps:
        if step.operation:
            shape = shapes(step.service).operation_model(step.operation).input_shape
            report = ParamValidator().validate(step.arguments, shape)
            assert not report.has_errors(), f"{step.operation}: {report.generate_report()}"


def operations(planned: Plan) -> list[str]:
    return [step.operation for step in planned.steps]


def updating(of: Wanted, **rest: Any) -> There:
    """As applied, but of another config before."""
    there = applied(of)
    assert there.endpoint is not None
    old = {"EndpointConfigName": OLD, "ProductionVariants": [{"ModelName": OLD, "InstanceType": "ml.m5.large"}]}
    told: dict[str, Any] = {
        "endpoint": {**there.endpoint, "EndpointConfigName": OLD},
        "endpoint_tags": {**there.endpoint_tags, ASKED: OLD},
        "config": old,
        "configs": {OLD: old},
        "models": {OLD: {}},
        "alarms": {},
    }
    return replace(there, **{**told, **rest})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("more", ["", "[alarms]\nlatency_ms = 100\ntell = ['arn:aws:sns:us-east-1:123456789012:ops']"])
def test_all_that_is_asked_of_aws_is_what_its_models_know(kind: str, more: str) -> None:
    of = wanted(kind, more)
    assert_aws_knows(plan(of, nothing(of)).steps)
    assert_aws_knows(plan(of, updating(of)).steps)


@pytest.mark.parametrize("way", ["all-at-once", "canary", "linear", "rolling"])
@pytest.mark.parametrize("least", [1, 2, 4])
def test_each_way_of_updating_is_one_that_aws_knows(way: str, least: int) -> None:
    of = wanted(more=f"[instances]\ntype = 'ml.m5.large'\nleast = {least}\nmost = 4\n[update]\nway = '{way}'")
    planned = plan(of, updating(of))
    assert_aws_knows(planned.steps)
    deployment = next(step for step in planned.steps if step.operation == "UpdateEndpoint").arguments[
        "DeploymentConfig"
    ]
    alarms = deployment["AutoRollbackConfiguration"]["Alarms"]
    assert len(alarms) == 2
    if least == 1:  # a step is at most half of the fleet
        assert deployment["BlueGreenUpdatePolicy"]["TrafficRoutingConfiguration"]["Type"] == "ALL_AT_ONCE"
    elif way == "rolling":
        assert deployment["RollingUpdatePolicy"]["MaximumBatchSize"] == {"Type": "CAPACITY_PERCENT", "Value": 50}


def test_multi_model_from_nothing_is_made_in_the_order_that_aws_needs() -> None:
    of = wanted()
    assert operations(plan(of, nothing(of))) == [
        *("CreateModel", "CreateEndpointConfig", "PutMetricAlarm", "PutMetricAlarm", "PutMetricAlarm"),
        *("CreateEndpoint", "RegisterScalableTarget", "PutScalingPolicy"),
    ]


def test_zero_from_nothing_ends_with_the_alarm_that_needs_its_policy() -> None:
    of = wanted("zero", "[zero]\ncopies = 2\nnights = '22-06'\ntimezone = 'Europe/Berlin'")
    planned = plan(of, nothing(of))
    assert operations(planned) == [
        *(
            "CreateModel",
            "CreateEndpointConfig",
            "PutMetricAlarm",
            "PutMetricAlarm",
            "PutMetricAlarm",
            "CreateEndpoint",
        ),
        *("CreateInferenceComponent", "RegisterScalableTarget", "PutScalingPolicy", "PutScalingPolicy"),
        *("PutScheduledAction", "PutScheduledAction", "PutMetricAlarm"),
    ]
    assert_aws_knows(planned.steps)
    wake = planned.steps[-1].arguments
    assert wake["AlarmActions"] == [WAKE_POLICY]
    assert (wake["Threshold"], wake["ComparisonOperator"]) == (1.0, "GreaterThanOrEqualToThreshold")
    made = planned.resources
    assert made.component is not None
    assert made.component["RuntimeConfig"] == {"CopyCount": 1}
    assert made.config["ExecutionRoleArn"]
    assert made.target is not None
    assert (made.target["MinCapacity"], made.target["MaxCapacity"]) == (0, 2)
    off, on = made.schedule
    assert (off["Schedule"], off["ScalableTargetAction"]) == (
        "cron(0 22 * * ? *)",
        {"MinCapacity": 0, "MaxCapacity": 0},
    )
    assert (on["Schedule"], on["ScalableTargetAction"]) == ("cron(0 6 * * ? *)", {"MinCapacity": 0, "MaxCapacity": 2})
    assert off["Timezone"] == "Europe/Berlin"


def test_serverless_is_a_model_a_config_an_endpoint_and_alarms() -> None:
    of = wanted("serverless")
    assert operations(plan(of, nothing(of))) == [
        *("CreateModel", "CreateEndpointConfig", "PutMetricAlarm", "PutMetricAlarm", "CreateEndpoint")
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_as_the_file_says_needs_no_step(kind: str) -> None:
    of = wanted(kind)
    planned = plan(of, applied(of))
    assert (planned.steps, planned.drift, planned.refused) == ((), (), ())


def test_names_are_of_content_and_counts_are_none() -> None:
    first = resources(wanted())
    more = resources(wanted(more="[instances]\ntype = 'ml.m5.large'\nleast = 1\nmost = 9"))
    other = resources(wanted(image=IMAGE.replace("000", "111")))
    assert first.config_name == more.config_name != other.config_name
    assert is_named("prices", first.config_name)
    assert not is_named("prices", resources(wanted(name="prices-eu")).config_name)


def test_an_update_puts_its_alarms_first_on_the_new_config_and_takes_the_old_ones_last() -> None:
    of = wanted()
    old = {"mme/prices/5xx-0123456789": {"StateValue": "OK"}}
    planned = plan(of, updating(of, alarms=old))
    found = operations(planned)
    assert (
        found.index("PutMetricAlarm")
        < found.index("AddTags")
        < found.index("UpdateEndpoint")
        < found.index("DeleteAlarms")
    )
    alarm = next(step for step in planned.steps if step.operation == "PutMetricAlarm").arguments
    assert {"Name": "EndpointConfigName", "Value": planned.resources.config_name} in alarm["Dimensions"]
    update = next(step for step in planned.steps if step.operation == "UpdateEndpoint").arguments
    assert update["RetainAllVariantProperties"] is True
    assert {one["AlarmName"].split("/")[2].rpartition("-")[0] for one in
            update["DeploymentConfig"]["AutoRollbackConfiguration"]["Alarms"]} == {"5xx", "model-errors"}  # fmt: skip


def test_autoscaling_is_taken_off_and_put_back_where_the_instance_type_changes_and_only_there() -> None:
    of = wanted(more="[instances]\ntype = 'ml.m5.xlarge'\nleast = 2\nmost = 3")
    found = operations(plan(of, updating(of)))
    order = ["DeregisterScalableTarget", "UpdateEndpoint", "RegisterScalableTarget", "PutScalingPolicy"]
    assert [one for one in found if one in order] == order
    same = wanted(image=IMAGE.replace("000", "111"))
    assert "DeregisterScalableTarget" not in operations(plan(same, updating(same)))


def test_a_config_that_is_not_the_one_asked_for_is_an_update_that_did_not_hold_or_a_hand() -> None:
    of = wanted()
    made = resources(of).config_name
    there = updating(of)
    silent = replace(there, endpoint_tags={**there.endpoint_tags, ASKED: made, BEFORE: OLD})
    planned = plan(of, silent)
    assert any("never began, or was rolled back" in notice for notice in planned.notices)
    assert planned.drift == ()
    by_hand = replace(there, endpoint_tags={**there.endpoint_tags, ASKED: "prices-" + "b" * 10})
    assert plan(of, by_hand).drift == (f"config: {OLD} answers, and the last one asked for here was prices-bbbbbbbbbb",)


def test_somebody_elses_endpoint_is_left_alone() -> None:
    of = wanted()
    planned = plan(of, replace(applied(of), endpoint_tags={}))
    assert planned.steps == ()
    assert "somebody else's" in planned.refused[0]


@pytest.mark.parametrize("status", ["Creating", "Updating", "SystemUpdating", "RollingBack", "Deleting"])
def test_while_aws_is_at_something_the_plan_is_to_wait(status: str) -> None:
    of = wanted()
    there = applied(of)
    assert there.endpoint is not None
    planned = plan(of, replace(there, endpoint={**there.endpoint, "EndpointStatus": status}))
    assert operations(planned) == [""]
    assert planned.ends_early


def test_a_failed_endpoint_is_made_anew() -> None:
    of = wanted("zero")
    there = applied(of)
    assert there.endpoint is not None
    failed = {**there.endpoint, "EndpointStatus": "Failed", "FailureReason": "no image"}
    planned = plan(of, replace(there, endpoint=failed))
    found = operations(planned)
    assert found[:3] == ["DeleteInferenceComponent", "DeleteEndpoint", "CreateEndpoint"]
    assert any("no image" in notice for notice in planned.notices)


def test_a_component_that_outlived_its_endpoint_goes_first() -> None:
    of = wanted("zero")
    planned = plan(of, nothing(of, components=applied(of).components))
    assert operations(planned)[0] == "DeleteInferenceComponent"
    assert "CreateInferenceComponent" in operations(planned)


@pytest.mark.parametrize(
    ("change", "told", "operation"),
    [
        ({"MinCapacity": 1}, "scaling bounds: 1-2 there, 0-2 in the file", "RegisterScalableTarget"),
        ({"SuspendedState": {"DynamicScalingInSuspended": True}}, "scaling is suspended", "RegisterScalableTarget"),
    ],
)
def test_a_target_changed_by_hand_is_drift(change: dict[str, Any], told: str, operation: str) -> None:
    of = wanted("zero")
    there = applied(of)
    assert there.target is not None
    planned = plan(of, replace(there, target={**there.target, **change}))
    assert planned.drift == (told,)
    assert operation in operations(planned)
    assert_aws_knows(planned.steps)


def test_bounds_of_an_earlier_file_are_no_drift() -> None:
    before, of = wanted(more="[instances]\ntype = 'ml.m5.large'\nleast = 2\nmost = 3"), wanted()
    planned = plan(of, applied(before))
    assert planned.drift == ()
    assert operations(planned) == ["AddTags", "RegisterScalableTarget"]
    assert planned.steps[0].arguments["Tags"] == [{"Key": BOUNDS, "Value": "2-4 2-3"}]


def test_bounds_of_the_night_are_no_drift() -> None:
    of = wanted("zero", "[zero]\ncopies = 2\nnights = '22-06'")
    there = applied(of)
    assert there.target is not None
    planned = plan(of, replace(there, target={**there.target, "MaxCapacity": 0}))
    assert (planned.steps, planned.drift) == ((), ())
    assert "it is night: the schedule holds the count at 0" in planned.notices


def test_policies_and_alarms_changed_by_hand_are_drift_and_missing_ones_are_put_back() -> None:
    of = wanted("zero")
    there = applied(of)
    name, policy = next(iter(there.policies.items()))
    configuration = {**policy["TargetTrackingScalingPolicyConfiguration"], "DisableScaleIn": True}
    changed = {**there.policies, name: {**policy, "TargetTrackingScalingPolicyConfiguration": configuration}}
    planned = plan(of, replace(there, policies=changed))
    assert "DisableScaleIn True instead of False" in planned.drift[0]
    assert operations(planned) == ["PutScalingPolicy"]

    alarm = next(one for one in there.alarms if "/wake-" in one)
    planned = plan(of, replace(there, alarms={**there.alarms, alarm: {**there.alarms[alarm], "AlarmActions": []}}))
    assert "AlarmActions" in planned.drift[0]
    planned = plan(of, replace(there, alarms={key: value for key, value in there.alarms.items() if key != alarm}))
    assert (planned.drift, operations(planned)) == ((), ["PutMetricAlarm"])


def test_a_policy_that_somebody_put_beside_ours_is_told_and_left() -> None:
    of = wanted()
    there = applied(of)
    planned = plan(of, replace(there, policies={**there.policies, "theirs": {"PolicyType": "StepScaling"}}))
    assert planned.drift == ("policy theirs was put beside ours",)
    assert planned.steps == ()


def test_old_configs_stay_for_going_back_and_older_ones_go_with_their_models() -> None:
    of = wanted(more="[update]\nkeep = 2")
    there = applied(of)
    names = [f"prices-{n:010d}" for n in range(5)]  # the newest first
    configs = {**there.configs, **{name: {"ProductionVariants": [{"ModelName": name}]} for name in names}}
    tags = {**there.endpoint_tags, BEFORE: names[4]}
    planned = plan(
        of, replace(there, configs=configs, models={**there.models, **{name: {} for name in names}}, endpoint_tags=tags)
    )
    gone = [(step.operation, *step.arguments.values()) for step in planned.steps]
    assert gone == [
        ("DeleteEndpointConfig", names[2]), ("DeleteEndpointConfig", names[3]),
        ("DeleteModel", names[2]), ("DeleteModel", names[3]),
    ]  # fmt: skip


def test_a_month_that_may_cost_more_than_it_may_is_refused() -> None:
    of = wanted(month_usd=300)
    planned = plan(of, nothing(of))
    assert planned.cost is not None
    # 0.115 USD an hour, 730 hours: Price List API, see container/platform/instance_types.py
    assert (planned.cost.least_month, planned.cost.most_month) == pytest.approx((2 * 0.115 * 730, 4 * 0.115 * 730))
    assert planned.refused[0].startswith("a month may cost 335.80 USD")
    assert planned.steps == ()


def test_a_plan_without_an_upper_bound_is_refused() -> None:
    of = wanted(more="[instances]\ntype = 'ml.z99.large'\nleast = 1\nmost = 1")
    assert "no upper bound" in plan(of, nothing(of)).refused[0]


def test_serverless_costs_nothing_at_least_and_all_of_its_concurrency_at_most() -> None:
    of = wanted("serverless", month_usd=10_000)
    planned = plan(of, nothing(of))
    assert planned.cost is not None
    assert (planned.cost.least_month, planned.cost.most_month) == (0, pytest.approx(3 * 3 * 0.00002 * 730 * 3600))


def test_nights_take_their_hours_from_the_bill() -> None:
    day, night = wanted("zero"), wanted("zero", "[zero]\nnights = '22-06'")
    all_day, less = plan(day, nothing(day)).cost, plan(night, nothing(night)).cost
    assert all_day is not None
    assert less is not None
    assert less.most_month == pytest.approx(all_day.most_month * 16 / 24)


@pytest.mark.parametrize("quiet", [None, 0.0])  # what an hour without calls has: nothing, as far as anybody knows
def test_the_idle_alarm_tells_nobody_of_a_new_endpoint_and_tells_of_one_that_is_called_no_more(
    quiet: float | None,
) -> None:
    of = wanted(more="[alarms]\nidle_hours = 6\ntell = ['arn:aws:sns:us-east-1:123456789012:ops']")
    alarm = next(one for one in resources(of).alarms if alarm_word(one["AlarmName"]) == "idle")
    calls: list[float | None] = [None] * looked_at(6)  # before there was an endpoint
    states: list[State] = ["INSUFFICIENT_DATA"]  # as CloudWatch makes an alarm
    told_at = []
    for hour in range(1, 40):
        calls.append(9.0 if hour == 20 else quiet)
        breaches = [None if n is None else n < alarm["Threshold"] for n in calls[-looked_at(6) :]]
        states.append(
            judge(
                breaches, alarm["EvaluationPeriods"], alarm["DatapointsToAlarm"], alarm["TreatMissingData"], states[-1]
            )
        )
        actions = {"ALARM": "AlarmActions", "INSUFFICIENT_DATA": "InsufficientDataActions", "OK": "OKActions"}
        if states[-1] != states[-2] and alarm.get(actions[states[-1]]):
            told_at.append(hour)
    assert all(hour >= 6 for hour in told_at)
    after = [hour for hour in told_at if hour >= 20]
    assert len(after) == 1
    assert 26 <= after[0] <= 20 + looked_at(6)


def test_a_role_that_is_not_there_is_told_before_anything_is_made() -> None:
    of = wanted("zero")
    planned = plan(of, replace(nothing(of), role_exists=False))
    assert planned.steps == ()
    assert planned.refused == (f"role {of.role} is not there",)


@pytest.mark.parametrize(
    ("kind", "variable", "value", "said"),
    [
        ("multi-model", "MME_MAX_AGE_S", "30", "MME_MAX_AGE_S: '30' is not used in hosted mode without --models"),
        ("multi-model", "MME_PRELOAD", "all", "MME_PRELOAD: 'all' is not a setting of hosted mode"),
        ("zero", "MME_MAX_MODELS", "9", "MME_MAX_MODELS: '9' is not a setting of standalone mode"),
        ("serverless", "MME_MEMORY", "much", "MME_MEMORY: 'much' is not a size"),
        ("serverless", "SAGEMAKER_INFERENCE_OUTPUT", "scor", "there is no 'scor'"),
    ],
)
def test_what_the_container_would_refuse_at_its_start_is_refused_before_anything_is_made(
    kind: str, variable: str, value: str, said: str
) -> None:
    of = wanted(kind, f"[environment]\n{variable} = '{value}'")
    for there in (nothing(of), updating(of)):
        planned = plan(of, there)
        assert planned.steps == ()
        assert [said in line for line in planned.refused] == [True]


@pytest.mark.parametrize(
    ("kind", "variable"), [("zero", "MME_MAX_AGE_S"), ("serverless", "MME_PIN"), ("multi-model", "MME_LOADERS")]
)
def test_what_the_container_takes_is_planned(kind: str, variable: str) -> None:
    of = wanted(kind, f"[environment]\n{variable} = '30'\nOMP_NUM_THREADS = '2'")
    assert plan(of, nothing(of)).refused == ()


def test_a_reservation_is_of_the_machine_and_the_models_and_steps_down_to_what_has_room() -> None:
    of = wanted("zero")
    assert memory_of(of, nothing(of)) == 512  # the container itself
    assert memory_of(of, nothing(of, models_below=Models(1000, 200 << 20))) == 768  # 812 in steps of 128
    assert memory_of(of, nothing(of, models_below=Models(9000, 20 << 30))) == 2048  # a quarter of 8 GiB
    steps = reservation.steps_mib(2048)
    assert steps[:3] == (2048, 1536, 1152)
    assert steps[-1] == 128
    assert list(steps) == sorted(set(steps), reverse=True)


def test_a_component_without_room_is_made_anew_with_less() -> None:
    of = wanted("zero")
    (component,) = applied(of).components
    failed = {
        **component,
        "InferenceComponentStatus": "Failed",
        "FailureReason": "There is not enough hardware resources on the instances for this endpoint to create a copy of the "
        "inference component.",
    }
    there = replace(applied(of), components=(failed,))
    planned = plan(of, there)
    assert operations(planned)[:2] == ["DeleteInferenceComponent", "CreateInferenceComponent"]
    assert memory_of(of, there) == 384
    accepted = {**component, "Specification": {**component["Specification"], "ComputeResourceRequirements": {
        "NumberOfCpuCoresRequired": 1.0, "MinMemoryRequiredInMb": 384}}}  # fmt: skip
    assert plan(of, replace(applied(of), components=(accepted,))).steps == ()


def test_a_component_that_runs_something_else_is_drift() -> None:
    of = wanted("zero")
    (component,) = applied(of).components
    other = {**component, "Specification": {**component["Specification"], "ModelName": "theirs"}}
    planned = plan(of, replace(applied(of), components=(other,)))
    assert planned.drift == ("component prices runs theirs, which was not made here",)
    assert operations(planned) == ["UpdateInferenceComponent"]
