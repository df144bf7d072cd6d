"""Alarms evaluated on figures, minute by minute."""

from __future__ import annotations

from typing import Any

from container.platform.metrics import MetricName
from tests.container.platform.scaling.conftest import World


def test_an_alarm_begins_without_data_goes_on_when_its_minute_has_ended_and_off_again(world: World) -> None:
    world.alarms.put(world.rule())
    assert world.alarms.state("busy") == "INSUFFICIENT_DATA"
    world.put(11)
    world.clock.advance(59)
    assert world.alarms.state("busy") == "INSUFFICIENT_DATA"
    world.clock.advance(2)
    assert world.alarms.state("busy") == "ALARM"
    world.put(3)
    world.clock.advance(60)
    assert world.alarms.state("busy") == "OK"
    world.clock.advance(600)
    assert world.alarms.state("busy") == "INSUFFICIENT_DATA"
    assert [change.after for change in world.alarms.all()[0].changes] == ["ALARM", "OK", "INSUFFICIENT_DATA"]


def test_a_high_resolution_alarm_goes_on_after_its_thirty_seconds(world: World) -> None:
    world.alarms.put(
        world.rule(period_s=30, statistic="Maximum", threshold=1.0, comparison="GreaterThanOrEqualToThreshold")
    )
    world.clock.advance(5)
    world.put(1)
    world.clock.advance(20)
    assert world.alarms.state("busy") == "INSUFFICIENT_DATA"
    world.clock.advance(6)
    assert world.alarms.state("busy") == "ALARM"


def test_three_of_five_minutes_must_break_it(world: World) -> None:
    world.alarms.put(world.rule(n_periods=5, n_to_alarm=3))
    loads = iter([11, 0, 11, 0, 0, 11, 11, 0])
    seen = []

    def minute() -> None:
        seen.append(world.alarms.state("busy"))
        world.put(next(loads))

    world.minutes(8, minute)
    assert seen[-3:] == ["OK", "OK", "ALARM"]  # 11 0 11 0 0 11 | 0 11 0 0 11 | 11 0 0 11 11


def test_an_alarm_over_five_minutes_is_looked_at_each_minute(world: World) -> None:
    world.alarms.put(world.rule(period_s=300))
    world.minutes(2, lambda: world.put(6))
    assert world.alarms.state("busy") == "ALARM"


def test_a_policy_is_told_each_minute_and_by_a_disabled_alarm_never(world: World) -> None:
    told: list[Any] = []
    world.alarms.on_policy = lambda arn, firing: told.append((arn, firing.values[-1]))
    arn = "arn:aws:autoscaling:us-east-1:123456789012:scalingPolicy:1:resource/x:policyName/p"
    world.alarms.put(world.rule(alarm_actions=(arn, "arn:aws:sns:us-east-1:123456789012:topic")))
    world.minutes(3, lambda: world.put(12))
    assert told == [(arn, 12.0)] * 3
    world.alarms.enable(["busy"], is_enabled=False)
    world.minutes(3, lambda: world.put(12))
    assert len(told) == 3


def test_an_alarm_on_another_unit_sees_nothing(world: World) -> None:
    for unit in ("Seconds", "Milliseconds"):
        world.alarms.put(world.rule(unit, unit=unit))
    world.metrics.put("Shop", "Load", {}, 11, "Seconds")
    world.clock.advance(61)
    assert world.alarms.state("Seconds") == "ALARM"
    assert world.alarms.state("Milliseconds") == "INSUFFICIENT_DATA"


def test_a_state_set_by_hand_acts_and_lasts_until_the_next_look(world: World) -> None:
    told: list[str] = []
    world.alarms.on_policy = lambda arn, _firing: told.append(arn)
    world.alarms.put(world.rule(alarm_actions=("arn:aws:autoscaling:us-east-1:1:scalingPolicy:1:x:policyName/p",)))
    world.put(1)
    world.alarms.set_state("busy", "ALARM", "a drill")
    assert world.alarms.state("busy") == "ALARM"
    assert len(told) == 1
    world.clock.advance(61)
    assert world.alarms.state("busy") == "OK"


def test_statistics_are_cloudwatchs(world: World) -> None:
    for value in (1, 2, 3, 4, 100):
        world.put(value)
    metric = MetricName.of("Shop", "Load", {})
    start = int(world.clock.now().timestamp())
    found = {
        name: world.metrics.value(metric, start, start + 60, name)
        for name in ("Sum", "Average", "Minimum", "Maximum", "SampleCount", "p50", "p80", "p100")
    }
    assert found == {
        "Sum": 110,
        "Average": 22,
        "Minimum": 1,
        "Maximum": 100,
        "SampleCount": 5,
        "p50": 3,
        "p80": 4,
        "p100": 100,
    }
    assert world.metrics.value(metric, start + 60, start + 120, "Sum") is None


def test_a_clock_that_jumps_is_caught_up_with_beat_by_beat(world: World) -> None:
    world.alarms.put(world.rule())
    world.put(11)
    world.clock.advance(1800)
    assert [change.after for change in world.alarms.all()[0].changes] == ["ALARM", "INSUFFICIENT_DATA"]
