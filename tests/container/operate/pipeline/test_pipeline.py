"""The loop as SageMaker's own descriptions take it, made once or many times; and on this machine."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.validate import validate_parameters
from moto import mock_aws

from container.operate.exits import Exit
from container.operate.main import main
from container.operate.pipeline.applying import Clients, apply
from container.operate.pipeline.local import run_whenever
from container.operate.tables.files import DataFile
from tests.container.operate.train.test_run import N_SEGMENTS, table, write
from tests.rig.faulty_s3 import ENVIRONMENT

ROLE = "arn:aws:iam::123456789012:role/r"
WORDS = [
    *("--data", "s3://rows/prices/", "--segment-column", "city", "--label", "price", "--to", "s3://acme/prod/"),
    *("--set", "eta=0.1", "--condition", "worse<=0.02,failed<=5%"),
]
ON_AWS = ["--registry", "prices", "--role", ROLE, "--image", "image:1", "--name", "loop"]


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> Any:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    with mock_aws():
        for bucket in ("acme", "rows"):
            boto3.client("s3").create_bucket(Bucket=bucket)
        yield


def test_each_step_is_what_sagemaker_takes(account: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pipeline", "show", *WORDS, *ON_AWS]) == Exit.OK
    definition = json.loads(capsys.readouterr().out)
    train, judge, decide = definition["Steps"]
    register = decide["Arguments"]["IfSteps"][0]
    words = register["Arguments"]["AppSpecification"]["ContainerArguments"]
    assert words[2]["Std:JsonGet"]["Path"] == "release"  # of what was judged
    words[2] = "20261129-213503-e638de33"
    model = boto3.client("sagemaker").meta.service_model
    for step, operation, name in (
        (train, "CreateTrainingJob", "TrainingJobName"),
        (judge, "CreateProcessingJob", "ProcessingJobName"),
        (register, "CreateProcessingJob", "ProcessingJobName"),
    ):
        validate_parameters({name: "it", **step["Arguments"]}, model.operation_model(operation).input_shape)
    assert train["Arguments"]["HyperParameters"] == {
        "data": "s3://rows/prices/",
        "segment-column": "city",
        "label": "price",
        "to": "s3://acme/prod/",
        "eta": "0.1",
    }
    conditions = decide["Arguments"]["Conditions"]
    assert [(one["LeftValue"]["Std:JsonGet"]["Path"], one["RightValue"]) for one in conditions] == [
        ("worse", 0.02), ("failed", 0.05)
    ]  # fmt: skip
    assert judge["DependsOn"] == ["Train"]
    assert judge["PropertyFiles"][0]["OutputName"] == "figures"


def test_made_twice_it_is_as_it_was_and_what_changes_is_changed(
    account: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    def outcomes(*more: str) -> list[str]:
        assert main(["pipeline", "apply", *WORDS, *ON_AWS, *more]) == Exit.OK
        lines = capsys.readouterr().out.splitlines()
        # moto keeps a bucket's EventBridgeConfiguration and never tells it: see the test after this.
        return [next(word for word in ("as it was", "changed", "made") if word in line) for line in lines[:2]]

    assert outcomes() == ["made", "made"]
    assert outcomes() == ["as it was"] * 2
    assert outcomes("--instances", "2") == ["changed", "as it was"]
    assert outcomes("--instances", "2", "--when", ".parquet") == ["as it was", "changed"]
    rule = boto3.client("events").describe_rule(Name="loop")
    key = json.loads(rule["EventPattern"])["detail"]["object"]["key"]
    assert key == [{"wildcard": "prices/*.parquet"}]
    (target,) = boto3.client("events").list_targets_by_rule(Rule="loop")["Targets"]
    assert target["Arn"] == boto3.client("sagemaker").describe_pipeline(PipelineName="loop")["PipelineArn"]


def test_it_is_found_behind_many_whose_names_begin_as_its_own(account: Any) -> None:
    sagemaker = boto3.client("sagemaker")
    sagemaker.meta.events.register(  # SageMaker tells ten at a time where moto tells all
        "provide-client-params.sagemaker.ListPipelines", lambda params, **_: {"MaxResults": 10, **params}
    )
    for n in range(12):
        sagemaker.create_pipeline(
            PipelineName=f"loop-{n}", PipelineDefinition="{}", RoleArn=ROLE, ClientRequestToken=f"{n:032}"
        )
    clients = Clients(sagemaker, boto3.client("events"), boto3.client("s3"))
    made = [apply(clients, "loop", "{}", ROLE, '{"source": ["aws.s3"]}', "rows").pipeline for _ in range(2)]
    assert made == ["made", "as it was"]


def test_a_bucket_keeps_what_else_it_tells(account: Any) -> None:
    class Bucket:
        def __init__(self) -> None:
            self.kept: dict[str, Any] = {
                "TopicConfigurations": [{"TopicArn": "arn:x", "Events": ["s3:ObjectCreated:*"]}]
            }
            self.n_puts = 0

        def get_bucket_notification_configuration(self, Bucket: str) -> dict[str, Any]:  # noqa: N803
            return {**self.kept, "ResponseMetadata": {}}

        def put_bucket_notification_configuration(self, Bucket: str, NotificationConfiguration: dict[str, Any]) -> None:  # noqa: N803
            self.kept = NotificationConfiguration
            self.n_puts += 1

    bucket = Bucket()
    for outcome in ("changed", "as it was"):
        clients = Clients(boto3.client("sagemaker"), boto3.client("events"), bucket)
        assert apply(clients, "loop", "{}", ROLE, '{"source": ["aws.s3"]}', "rows").bucket == outcome
    assert bucket.n_puts == 1
    assert bucket.kept["TopicConfigurations"][0]["TopicArn"] == "arn:x"
    assert bucket.kept["EventBridgeConfiguration"] == {}


def local(tmp_path: Path, *more: str) -> list[str]:
    return [
        *("pipeline", "run", "--local", "--data", str(tmp_path / "data"), "--segment-column", "city", "--label", "y"),
        *("--to", str(tmp_path / "live"), "--set", "max_depth=3", *more),
    ]


def test_on_this_machine_what_is_good_goes_live_and_what_is_worse_does_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(table(), tmp_path / "data/a.parquet")
    assert main(local(tmp_path, "num_round=10")) == Exit.OK
    said = capsys.readouterr().out
    commands = [line.split()[2:4] for line in said.splitlines() if line.startswith("$")]
    assert [words[-1] if words[0] == "release" else words[0] for words in commands] == ["train", "diff", "approve"]
    live = {path.name: path.read_bytes() for path in (tmp_path / "live").rglob("*.tar.gz")}
    assert len(live) == N_SEGMENTS
    assert main(local(tmp_path, "num_round=1")) == Exit.FAILED
    assert "not live  worse is " in capsys.readouterr().out
    assert {path.name: path.read_bytes() for path in (tmp_path / "live").rglob("*.tar.gz")} == live
    assert main(local(tmp_path, "num_round=40")) == Exit.OK
    assert {path.name: path.read_bytes() for path in (tmp_path / "live").rglob("*.tar.gz")} != live


def test_it_runs_once_for_each_state_of_the_data_that_was_seen_twice() -> None:
    def files(*names: str) -> tuple[DataFile, ...]:
        return tuple(DataFile(name, 1, "1", "x", "csv") for name in names)

    looks = [files(), files("a"), files("a", "b"), files("a", "b"), files("a", "b"), files("a"), files("a")]
    stop = threading.Event()
    ran: list[int] = []

    def look() -> tuple[DataFile, ...]:
        if len(looks) == 1:
            stop.set()
        return looks.pop(0)

    run: Callable[[], object] = lambda: ran.append(len(looks))  # noqa: E731
    run_whenever(look, run, stop, 0)
    assert ran == [3, 0]
