"""The same command as a Training job, asked of moto's SageMaker and of botocore's own description."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import EndpointConnectionError
from botocore.validate import validate_parameters
from moto import mock_aws

from container.operate.exits import Exit
from container.operate.main import main
from container.operate.train import starting
from container.operate.train.job import training_job_at
from container.operate.troubles import Stopped
from tests.rig.faulty_s3 import ENVIRONMENT

WORDS = [
    *("train", "--data", "s3://rows/2026/", "s3://rows/2027/", "--segment-column", "city", "--label", "price"),
    *("--to", "s3://acme/prod/", "--set", "eta=0.1", "num_round=20", "--fallback-below", "50", "--no-header"),
    *(
        "--job",
        "--plan",
        "--role",
        "arn:aws:iam::123456789012:role/r",
        "--image",
        "image:1",
        "--spot",
        "--instances",
        "2",
    ),
]


@pytest.fixture
def region(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


def planned(capsys: pytest.CaptureFixture[str], *more: str) -> dict[str, Any]:
    assert main([*WORDS, *more]) == Exit.OK
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_a_plan_is_what_sagemaker_takes_and_a_job_reads_back(
    region: None, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with mock_aws():
        boto3.client("s3").create_bucket(Bucket="acme")
        (tmp_path / "p.toml").write_text("max_depth = 3\n")
        request = planned(capsys, "--params", str(tmp_path / "p.toml"))
        shape = boto3.client("sagemaker").meta.service_model.operation_model("CreateTrainingJob").input_shape
        validate_parameters(request, shape)
        (channel,) = request["InputDataConfig"]
        listed = boto3.client("s3").list_objects_v2(Bucket="acme", Prefix="prod.releases/params/")["Contents"]
        assert channel["DataSource"]["S3DataSource"]["S3Uri"] in f"s3://acme/{listed[0]['Key']}"
    assert request["EnableManagedSpotTraining"]
    assert request["StoppingCondition"]["MaxWaitTimeInSeconds"] > request["StoppingCondition"]["MaxRuntimeInSeconds"]
    config = tmp_path / "ml/input/config"
    config.mkdir(parents=True)
    (config / "resourceconfig.json").write_text(json.dumps({"current_host": "algo-2", "hosts": ["algo-1", "algo-2"]}))
    (config / "hyperparameters.json").write_text(json.dumps(request["HyperParameters"]))
    (tmp_path / "ml/input/data/params").mkdir(parents=True)
    (tmp_path / "ml/input/data/params/p.toml").write_text("max_depth = 3\n")
    job = training_job_at(tmp_path / "ml")
    assert job is not None
    known = {"data", "to", "segment-column", "label", "fallback-below", "no-header"}
    assert sorted(job.flags(known)) == sorted(
        [
            *(
                "--data",
                "s3://rows/2026/",
                "s3://rows/2027/",
                "--segment-column=city",
                "--label=price",
                "--to=s3://acme/prod/",
            ),
            *("--fallback-below=50", "--no-header", "--set", "eta=0.1", "num_round=20"),
            f"--params={tmp_path / 'ml/input/data/params/p.toml'}",
        ]
    )


@pytest.mark.parametrize(
    ("replaced", "by"),
    [
        ("s3://rows/2026/", "rows"),
        ("s3://rows/2026/", "s3://rows/20 26/"),
        ("s3://acme/prod/", "prod"),
        ("image:1", ""),
    ],
)
def test_what_a_job_cannot_reach_is_told_before_it_starts(
    region: None, capsys: pytest.CaptureFixture[str], replaced: str, by: str
) -> None:
    assert main([by if word == replaced else word for word in WORDS]) == Exit.USAGE
    assert "job" in capsys.readouterr().err


class Told:
    """A client that tells one story after the other."""

    def __init__(self, *stories: dict[str, Any] | Exception) -> None:
        self._stories = list(stories)

    def describe_training_job(self, TrainingJobName: str) -> dict[str, Any]:  # noqa: N803
        story = self._stories.pop(0) if len(self._stories) > 1 else self._stories[0]
        if isinstance(story, Exception):
            raise story
        return story


def test_each_state_is_told_once_and_the_reason_of_a_failure_whether_or_not_sagemaker_always_answers(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def story(status: str, *states: str, **more: str) -> dict[str, Any]:
        return {"TrainingJobStatus": status, "SecondaryStatusTransitions": [{"Status": one} for one in states], **more}

    gone = EndpointConnectionError(endpoint_url="https://sagemaker")
    client = Told(story("InProgress", "Starting"), gone, story("InProgress", "Starting", "Training"),
                  story("Completed", "Starting", "Training", "Completed"))  # fmt: skip
    starting.follow(client, "it", threading.Event(), poll_s=0)
    printed = capsys.readouterr()
    assert "Could not connect" in printed.err
    assert [line.split() for line in printed.out.splitlines()] == [
        ["job", "Starting"], ["job", "Training"], ["job", "Completed"]
    ]  # fmt: skip
    with pytest.raises(starting.JobFailed, match="no rows"):
        starting.follow(Told(story("Failed", FailureReason="no rows")), "it", threading.Event())
    stop = threading.Event()
    stop.set()
    with pytest.raises(Stopped, match="goes on"):
        starting.follow(Told(story("InProgress")), "it", stop)
