"""Targets, policies and activities, over a clock that stands still. Expected counts are worked out beside each test."""

from __future__ import annotations

from typing import Any

import pytest

from container.platform.metrics import MetricName
from container.platform.scaling.operations import Operations
from container.platform.scaling.records import Activity
from container.platform.scaling.resources import COMPONENT, Address
from container.platform.service.call import Call, Request
from container.platform.service.faults import ObjectNotFoundException, ValidationException
from tests.container.platform.scaling.conftest import ADDRESS, World

PER_COPY = {
    "TargetValue": 10.0,
    "PredefinedMetricSpecification": {"PredefinedMetricType": "SageMakerInferenceComponentInvocationsPerCopy"},
}
WAKE = {
    "AdjustmentType": "ChangeInCapacity",
    "StepAdjustments": [{"MetricIntervalLowerBound": 0, "ScalingAdjustment": 1}],
    "Cooldown": 60,
}
DIMENSIONS = {"InferenceComponentName": "churn"}


def register(world: World, least: int = 0, most: int = 4, **suspended: bool) -> None:
    world.scaling.register(ADDRESS, least, most, suspended, None)


def track(world: World, name: str = "track", **config: Any) -> None:
    world.scaling.put_policy(ADDRESS, name, "TargetTrackingScaling", {**PER_COPY, **config})


def load(world: World, calls_a_minute: float) -> Any:
    """What each copy gets of so many calls a minute, however many copies there are."""
    return lambda: world.put(calls_a_minute / max(world.copies.n, 1), "InvocationsPerCopy", DIMENSIONS)


def shown(world: World) -> list[tuple[str, str]]:
    return [(one.description, one.status) for one in reversed(world.scaling.activities())]


def not_scaled(world: World) -> list[Any]:
    return [one.not_scaled for one in reversed(world.scaling.activities()) if one.not_scaled]


def test_three_busy_minutes_scale_out_in_proportion_and_the_activity_says_why(world: World) -> None:
    register(world)
    track(world)
    world.minutes(2, load(world, 35))
    assert world.copies.n == 1
    world.minutes(1, load(world, 35))
    assert world.copies.n == 4  # 35 a minute at 10 each
    activity: Activity = world.scaling.activities()[0]
    alarm = world.scaling.policies()[0].alarm_names[0]
    assert activity.description == "Setting desired copy count to 4."
    assert activity.cause == f"monitor alarm {alarm} in state ALARM triggered policy track"
    assert activity.status == "Successful"
    assert activity.message == "Successfully set desired copy count to 4. Change successfully fulfilled by sagemaker."
    assert alarm.startswith("TargetTracking-inference-component/churn-AlarmHigh-")


def test_what_several_metrics_come_to_is_tracked_as_one_is(world: World) -> None:
    """A backlog by the copies there are, as the user guide's example of metric math has it."""
    register(world)
    stats = [
        {
            "Id": id,
            "ReturnData": False,
            "MetricStat": {"Metric": {"Namespace": "Shop", "MetricName": name}, "Stat": "Average"},
        }
        for id, name in (("m1", "Waiting"), ("m2", "Copies"))
    ]
    custom = {"Metrics": [*stats, {"Id": "e1", "Expression": "m1 / m2"}]}
    world.scaling.put_policy(
        ADDRESS, "backlog", "TargetTrackingScaling", {"TargetValue": 10, "CustomizedMetricSpecification": custom}
    )

    def waiting() -> None:
        world.put(35, "Waiting")
        world.put(world.copies.n, "Copies")

    world.minutes(2, waiting)
    assert world.copies.n == 1
    world.minutes(1, waiting)
    assert world.copies.n == 4


def test_fifteen_idle_minutes_scale_in_to_zero_and_tracking_alone_never_comes_back(world: World) -> None:
    register(world)
    track(world)
    world.minutes(14, load(world, 0))
    assert world.copies.n == 1
    world.minutes(1, load(world, 0))
    assert world.copies.n == 0
    world.minutes(30, lambda: world.put(1, "NoCapacityInvocationFailures", DIMENSIONS))
    assert world.copies.n == 0


def test_scaling_in_goes_by_the_highest_of_the_fifteen_minutes(world: World) -> None:
    """Four copies; a minute of 3 a copy among idle ones: 12 in all, which two copies bear."""
    world.copies.n = 4
    register(world)
    track(world)
    calls = iter([0, 0, 0, 12, *[0] * 11])
    world.minutes(15, lambda: load(world, next(calls))())
    assert world.copies.asked == [2]


def test_a_wake_alarm_brings_one_copy_and_its_cooldown_no_second(world: World) -> None:
    world.copies.n, world.copies.takes_s = 0, 20
    register(world)
    policy = world.scaling.put_policy(ADDRESS, "wake", "StepScaling", WAKE)
    world.alarms.put(
        world.rule(
            "wake",
            metric=MetricName.of("AWS/SageMaker", "NoCapacityInvocationFailures", DIMENSIONS),
            statistic="Maximum",
            period_s=30,
            threshold=1.0,
            comparison="GreaterThanOrEqualToThreshold",
            alarm_actions=(policy.arn,),
        )
    )
    assert world.scaling.alarms_of(policy)[0][0] == "wake"
    world.clock.advance(5)
    world.put(1, "NoCapacityInvocationFailures", DIMENSIONS)
    world.clock.advance(26)
    assert world.copies.n == 1  # the span of thirty seconds is over
    world.clock.advance(55)
    world.put(1, "NoCapacityInvocationFailures", DIMENSIONS)
    world.clock.advance(4)
    assert world.copies.asked == [1]  # the copy was there after 20 s, and 60 s from then on the +1 counts as made


def test_in_a_cooldown_only_a_larger_step_out_adds_and_only_the_difference(world: World) -> None:
    steps = [
        {"MetricIntervalLowerBound": 0, "MetricIntervalUpperBound": 10, "ScalingAdjustment": 1},
        {"MetricIntervalLowerBound": 10, "ScalingAdjustment": 3},
    ]
    register(world, 1, 10)
    policy = world.scaling.put_policy(
        ADDRESS, "out", "StepScaling", {"AdjustmentType": "ChangeInCapacity", "StepAdjustments": steps, "Cooldown": 300}
    )
    world.alarms.put(world.rule(alarm_actions=(policy.arn,)))
    loads = iter([12, 12, 25, 25, 25, 25, 25, 25])
    world.minutes(8, lambda: world.put(next(loads)))
    # Minute 1: 1 + 1. Minute 3, in its cooldown: 1 + 3, so 2 more. Minute 8, five after that: 4 + 3.
    assert world.copies.asked == [2, 4, 7]


def test_scaling_in_waits_for_its_cooldown_and_scaling_out_ends_that(world: World) -> None:
    world.copies.n = 6
    register(world, 1, 10)
    down = world.scaling.put_policy(
        ADDRESS,
        "in",
        "StepScaling",
        {
            "AdjustmentType": "ChangeInCapacity",
            "StepAdjustments": [{"MetricIntervalUpperBound": 0, "ScalingAdjustment": -1}],
            "Cooldown": 180,
        },
    )
    world.alarms.put(world.rule("idle", comparison="LessThanThreshold", threshold=5.0, alarm_actions=(down.arn,)))
    world.minutes(7, lambda: world.put(1))
    assert world.copies.asked == [5, 4, 3]  # minutes 1, 4 and 7


@pytest.mark.parametrize(
    ("n", "calls", "minutes", "reason"),
    [
        (4, 500, 3, {"Code": "AlreadyAtMaxCapacity", "MaxCapacity": 4}),
        (0, 0, 15, {"Code": "AlreadyAtMinCapacity", "MinCapacity": 0}),
        (1, 5, 15, {"Code": "AutoScalingAnticipatedFlapping", "CurrentCapacity": 1}),
    ],
)
def test_what_is_not_scaled_has_a_reason_said_once(
    world: World, n: int, calls: float, minutes: int, reason: dict[str, Any]
) -> None:
    world.copies.n = n
    register(world)
    track(world)
    world.minutes(minutes + 5, load(world, calls))
    assert world.copies.asked == []
    assert not_scaled(world) == [reason]
    assert shown(world) == [("Attempting to scale due to alarm triggered", "Failed")]


def test_of_two_tracking_policies_the_larger_count_wins_and_both_must_want_less(world: World) -> None:
    world.copies.n = 3
    register(world)
    track(world)
    other = "SageMakerInferenceComponentConcurrentRequestsPerCopyHighResolution"
    track(world, "second", TargetValue=2.0, PredefinedMetricSpecification={"PredefinedMetricType": other})

    def ten_seconds(concurrent: float) -> None:
        for _ in range(6):
            world.put(concurrent, "ConcurrentRequestsPerCopy", DIMENSIONS)
            world.clock.advance(10)

    for _ in range(16):
        load(world, 0)()
        ten_seconds(1.9)
    assert world.copies.asked == []  # the first would go to 0, the second has nothing against 3
    for _ in range(16):
        load(world, 0)()
        ten_seconds(1.0)
    assert world.copies.asked == [2]  # 3 x 1.0 / 2.0 = 1.5


def test_high_resolution_needs_thirty_seconds_not_three_minutes(world: World) -> None:
    register(world)
    kind = "SageMakerInferenceComponentConcurrentRequestsPerCopyHighResolution"
    track(world, PredefinedMetricSpecification={"PredefinedMetricType": kind}, TargetValue=2.0)
    for _ in range(3):
        world.put(5, "ConcurrentRequestsPerCopy", DIMENSIONS)
        world.clock.advance(10)
    assert world.copies.asked == [3]


def test_scale_in_can_be_disabled_and_there_is_no_low_alarm_then(world: World) -> None:
    world.copies.n = 3
    register(world)
    track(world, DisableScaleIn=True)
    assert len(world.alarms.all()) == 1
    world.minutes(20, load(world, 0))
    assert world.copies.asked == []


@pytest.mark.parametrize(
    ("suspended", "calls", "n"), [("DynamicScalingOutSuspended", 500, 1), ("DynamicScalingInSuspended", 0, 1)]
)
def test_what_is_suspended_does_not_happen_until_it_is_resumed(
    world: World, suspended: str, calls: float, n: int
) -> None:
    register(world, **{suspended: True})
    track(world)
    world.minutes(16, load(world, calls))
    assert world.copies.asked == []
    world.scaling.register(ADDRESS, None, None, {suspended: False}, None)
    world.minutes(1, load(world, calls))
    assert len(world.copies.asked) == 1


def test_a_change_under_way_is_waited_for(world: World) -> None:
    world.copies.takes_s = 240
    register(world, 0, 100)
    track(world, ScaleOutCooldown=0)
    world.minutes(6, lambda: world.put(20, "InvocationsPerCopy", DIMENSIONS))
    assert world.copies.asked == [2]
    assert world.scaling.activities()[0].status == "InProgress"
    world.minutes(2, lambda: world.put(20, "InvocationsPerCopy", DIMENSIONS))
    assert world.copies.asked == [2, 4]
    assert world.scaling.activities()[1].status == "Successful"


def test_a_refusal_is_a_failed_activity_with_its_reason(world: World) -> None:
    world.copies.refuses = "it is being updated"
    register(world)
    track(world)
    world.minutes(3, load(world, 99))
    activity = world.scaling.activities()[0]
    assert (activity.status, activity.message) == (
        "Failed",
        "Failed to set desired copy count to 4. Reason: it is being updated",
    )


def test_a_count_outside_of_the_limits_is_brought_inside(world: World) -> None:
    world.copies.n = 1
    register(world, 2, 4)
    assert world.copies.asked == [2]
    assert world.scaling.activities()[0].cause == "minimum capacity was set to 2 and maximum capacity was set to 4"


def test_scheduled_actions_change_the_limits_at_their_time(world: World) -> None:
    """Nights at zero, days at one at least: from midnight on, 1 January 2026."""
    operations = Operations(world.scaling, world.alarms, world.clock).operations()

    def call(name: str, **parameters: Any) -> Any:
        where = {
            "ServiceNamespace": "sagemaker",
            "ResourceId": ADDRESS.resource_id,
            "ScalableDimension": ADDRESS.dimension,
        }
        request = Request("POST", "/", {}, b"")
        return operations["application-autoscaling", name](
            Call("application-autoscaling", name, {**where, **parameters}, "us-east-1", "123456789012", request)
        )

    call("RegisterScalableTarget", MinCapacity=0, MaxCapacity=2)
    day = {"MinCapacity": 1, "MaxCapacity": 2}
    call("PutScheduledAction", ScheduledActionName="day", Schedule="cron(0 8 * * ? *)", ScalableTargetAction=day)
    night = {"MinCapacity": 0, "MaxCapacity": 0}
    call("PutScheduledAction", ScheduledActionName="night", Schedule="cron(0 20 * * ? *)", ScalableTargetAction=night)
    world.copies.n = 0
    world.clock.advance(8 * 3600 - 1)
    assert world.copies.asked == []
    world.clock.advance(2)
    assert world.copies.asked == [1]
    world.clock.advance(12 * 3600)
    assert world.copies.asked == [1, 0]
    world.clock.advance(24 * 3600)
    assert world.copies.asked == [1, 0, 1, 0]
    world.scaling.register(ADDRESS, None, None, {"ScheduledScalingSuspended": True}, None)
    world.clock.advance(24 * 3600)
    assert world.copies.asked == [1, 0, 1, 0]


def test_what_is_not_there_is_named(world: World) -> None:
    with pytest.raises(ObjectNotFoundException) as raised:
        track(world)
    assert raised.value.message == (
        "No scalable target registered for service namespace: sagemaker, resource ID: inference-component/churn, "
        "scalable dimension: sagemaker:inference-component:DesiredCopyCount"
    )
    with pytest.raises(ValidationException, match="doesn't exist"):
        world.scaling.register(Address("inference-component/none", COMPONENT.dimension), 0, 1, {}, None)


def test_deregistering_takes_policies_alarms_and_actions_with_it(world: World) -> None:
    register(world)
    track(world)
    world.scaling.deregister(ADDRESS)
    assert (world.alarms.all(), world.scaling.policies(), world.scaling.targets()) == ([], [], [])
    world.minutes(20, load(world, 500))
    assert world.copies.asked == []


def test_alarms_of_tracking_are_as_awss(world: World) -> None:
    register(world)
    track(world)
    high, low = (alarm.rule for alarm in world.alarms.all())
    assert (high.n_periods, high.threshold, high.comparison, high.statistic) == (3, 10.0, "GreaterThanThreshold", "Sum")
    assert (low.n_periods, low.threshold, low.comparison, low.period_s) == (15, 9.0, "LessThanThreshold", 60)
