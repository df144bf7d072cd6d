"""Bills worked out by hand."""

from __future__ import annotations

import datetime
import json
from typing import Any

import pytest

from container.platform.bill.facts import told, whole_bill
from container.platform.bill.jobs import jobs
from container.platform.bill.ledger import Ledger
from container.platform.bus import Event
from container.platform.clock import ManualClock

MIDNIGHT = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
ONE_MS = MIDNIGHT.timestamp() * 1000 + 3_600_000


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(MIDNIGHT)


def test_an_instance_costs_from_its_start_to_its_end_and_goes_on_costing_until_then(clock: ManualClock) -> None:
    ledger = Ledger(clock, "us-east-1")
    first = ledger.start("endpoint", "shop/AllTraffic", "ml.m5.large", "i-1")
    clock.advance(1800)
    ledger.start("endpoint", "shop/AllTraffic", "ml.m5.large", "i-2")
    clock.advance(1800)
    ledger.stop(first)
    clock.advance(3600)
    ledger.stop(first)  # again, and it changes nothing
    bill = ledger.bill()
    assert [(line.seconds, line.n_running) for line in bill.lines] == [(3600 + 5400, 1)]
    assert bill.usd == pytest.approx(2.5 * 0.115)
    assert bill.usd_per_hour == pytest.approx(0.115)


def test_what_has_no_price_is_named_and_not_free(clock: ManualClock) -> None:
    ledger = Ledger(clock, "us-east-1")
    ledger.start("endpoint", "odd/AllTraffic", "ml.p5.48xlarge", "i-1")
    clock.advance(3600)
    bill = ledger.bill()
    assert (bill.lines[0].usd, bill.usd, bill.unknown) == (None, 0.0, ("ml.p5.48xlarge",))
    assert told(bill)[0].endswith("no price known")


def test_another_region_costs_what_it_costs(clock: ManualClock) -> None:
    ledger = Ledger(clock, "eu-central-1")
    ledger.start("endpoint", "shop/AllTraffic", "ml.m5.large", "i-1")
    clock.advance(3600)
    assert ledger.bill().usd == pytest.approx(0.138, abs=0.0005)


def test_a_ledger_outlives_its_platform_and_what_ran_ended_with_it(clock: ManualClock) -> None:
    ledger = Ledger(clock, "us-east-1")
    ledger.start("endpoint", "shop/AllTraffic", "ml.m5.large", "i-1")
    clock.advance(3600)
    kept = json.loads(json.dumps(ledger.dump()))
    clock.advance(3600)
    again = Ledger(clock, "us-east-1")
    again.restore(kept)
    assert again.bill().usd == pytest.approx(0.115)
    assert again.bill().lines[0].n_running == 0


def training(status: str, **more: Any) -> Event:
    """As the guide shows one: times are milliseconds, as text."""
    detail = {
        "TrainingJobName": "churn",
        "TrainingJobStatus": status,
        "ResourceConfig": {"InstanceType": "ml.m5.xlarge", "InstanceCount": 2, "VolumeSizeInGB": 30},
        "TrainingStartTime": str(ONE_MS),
        **more,
    }
    return Event("SageMaker Training Job State Change", detail, ("arn",), MIDNIGHT)


def test_a_job_is_on_the_bill_once_however_often_its_events_come(clock: ManualClock) -> None:
    over = training("Completed", TrainingEndTime=str(ONE_MS + 1_800_000))
    (job,) = jobs([training("InProgress"), over, over])
    assert (job.status, job.n_instances, job.seconds(MIDNIGHT)) == ("Completed", 2, 3600)
    clock.advance(7200)
    bill = whole_bill(Ledger(clock, "us-east-1"), [training("InProgress"), over, over], "us-east-1")
    assert bill.usd == pytest.approx(0.23)
    assert bill.usd_per_hour == 0


def test_a_running_job_costs_and_a_spot_job_costs_what_is_billed(clock: ManualClock) -> None:
    clock.advance(3600 * 2)
    ledger = Ledger(clock, "us-east-1")
    running = whole_bill(ledger, [training("InProgress")], "us-east-1")
    assert (running.usd, running.usd_per_hour) == (pytest.approx(0.46), pytest.approx(0.46))
    more = {"BillableTimeInSeconds": 1080, "EnableManagedSpotTraining": True}
    spot = training("Completed", TrainingEndTime=ONE_MS + 3_600_000, **more)
    assert whole_bill(ledger, [spot], "us-east-1").usd == pytest.approx(0.46 * 0.3)


def test_processing_and_transform_say_it_elsewhere() -> None:
    processing = {
        "ProcessingJobName": "score",
        "ProcessingJobStatus": "InProgress",
        "ProcessingResources": {"ClusterConfig": {"InstanceType": "ml.c5.xlarge", "InstanceCount": 3}},
        "ProcessingStartTime": ONE_MS,
    }
    transform = {
        "TransformJobName": "old",
        "TransformJobStatus": "Failed",
        "TransformResources": {"InstanceType": "ml.m5.large", "InstanceCount": 1},
    }
    found = jobs(
        [
            Event("SageMaker Processing Job State Change", processing, (), MIDNIGHT),
            Event("SageMaker Transform Job State Change", transform, (), MIDNIGHT),
        ]
    )
    assert [(job.kind, job.n_instances, job.instance_type) for job in found] == [
        ("processing", 3, "ml.c5.xlarge"),
        ("transform", 1, "ml.m5.large"),
    ]


def test_the_bill_as_text_ends_with_the_sum(clock: ManualClock) -> None:
    ledger = Ledger(clock, "us-east-1")
    ledger.start("endpoint", "shop/AllTraffic", "ml.m5.large", "i-1")
    clock.advance(36_000)
    assert told(ledger.bill()) == [
        "endpoint shop/AllTraffic   ml.m5.large  10.00 h  1.15 USD",
        "all of it would have cost                        1.15 USD",
        "prices of 2026-09-28. Instances only: no storage, data, requests, alarms, logs.",
    ]
