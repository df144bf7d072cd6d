"""The whole loop on the platform: rows come to a bucket, the rule of `mme pipeline apply` starts its pipeline, whose steps
run as jobs, a person approves with boto3, an endpoint answers with the new model, and after a rejection with the old one.
"""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import xgboost

from container.operate.exits import Exit
from container.operate.main import main
from container.operate.pipeline.applying import pattern_of
from container.operate.release.follow import rule_template
from handler.archives.limits import Limits
from handler.archives.members import read_artifact
from tests.container.operate.train.test_run import NAMES, table
from tests.container.platform.jobs.conftest import until
from tests.rig.endpoint import Endpoint
from tests.rig.faulty_s3 import ENVIRONMENT
from tests.rig.platform import ROLE, client, platform

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

GROUP, NAME = "prices", "prices-loop"
HOUSE = [0.1, 0.9, 0.4, 0.7]
TARGET = "us/c1.tar.gz"
RUN_S = 200.0  # for three jobs one after the other, on a busy machine


class Loop:
    """An account with a bucket of rows, a pipeline, and a queue of approvals."""

    def __init__(self, url: str, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.s3, self.sagemaker, self.sqs, self.events = (
            client(url, one) for one in ("s3", "sagemaker", "sqs", "events")
        )
        for bucket in ("rows", "acme"):
            self.s3.create_bucket(Bucket=bucket)
        self.approvals = self._queue("approvals")
        rule = rule_template(GROUP)["Resources"]["Rule"]["Properties"]
        self.events.put_rule(Name=GROUP, EventPattern=json.dumps(rule["EventPattern"]))
        self.events.put_targets(Rule=GROUP, Targets=[{"Id": "queue", "Arn": self._arn(self.approvals)}])
        self.n_arrivals = 0
        self.pattern, _ = pattern_of("s3://rows/prices/", "_SUCCESS")

    def _queue(self, name: str) -> str:
        url: str = self.sqs.create_queue(QueueName=name)["QueueUrl"]
        return url

    def _arn(self, queue: str) -> str:
        told = self.sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])
        arn: str = told["Attributes"]["QueueArn"]
        return arn

    def said(self, *words: str) -> str:
        self._capsys.readouterr()
        assert main(words) == Exit.OK
        return self._capsys.readouterr().out

    def apply(self, n_rounds: int) -> None:
        """The pipeline as it is to be now."""
        self.said(
            *(
                "pipeline",
                "apply",
                "--name",
                NAME,
                "--data",
                "s3://rows/prices/",
                "--segment-column",
                "city",
                "--label",
                "y",
            ),
            *(
                "--target",
                "us/{city}.tar.gz",
                "--to",
                "s3://acme/prod/",
                "--set",
                f"num_round={n_rounds}",
                "max_depth=3",
            ),
            *("--registry", GROUP, "--role", ROLE, "--image", "image:1", "--instances", "2", "--spot"),
        )
        assert self.events.describe_rule(Name=NAME)["EventPattern"] == self.pattern

    def rows_arrive(self, seed: int) -> None:
        self.n_arrivals += 1
        body = io.BytesIO()
        pq.write_table(table(seed=seed), body)
        self.s3.put_object(Bucket="rows", Key="prices/a.parquet", Body=body.getvalue())
        self.s3.put_object(Bucket="rows", Key="prices/_SUCCESS", Body=b"")

    def run_pipeline(self) -> str:
        """What the rows' arrival has started, to its end; the package that came of it."""
        executions = self.sagemaker.list_pipeline_executions(PipelineName=NAME)["PipelineExecutionSummaries"]
        assert len(executions) == self.n_arrivals
        arn = executions[0]["PipelineExecutionArn"]
        until(lambda: self._status(arn) not in ("Executing", "Stopping"), RUN_S)
        steps = self.sagemaker.list_pipeline_execution_steps(PipelineExecutionArn=arn, SortOrder="Ascending")
        found = {one["StepName"]: one["StepStatus"] for one in steps["PipelineExecutionSteps"]}
        assert found == dict.fromkeys(("Train", "Judge", "Decide", "Register"), "Succeeded"), steps
        assert self._status(arn) == "Succeeded"
        packages = self.sagemaker.list_model_packages(ModelPackageGroupName=GROUP)["ModelPackageSummaryList"]
        pending = [one["ModelPackageArn"] for one in packages if one["ModelApprovalStatus"] == "PendingManualApproval"]
        assert len(pending) == 1
        return str(pending[0])

    def _status(self, arn: str) -> str:
        told = self.sagemaker.describe_pipeline_execution(PipelineExecutionArn=arn)
        return str(told["PipelineExecutionStatus"])

    def decide(self, package: str, status: str) -> None:
        """As a person does, and what follows it."""
        self.sagemaker.update_model_package(ModelPackageArn=package, ModelApprovalStatus=status)
        until(lambda: self._n_waiting() > 0)
        words = ("--of", "s3://acme/prod/", "--registry", GROUP, "--queue", self.approvals, "--once")
        self.said("release", "follow", *words)

    def _n_waiting(self) -> int:
        told = self.sqs.get_queue_attributes(QueueUrl=self.approvals, AttributeNames=["ApproximateNumberOfMessages"])
        return int(told["Attributes"]["ApproximateNumberOfMessages"])

    def live_answer(self) -> np.float32:
        """XGBoost's own, of what lies on the live key."""
        data = self.s3.get_object(Bucket="acme", Key=f"prod/{TARGET}")["Body"].read()
        (member,) = read_artifact(data, "it", Limits())
        booster = xgboost.Booster(model_file=bytearray(member.data))
        rows = xgboost.DMatrix(np.array([HOUSE], np.float32), feature_names=list(NAMES))
        return np.float32(booster.predict(rows)[0])


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Loop]:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    with platform(speed=600.0) as played:
        monkeypatch.setenv("AWS_ENDPOINT_URL", played.url)
        yield Loop(played.url, capsys)


@pytest.mark.timeout(300)
def test_rows_become_answers_and_a_rejection_brings_the_old_ones_back(loop: Loop) -> None:
    loop.apply(n_rounds=3)
    loop.rows_arrive(seed=0)
    loop.decide(loop.run_pipeline(), "Approved")
    first = loop.live_answer()
    scratch = Path(tempfile.mkdtemp(prefix="tl-", dir="/tmp"))
    with Endpoint("s3://acme/prod/", scratch, "--max-age", "1") as endpoint:

        def answer() -> np.float32:
            return np.float32(endpoint.post(TARGET, ",".join(map(str, HOUSE))).body)

        assert answer() == first
        loop.apply(n_rounds=30)
        loop.rows_arrive(seed=1)
        package = loop.run_pipeline()
        assert loop.live_answer() == first  # until somebody has approved it
        loop.decide(package, "Approved")
        second = loop.live_answer()
        assert second != first
        until(lambda: answer() == second)
        loop.decide(package, "Rejected")
        assert loop.live_answer() == first
        until(lambda: answer() == first)
    scratch.rmdir()
