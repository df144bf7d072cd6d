"""Approval against the platform alone: a person approves with boto3, and `mme release follow` acts on the event."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from container.operate.exits import Exit
from container.operate.main import main
from container.operate.release.follow import rule_template
from container.operate.release.live import read_current
from container.operate.release.place import place_at
from container.operate.release.registry import Registry
from container.platform.platform import Platform
from tests.container.platform.jobs.conftest import until
from tests.rig.faulty_s3 import ENVIRONMENT
from tests.rig.platform import client, platform
from tests.rig.shop import Shop


@pytest.fixture(scope="module", params=[(), ("double-events",)], ids=["told once", "told twice"])
def made(request: pytest.FixtureRequest) -> Iterator[Platform]:
    with platform(traps=request.param) as one:
        yield one


class Loop:
    """A shop on the platform's S3, a queue of its group's approvals, and a follower that is started anew each time."""

    def __init__(self, made: Platform, capsys: pytest.CaptureFixture[str]) -> None:
        self._made = made
        self._capsys = capsys
        self.group = f"prices-{uuid.uuid4().hex[:8]}"
        self.sagemaker, self._sqs = client(made.url, "sagemaker"), client(made.url, "sqs")
        events = client(made.url, "events")
        client(made.url, "s3").create_bucket(Bucket=self.group)
        self.live = f"s3://{self.group}/live/"
        self.shop = Shop(place_at(self.live, None, made.url))
        self.queue = self._sqs.create_queue(QueueName=self.group)["QueueUrl"]
        rule = rule_template(self.group)["Resources"]["Rule"]["Properties"]
        arn = self._sqs.get_queue_attributes(QueueUrl=self.queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        events.put_rule(Name=self.group, EventPattern=json.dumps(rule["EventPattern"]))
        events.put_targets(Rule=self.group, Targets=[{"Id": "queue", "Arn": arn}])

    def register(self, models: dict[str, str]) -> str:
        manifest = self.shop.candidate(models)
        return Registry(self.sagemaker, self.shop.place).register(manifest, self.group, "image")

    def follow(self, n_events: int) -> str:
        """What a follower said once so many events were in its queue."""
        n_told = n_events * (2 if self._made.traps.is_on("double-events") else 1)

        def waiting() -> int:
            told = self._sqs.get_queue_attributes(QueueUrl=self.queue, AttributeNames=["ApproximateNumberOfMessages"])
            return int(told["Attributes"]["ApproximateNumberOfMessages"])

        until(lambda: waiting() == n_told)
        self._capsys.readouterr()
        words = ("--of", self.live, "--registry", self.group, "--queue", self.queue, "--once")
        assert main(["release", "follow", *words]) == Exit.OK
        assert waiting() == 0
        return self._capsys.readouterr().out

    @property
    def revision(self) -> int:
        return read_current(self.shop.place.shelf).revision


@pytest.fixture
def loop(made: Platform, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Loop]:
    for name, value in {**ENVIRONMENT, "AWS_ENDPOINT_URL": made.url}.items():
        monkeypatch.setenv(name, value)
    loop = Loop(made, capsys)
    yield loop
    loop.shop.place.close()


def test_an_approval_goes_live_and_a_rejection_takes_it_back(loop: Loop) -> None:
    approve: Any = loop.sagemaker.update_model_package
    first = loop.register({"a.tar.gz": "a1"})
    assert "waiting" in loop.follow(1)
    approve(ModelPackageArn=first, ModelApprovalStatus="Approved", ApprovalDescription="better by 3 %")
    assert "approved" in loop.follow(1)
    assert loop.shop.live() == {"a.tar.gz": "a1"}
    second = loop.register({"a.tar.gz": "a2"})
    approve(ModelPackageArn=second, ModelApprovalStatus="Approved")
    loop.follow(2)
    assert loop.shop.live() == {"a.tar.gz": "a2"}
    revision = loop.revision
    approve(ModelPackageArn=second, CustomerMetadataProperties={"seen": "by all"})
    assert "ignored" in loop.follow(1)
    assert loop.revision == revision
    approve(ModelPackageArn=second, ModelApprovalStatus="Rejected")
    assert "rejected" in loop.follow(1)
    assert loop.shop.live() == {"a.tar.gz": "a1"}
