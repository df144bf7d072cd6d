"""A day of an endpoint that scales to zero: what it should be when, and what it should cost, worked out by hand."""

from __future__ import annotations

import pytest

from container.platform.hosting.errors import ValidationError
from tests.container.platform.components.conftest import Shop

ZERO, ONE = ("InService", 0), ("InService", 1)


def policies(shop: Shop) -> None:
    """As AWS's scale-to-zero post has them: track calls per copy, and wake by an alarm."""
    shop.scale("RegisterScalableTarget", MinCapacity=0, MaxCapacity=2)
    shop.scale(
        "PutScalingPolicy",
        PolicyName="track",
        PolicyType="TargetTrackingScaling",
        TargetTrackingScalingPolicyConfiguration={
            "TargetValue": 10.0,
            "PredefinedMetricSpecification": {"PredefinedMetricType": "SageMakerInferenceComponentInvocationsPerCopy"},
            "ScaleInCooldown": 60,
            "ScaleOutCooldown": 60,
        },
    )
    wake = shop.scale(
        "PutScalingPolicy",
        PolicyName="wake",
        PolicyType="StepScaling",
        StepScalingPolicyConfiguration={
            "AdjustmentType": "ChangeInCapacity",
            "MetricAggregationType": "Maximum",
            "Cooldown": 60,
            "StepAdjustments": [{"MetricIntervalLowerBound": 0.0, "ScalingAdjustment": 1}],
        },
    )
    shop.wake_alarm(wake["PolicyARN"])


def minutes(shop: Shop, until: str, calls_a_minute: int) -> None:
    """Calls in the tenth second of each minute."""
    hours, minute, _ = (int(part) for part in until.split(":"))
    while shop.clock.monotonic() < hours * 3600 + minute * 60:
        shop.clock.advance(10)
        for _ in range(calls_a_minute):
            shop.invoke()
        shop.clock.advance(50)


def test_a_day_that_begins_and_ends_at_zero(shop: Shop) -> None:
    shop.until("0:00:05")
    shop.create()
    policies(shop)

    # Nobody calls. The copy is there at 0:01:05, so the first idle minute is that of 0:01, and the fifteenth ends at 0:16.
    shop.until("0:15:59")
    assert shop.seen() == (*ONE, 1)
    shop.until("0:16:01")
    assert shop.seen() == (*ZERO, 1)
    shop.until("0:25:59")
    assert shop.seen() == (*ZERO, 1)  # the instance stays ten minutes, and costs
    shop.until("0:26:01")
    assert shop.seen() == (*ZERO, 0)

    # A caller comes at 9:00:20 and tries again every 20 s. The alarm's half minute ends at 9:00:30; an instance takes
    # 1:45, the copy 1:00.
    shop.until("9:00:20")
    for _ in range(9):
        with pytest.raises(ValidationError, match="Inference Component has no capacity to process this request"):
            shop.invoke()
        shop.clock.advance(20)
    assert shop.clock.now().strftime("%H:%M:%S") == "09:03:20"
    assert shop.invoke().status == 200
    assert shop.seen() == (*ONE, 1)

    shop.until("9:04:00")
    minutes(shop, "12:00:00", 6)
    assert shop.seen() == (*ONE, 1)

    # 15 a minute is more than 10 a copy: after three such minutes there are to be two, both on the one instance.
    minutes(shop, "12:03:00", 15)
    assert shop.seen() == ("Updating", 1, 1)
    minutes(shop, "12:30:00", 15)
    assert shop.seen() == ("InService", 2, 1)

    # 6 a minute are 3 a copy; the fifteenth such minute ends at 12:45.
    minutes(shop, "12:44:00", 6)
    assert shop.seen() == ("InService", 2, 1)
    minutes(shop, "18:00:00", 6)
    assert shop.seen() == (*ONE, 1)
    shop.until("18:14:59")
    assert shop.seen() == (*ONE, 1)
    shop.until("18:15:01")
    assert shop.seen() == (*ZERO, 1)
    shop.until("24:00:00")
    assert shop.seen() == (*ZERO, 0)

    activities = shop.scale("DescribeScalingActivities", MaxResults=50)["ScalingActivities"]
    assert [
        (one["StartTime"].strftime("%H:%M:%S"), one["Description"], one["StatusCode"]) for one in reversed(activities)
    ] == [
        ("00:16:00", "Setting desired copy count to 0.", "Successful"),
        ("09:00:30", "Setting desired copy count to 1.", "Successful"),
        ("12:03:00", "Setting desired copy count to 2.", "Successful"),
        ("12:45:00", "Setting desired copy count to 1.", "Successful"),
        ("18:15:00", "Setting desired copy count to 0.", "Successful"),
    ]
    # One ml.m5.large at 0.115 an hour: 0:00:00 to 0:26:00, and 9:02:15 (9:00:30 + 1:45) to 18:25:00: 1,560 s + 33,765 s.
    # All day at one would have cost 2.76.
    bill = shop.ledger.bill()
    assert [line.seconds for line in bill.lines] == [1560 + 33_765]
    assert bill.usd == pytest.approx(35_325 / 3600 * 0.115)
    assert round(bill.usd, 2) == 1.13
    assert bill.usd_per_hour == 0


def test_without_the_wake_alarm_nobody_is_ever_served_again(shop: Shop) -> None:
    shop.create()
    shop.scale("RegisterScalableTarget", MinCapacity=0, MaxCapacity=2)
    shop.until("0:02:00")
    shop.set_copies(0)
    shop.until("1:00:00")
    for _ in range(60):
        with pytest.raises(ValidationError):
            shop.invoke()
        shop.clock.advance(60)
    assert shop.seen() == (*ZERO, 0)


def test_a_forgotten_minimum_of_one_costs_the_whole_night(shop: Shop) -> None:
    """The wrong rule that costs: one word differs from the day above."""
    shop.create()
    shop.scale("RegisterScalableTarget", MinCapacity=1, MaxCapacity=2)
    shop.until("24:00:00")
    assert shop.seen() == (*ONE, 1)
    assert shop.ledger.bill().usd == pytest.approx(24 * 0.115)
