"""A trial against SageMaker played on this machine: what differs is told, and nothing is left, whatever happens."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from container.operate.demo.houses import pack
from container.operate.deploy import trial
from container.operate.deploy.apply import Pace
from container.operate.deploy.aws import Aws, AwsRefused
from container.operate.deploy.trial import OTHER, TARGET, Report
from container.operate.troubles import Refused
from container.platform.platform import Platform
from tests.container.operate.deploy.files import IMAGE, ROLE, wanted
from tests.container.operate.deploy.test_apply import shared
from tests.rig.fakes import FakeClock
from tests.rig.platform import client, platform

TINY = Path(__file__).parents[3] / "rig/tiny_container.py"
MODELS = {target: pack(b"a model") for target in (TARGET, OTHER, "next")}
ONES = {TARGET: b"1.0", OTHER: b"1.0", "next": b"1.0"}  # what the tiny container says to all


@pytest.fixture(scope="module")
def played() -> Iterator[Platform]:
    with platform(speed=600.0, images={IMAGE: [sys.executable, "-S", str(TINY), "{port}"]}) as one:
        client(one.url, "iam").create_role(RoleName=ROLE.rsplit("/", 1)[-1], AssumeRolePolicyDocument="{}")
        yield one


def tried(
    aws: Aws,
    kind: str,
    answers: dict[str, bytes],
    tell: Callable[[str], None] = lambda _: None,
    pace: Pace = Pace(poll_s=0.05),  # noqa: B008  frozen
) -> Report:
    return trial.trial(
        aws,
        wanted(kind),
        most_usd=5,
        models=MODELS,
        body=b"1,2",
        answers=answers,
        tell=tell,
        pace=pace,
    )


def assert_nothing_is_left(url: str, report: Report) -> None:
    assert report.left == []
    sagemaker = shared(url, "sagemaker")
    assert sagemaker.list_endpoints()["Endpoints"] == []
    assert sagemaker.list_models()["Models"] == []
    assert sagemaker.list_endpoint_configs()["EndpointConfigs"] == []
    assert sagemaker.list_inference_components()["InferenceComponents"] == []
    assert shared(url, "cloudwatch").describe_alarms()["MetricAlarms"] == []
    with contextlib.suppress(ClientError):
        shared(url, "s3").head_bucket(Bucket=report.bucket)
        raise AssertionError(f"bucket {report.bucket} is left")


@pytest.mark.parametrize("kind", ["multi-model", "zero"])
def test_what_is_seen_is_written_beside_what_is_said_and_all_is_taken_down(played: Platform, kind: str) -> None:
    report = tried(Aws(client=lambda service: shared(played.url, service)), kind, ONES)
    seen = {one.what: one.is_so for one in report.seen}
    # The tiny container has every target, and endpoints played here write no log group.
    unlike = {"the log group"} | ({"a target that is not there"} if kind == "zero" else set())
    assert {what for what, is_so in seen.items() if not is_so} <= unlike
    assert {
        "apply",
        "the first call",
        "apply of a changed file",
        "a second apply",
        "CloudWatch's Invocations",
    } <= seen.keys()
    assert ("the wake" in seen) == (kind == "zero")
    assert_nothing_is_left(played.url, report)


def test_an_answer_of_another_model_is_told_as_what_differs(played: Platform) -> None:
    report = tried(Aws(client=lambda service: shared(played.url, service)), "multi-model", {**ONES, OTHER: b"2.0"})
    assert not report.is_as_expected
    (wrong,) = [one for one in report.seen if one.what == "a call of another model"]
    assert (wrong.expected, wrong.seen, wrong.is_so) == ("2.0", "1.0", False)
    assert_nothing_is_left(played.url, report)


def test_interrupted_in_the_middle_it_is_taken_down_all_the_same(played: Platform) -> None:
    class Interrupted(Aws):
        def call(self, service: str, operation: str, arguments: Any = None) -> Any:
            if operation == "InvokeEndpoint":
                raise KeyboardInterrupt
            return super().call(service, operation, arguments)

    with pytest.raises(KeyboardInterrupt):
        tried(Interrupted(client=lambda service: shared(played.url, service)), "multi-model", ONES)
    sagemaker = client(played.url, "sagemaker")
    assert sagemaker.list_endpoints()["Endpoints"] == []
    assert client(played.url, "s3").list_buckets()["Buckets"] == []


def test_a_bucket_that_may_not_be_taken_away_is_told_as_left(played: Platform) -> None:
    denied = {"PutBucketPolicy", "DeleteBucket"}

    class Denied(Aws):
        def call(self, service: str, operation: str, arguments: Any = None) -> Any:
            if operation in denied:
                raise AwsRefused(operation, "AccessDenied", "no", 403)
            return super().call(service, operation, arguments)

    report = tried(Denied(client=lambda service: shared(played.url, service)), "multi-model", ONES)
    shared(played.url, "s3").delete_bucket(Bucket=report.bucket)
    assert [line.partition(": ")[2] for line in report.left] == ["DeleteBucket: AccessDenied: no"]
    assert not report.is_as_expected


def test_interrupted_for_good_it_says_what_is_left(played: Platform) -> None:
    class Interrupted(Aws):
        def call(self, service: str, operation: str, arguments: Any = None) -> Any:
            if operation in ("PutBucketPolicy", "DeleteBucket"):
                raise KeyboardInterrupt
            return super().call(service, operation, arguments)

    said: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        tried(Interrupted(client=lambda service: shared(played.url, service)), "multi-model", ONES, said.append)
    (bucket,) = shared(played.url, "s3").list_buckets()["Buckets"]
    shared(played.url, "s3").delete_bucket(Bucket=bucket["Name"])
    assert said[-1].startswith("left: endpoint prices-trial-")
    assert bucket["Name"] in said[-1]


def test_after_so_many_hours_nothing_is_waited_for_but_its_end(played: Platform) -> None:
    class Late(Aws):
        """The endpoint comes after hours."""

        def call(self, service: str, operation: str, arguments: Any = None) -> Any:
            answer = super().call(service, operation, arguments)
            if operation == "CreateEndpoint":
                clock.advance(trial.LOOK_H * 3600)
            return answer

    clock = FakeClock()
    pace = Pace(0.05, time.sleep, clock)
    report = tried(Late(client=lambda service: shared(played.url, service)), "multi-model", ONES, pace=pace)
    assert [(one.what, one.seen) for one in report.seen] == [
        ("apply", "the trial has taken 1.5 h, and may take 2 with its end"),
        ("the trial", "nothing else can be looked at: the trial has taken 1.5 h, and may take 2 with its end"),
    ]
    assert_nothing_is_left(played.url, report)


def test_a_trial_costs_as_much_at_night() -> None:
    by_day = trial.refuse_cost(wanted("zero"), "us-east-1", 5)
    assert trial.refuse_cost(wanted("zero", "[zero]\ncopies = 2\nnights = '22-06'"), "us-east-1", 5) == by_day


def test_a_trial_of_machines_without_a_price_is_refused() -> None:
    with pytest.raises(Refused, match=r"no upper bound for its bill: no price known for ml\.x9\.large"):
        trial.refuse_cost(wanted("zero", "[instances]\ntype = 'ml.x9.large'\nmost = 2\n"), "us-east-1", 5)


def test_what_may_cost_more_than_it_may_is_not_begun(played: Platform) -> None:
    with pytest.raises(Refused, match=r"a trial may cost 1.84 USD, more than --most-usd 1"):
        trial.refuse_cost(wanted(), "us-east-1", 1)  # 4 machines of 0.115, twice, for 2 hours
