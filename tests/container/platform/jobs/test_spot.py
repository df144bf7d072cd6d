"""Spot jobs, on a clock that stands still until it is told to go on."""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from container.platform.clock import ManualClock
from container.platform.jobs.life import WINDOW_S
from container.platform.jobs.room import INTERRUPT_S, SLOW_START_S
from container.platform.platform import Platform
from tests.container.platform.jobs.conftest import Account, until
from tests.rig.platform import client, platform

HERE = "cd ${MME_OPT_ML:-/opt/ml}\n"
SPOT: dict[str, Any] = {
    "EnableManagedSpotTraining": True,
    "StoppingCondition": {"MaxRuntimeInSeconds": 3600, "MaxWaitTimeInSeconds": 7200},
}
# Counts its attempts in its checkpoints; the first waits, and says when it hears the signal.
COUNTING = (
    HERE
    + """
echo $(ls checkpoints); touch checkpoints/attempt-$(ls checkpoints | wc -l)
[ $(ls checkpoints | wc -l) -gt 1 ] && exit 0
trap 'touch checkpoints/saved; echo heard' TERM
echo ready; while ! [ -e checkpoints/saved ]; do sleep 0.05; done
"""
)


def made(*traps: str) -> Platform:
    return platform(clock=ManualClock(), traps=traps)


@pytest.fixture(scope="module")
def trapped() -> Iterator[Platform]:
    with made("spot-interruption") as one:
        yield one


@pytest.fixture
def account(trapped: Platform, tmp_path: Path) -> Account:
    return Account(trapped, tmp_path)


DEAF = "trap 'echo heard' TERM; echo ready; while :; do sleep 0.05; done"


def hears(account: Account, name: str) -> None:
    """The window begins before the signal is sent."""
    until(lambda: "heard" in account.said("Training", name))


def with_mark(mark: str) -> list[int]:
    """Processes with this word in their environment."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):  # it has just ended, or is somebody else's
                if mark.encode() in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
    return found


def advance(account: Account, seconds: float) -> None:
    assert isinstance(account.platform.clock, ManualClock)
    account.platform.clock.advance(seconds)


def test_an_interrupted_job_starts_again_with_its_checkpoints(account: Account) -> None:
    name = account.train(COUNTING, CheckpointConfig={"S3Uri": f"{account.uri}/kept"}, **SPOT)
    until(lambda: "ready" in account.said("Training", name))
    advance(account, INTERRUPT_S)
    told = account.trained(name)
    assert told["TrainingJobStatus"] == "Completed", account.said("Training", name)
    assert [one["Status"] for one in told["SecondaryStatusTransitions"]] == [
        *("Starting", "Downloading", "Training"),
        *("Interrupted", "Starting", "Downloading", "Training", "Uploading", "Completed"),
    ]
    assert account.said("Training", name) == ["ready", "heard", "attempt-0 saved"]
    assert set(account.objects("kept/")) == {"attempt-0", "saved", "attempt-2"}
    assert told["TrainingTimeInSeconds"] == INTERRUPT_S
    assert told["BillableTimeInSeconds"] < told["TrainingTimeInSeconds"]
    (line,) = (line for line in account.platform.bill().lines if line.what == name)
    assert (line.kind, line.seconds) == ("training", told["BillableTimeInSeconds"])


def test_a_program_that_does_not_end_in_the_window_is_killed_and_loses_what_is_no_checkpoint(account: Account) -> None:
    script = (
        HERE
        + """
[ -e checkpoints/begun ] && { ls model; exit 0; }
touch checkpoints/begun; touch model/lost
"""
        + DEAF
    )
    name = account.train(script, CheckpointConfig={"S3Uri": f"{account.uri}/kept"}, **SPOT)
    until(lambda: "ready" in account.said("Training", name))
    advance(account, INTERRUPT_S)
    hears(account, name)
    advance(account, WINDOW_S - 1)
    assert account.sagemaker.describe_training_job(TrainingJobName=name)["SecondaryStatus"] == "Training"
    advance(account, 1)
    told = account.trained(name)
    assert told["TrainingJobStatus"] == "Completed", account.said("Training", name)
    assert account.said("Training", name) == ["ready", "heard"]
    assert account.tar(f"out/{name}/output/model.tar.gz") == {}


def test_a_job_that_is_none_of_spot_is_not_interrupted(account: Account) -> None:
    name = account.train(HERE + DEAF)
    until(lambda: "ready" in account.said("Training", name))
    advance(account, 3500)
    assert account.sagemaker.describe_training_job(TrainingJobName=name)["SecondaryStatus"] == "Training"
    account.sagemaker.stop_training_job(TrainingJobName=name)
    hears(account, name)
    advance(account, WINDOW_S)
    assert account.trained(name)["TrainingJobStatus"] == "Stopped"


def test_a_stopped_program_has_the_window_by_the_platforms_clock(account: Account) -> None:
    name = account.train(HERE + "echo left >model/m\n" + DEAF)
    until(lambda: "ready" in account.said("Training", name))
    account.sagemaker.stop_training_job(TrainingJobName=name)
    hears(account, name)
    advance(account, WINDOW_S - 1)
    assert account.sagemaker.describe_training_job(TrainingJobName=name)["TrainingJobStatus"] == "Stopping"
    advance(account, 1)
    assert account.trained(name)["TrainingJobStatus"] == "Stopped"
    assert account.tar(f"out/{name}/output/model.tar.gz") == {"m": b"left\n"}


def test_without_capacity_a_job_fails_and_a_spot_job_waits_as_long_as_it_may(tmp_path: Path) -> None:
    with made("no-capacity") as one:
        account = Account(one, tmp_path)
        told = account.trained(account.train("true"))
        assert told["FailureReason"].startswith("CapacityError: Unable to provision requested ML compute capacity.")
        account.number += 1000
        name = account.train("true", **SPOT)
        advance(account, 7199)
        assert account.sagemaker.describe_training_job(TrainingJobName=name)["SecondaryStatus"] == "Starting"
        advance(account, 1)
        assert account.trained(name)["SecondaryStatus"] == "MaxWaitTimeExceeded"


def test_a_slow_start_takes_its_time_and_can_be_stopped(tmp_path: Path) -> None:
    with made("slow-start") as one:
        account = Account(one, tmp_path)
        name = account.train("true")
        advance(account, SLOW_START_S - 1)
        assert account.sagemaker.describe_training_job(TrainingJobName=name)["SecondaryStatus"] == "Starting"
        advance(account, 1)
        assert account.trained(name)["TrainingJobStatus"] == "Completed"
        account.number += 1000
        name = account.train("true")
        account.sagemaker.stop_training_job(TrainingJobName=name)
        assert account.trained(name)["TrainingJobStatus"] == "Stopped"


def test_a_role_is_held_against_what_the_job_does(tmp_path: Path) -> None:
    with made("role-missing-rights") as one:
        account, iam = Account(one, tmp_path), client(one.url, "iam")
        with pytest.raises(ClientError, match="Could not assume role"):
            account.train("true", RoleArn="arn:aws:iam::123456789012:role/nobody")
        trust = {"Effect": "Allow", "Principal": {"Service": "sagemaker.amazonaws.com"}, "Action": "sts:AssumeRole"}
        role = iam.create_role(
            RoleName="jobs", AssumeRolePolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [trust]})
        )["Role"]
        told = account.trained(account.train("true", RoleArn=role["Arn"]))
        assert told["TrainingJobStatus"] == "Failed"
        assert told["FailureReason"].startswith("ClientError: AccessDenied (403)")
        everything = {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}
        iam.put_role_policy(
            RoleName="jobs",
            PolicyName="s3",
            PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [everything]}),
        )
        account.number += 1000
        assert account.trained(account.train("true", RoleArn=role["Arn"]))["TrainingJobStatus"] == "Completed"


def test_a_platform_that_ends_leaves_no_process_and_no_file(tmp_path: Path) -> None:
    one = made()
    with one:
        account = Account(one, tmp_path)
        mark = uuid.uuid4().hex
        name = account.train(DEAF, Environment={"MARK": mark})
        until(lambda: "ready" in account.said("Training", name))
        assert with_mark(mark)
    assert with_mark(mark) == []
    assert not one.root.exists()


def test_jobs_of_before_are_known_and_what_was_not_over_has_failed(tmp_path: Path) -> None:
    with platform(state=tmp_path / "state") as one:
        account = Account(one, tmp_path)
        done = account.trained(account.train("true", HyperParameters={"a": "1"}))
        account.number += 1000
        broken = account.train("sleep 1000")
    with platform(state=tmp_path / "state") as one:
        account.platform = one
        account.__post_init__()
        told = account.sagemaker.describe_training_job(TrainingJobName=done["TrainingJobName"])
        assert {**told, "ResponseMetadata": 0} == {**done, "ResponseMetadata": 0}
        told = account.sagemaker.describe_training_job(TrainingJobName=broken)
        assert told["FailureReason"].startswith("InternalServerError")
