"""Approvals in the Model Registry, on moto over HTTP: registry, rule, queue and S3 behind one address."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import boto3
import pytest
from botocore.config import Config
from moto.server import ThreadedMotoServer

from container.operate.exits import Exit
from container.operate.main import main
from container.operate.release.diff import Gate
from container.operate.release.follow import Follower, follow, rule_template
from container.operate.release.live import read_current, read_history
from container.operate.release.manifest import Manifest
from container.operate.release.place import place_at
from container.operate.release.registry import Registry
from container.operate.troubles import Misused, Refused
from tests.rig.shop import Shop

APPROVED, REJECTED, PENDING = "Approved", "Rejected", "PendingManualApproval"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@dataclass
class Console:
    """A person in the console, and AWS between them and the queue."""

    url: str
    shop: Shop
    group: str = field(default_factory=lambda: f"prices-{uuid.uuid4().hex[:8]}")
    said: list[tuple[str, str]] = field(default_factory=list)
    clock: int = 0

    def __post_init__(self) -> None:
        self.sagemaker = boto3.client("sagemaker", endpoint_url=self.url)
        self.sqs = boto3.client("sqs", endpoint_url=self.url)
        self.events = boto3.client("events", endpoint_url=self.url)
        self.queue = self.sqs.create_queue(QueueName=self.group)["QueueUrl"]
        rule = rule_template(self.group)["Resources"]["Rule"]["Properties"]
        self.events.put_rule(Name=self.group, EventPattern=json.dumps(rule["EventPattern"]))
        arn = self.sqs.get_queue_attributes(QueueUrl=self.queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        self.events.put_targets(Rule=self.group, Targets=[{"Id": "queue", "Arn": arn}])
        self.registry = Registry(self.sagemaker, self.shop.place)

    def register(self, manifest: Manifest) -> str:
        return self.registry.register(manifest, self.group, "123456789012.dkr.ecr.us-east-1.amazonaws.com/mme:1")

    def decide(self, arn: str, status: str, *, is_told: bool = True) -> dict[str, Any]:
        """Set the approval; the event that AWS then sends, sent."""
        self.sagemaker.update_model_package(ModelPackageArn=arn, ModelApprovalStatus=status)
        event = self.event(arn, status, ["ModelApprovalStatus"])
        if is_told:
            self.send(event)
        return event

    def event(self, arn: str, status: str, updated: list[str] | None) -> dict[str, Any]:
        """As the developer guide has it (automating-sagemaker-with-eventbridge), with the field that today's events carry."""
        self.clock += 1
        detail = {
            "ModelPackageGroupName": self.group,
            "ModelPackageVersion": int(arn.rpartition("/")[2]),
            "ModelPackageArn": arn,
            "CreationTime": "2026-11-29T17:00:14Z",
            "InferenceSpecification": {
                "Containers": [
                    {"Image": "i", "ImageDigest": "sha256:0", "ModelDataUrl": "s3://elsewhere/model.tar.gz"}
                ],
                "SupportedContentTypes": ["text/csv"],
            },
            "ModelPackageStatus": "Completed",
            "CertifyForMarketplace": False,
            "ModelApprovalStatus": status,
            "MetadataProperties": {"GeneratedBy": "arn:aws:iam::123456789012:user/ann"},
            "LastModifiedTime": "2026-11-29T17:00:14Z",
        }
        if updated is not None:
            detail["UpdatedModelPackageFields"] = updated
        return {
            "version": "0",
            "id": str(uuid.uuid4()),
            "detail-type": "SageMaker Model Package State Change",
            "source": "aws.sagemaker",
            "account": "123456789012",
            "time": f"2026-11-29T18:{self.clock // 60:02}:{self.clock % 60:02}Z",
            "region": "us-east-1",
            "resources": [arn],
            "detail": detail,
        }

    def send(self, *events: dict[str, Any]) -> None:
        for event in events:
            self.sqs.send_message(QueueUrl=self.queue, MessageBody=json.dumps(event))

    def put_event(self, event: dict[str, Any]) -> None:
        """Through the rule."""
        entry = {"Source": event["source"], "DetailType": event["detail-type"], "Detail": json.dumps(event["detail"])}
        answer = self.events.put_events(Entries=[entry | {"Resources": event["resources"]}])
        assert answer["FailedEntryCount"] == 0

    def follow(self) -> int:
        """A follower that is started, takes what there is, and ends."""
        self.said.clear()
        follower = Follower(
            self.shop.place, self.registry, self.group, "the follower", Gate(), lambda *said: self.said.append(said)
        )
        return follow(self.sqs, self.queue, follower, lambda: False, once=True)

    @property
    def revision(self) -> int:
        return read_current(self.shop.place.shelf).revision


@pytest.fixture
def console(url: str, made_up: None) -> Iterator[Console]:
    bucket = f"b-{uuid.uuid4().hex[:12]}"
    boto3.client("s3", endpoint_url=url).create_bucket(Bucket=bucket)
    place = place_at(f"s3://{bucket}/live/", None, url)
    yield Console(url, Shop(place))
    place.close()


def test_a_release_is_one_pending_package_whose_archive_is_the_manifest(console: Console) -> None:
    manifest = console.shop.candidate({"a.tar.gz": "a1"})
    arn = console.register(manifest)
    told = console.sagemaker.describe_model_package(ModelPackageName=arn)
    assert (told["ModelApprovalStatus"], told["ModelPackageVersion"]) == (PENDING, 1)
    assert told["CustomerMetadataProperties"]["mme.release"] == manifest.id
    package = console.registry.package(arn)
    assert package is not None
    assert (package.release, package.group) == (manifest.id, console.group)
    assert console.register(manifest) == arn
    assert (
        len(console.sagemaker.list_model_packages(ModelPackageGroupName=console.group)["ModelPackageSummaryList"]) == 1
    )


def test_what_is_approved_goes_live_and_what_is_rejected_after_that_is_taken_back(console: Console) -> None:
    first = console.shop.candidate({"a.tar.gz": "a1"})
    second = console.shop.candidate({"a.tar.gz": "a2", "b.tar.gz": "b2"})
    packages = [console.register(one) for one in (first, second)]
    console.decide(packages[0], APPROVED)
    assert console.follow() == 0
    assert console.shop.live() == {"a.tar.gz": "a1"}
    console.decide(packages[1], APPROVED)
    console.follow()
    assert console.shop.live() == {"a.tar.gz": "a2", "b.tar.gz": "b2"}
    console.decide(packages[1], REJECTED)
    console.follow()
    assert console.shop.live() == {"a.tar.gz": "a1"}
    history = read_history(console.shop.place.shelf, read_current(console.shop.place.shelf), 10)
    assert [change.action for change in history] == ["reject", "rollback", "approve", "approve"]
    assert "Rejected in the Model Registry" in history[0].note
    console.decide(packages[1], APPROVED)
    console.follow()
    assert console.shop.live() == {"a.tar.gz": "a2", "b.tar.gz": "b2"}


def test_a_doubled_event_is_acted_on_once(console: Console) -> None:
    arn = console.register(console.shop.candidate({"a.tar.gz": "a1"}))
    console.send(*[console.decide(arn, APPROVED)] * 3)
    console.follow()
    assert console.revision == 1
    assert [word for word, _ in console.said] == ["approved", "ignored", "ignored", "ignored"]


def test_an_event_that_comes_again_after_another_approval_does_not_bring_the_old_one_back(console: Console) -> None:
    first, second = (console.shop.candidate({"a.tar.gz": text}) for text in ("a1", "a2"))
    packages = [console.register(one) for one in (first, second)]
    again = console.decide(packages[0], APPROVED)
    console.follow()
    console.decide(packages[1], APPROVED)
    console.follow()
    console.send(again)
    console.follow()
    assert console.shop.live() == {"a.tar.gz": "a2"}
    assert console.revision == 2


def test_approvals_that_come_in_the_other_order_end_with_the_later_one(console: Console) -> None:
    first, second = (console.shop.candidate({"a.tar.gz": text}) for text in ("a1", "a2"))
    packages = [console.register(one) for one in (first, second)]
    earlier = console.decide(packages[0], APPROVED, is_told=False)
    later = console.decide(packages[1], APPROVED, is_told=False)
    console.send(later)
    console.follow()
    console.send(earlier)
    console.follow()
    assert console.shop.live() == {"a.tar.gz": "a2"}
    assert console.said == [("ignored", f"{first.id} was approved before what is live now")]


def test_a_rejection_that_overtakes_its_approval_leaves_it_rejected(console: Console) -> None:
    arn = console.register(console.shop.candidate({"a.tar.gz": "a1"}))
    approved = console.decide(arn, APPROVED, is_told=False)
    rejected = console.decide(arn, REJECTED, is_told=False)
    for event in (rejected, approved):
        console.send(event)
        console.follow()
    assert console.shop.live() == {}


def test_only_a_changed_approval_is_acted_on(console: Console) -> None:
    arn = console.register(console.shop.candidate({"a.tar.gz": "a1"}))
    console.decide(arn, APPROVED, is_told=False)
    for updated in (["ModelLifeCycle"], ["CustomerMetadataProperties"], []):
        console.send(console.event(arn, APPROVED, updated))
    console.follow()
    assert console.shop.live() == {}
    console.send(console.event(arn, APPROVED, None))  # as the guide's own example, which has no such field
    console.follow()
    assert console.shop.live() == {"a.tar.gz": "a1"}


def test_what_is_pending_waits_and_may_be_approved_again(console: Console) -> None:
    arn = console.register(console.shop.candidate({"a.tar.gz": "a1"}))
    console.decide(arn, PENDING)
    console.follow()
    assert console.shop.live() == {}
    assert console.said[0][0] == "waiting"
    console.decide(arn, APPROVED)
    console.follow()
    assert console.shop.live() == {"a.tar.gz": "a1"}


FIELDS = (
    '{"detail-type": "SageMaker Model Package State Change", "source": "aws.sagemaker", '
    '"detail": {"ModelPackageArn": "arn:aws:x", "UpdatedModelPackageFields": 7}}'
)


@pytest.mark.parametrize(
    "body",
    ["", "no json", "[]", "{}", '{"detail-type": 1, "source": 2, "detail": 3}', "null", "[" * 100_000, FIELDS],
    ids=lambda body: body[:20],
)
def test_what_is_no_event_of_ours_is_put_away(console: Console, body: str) -> None:
    if body:
        console.sqs.send_message(QueueUrl=console.queue, MessageBody=body)
    else:
        console.send(
            console.event("arn:aws:sagemaker:us-east-1:1:model-package/x/1", APPROVED, None) | {"source": "me"}
        )
    assert console.follow() == 0
    assert [word for word, _ in console.said] == ["ignored"]
    assert console.follow() == 0
    assert console.said == []


def test_a_package_of_another_place_is_none_of_ours(console: Console) -> None:
    console.sagemaker.create_model_package_group(ModelPackageGroupName=console.group)
    arn = console.sagemaker.create_model_package(
        ModelPackageGroupName=console.group,
        InferenceSpecification={
            "Containers": [{"Image": "i", "ModelDataUrl": "s3://elsewhere/model.tar.gz"}],
            "SupportedContentTypes": ["text/csv"],
        },
    )["ModelPackageArn"]
    console.decide(arn, APPROVED)
    assert console.follow() == 0
    assert "is no release of" in console.said[0][1]


def test_what_cannot_be_acted_on_stays_in_the_queue(console: Console) -> None:
    console.shop.by_hand("a.tar.gz", "mine")
    arn = console.register(console.shop.candidate({"a.tar.gz": "a1"}))
    console.decide(arn, APPROVED)
    assert console.follow() == 1
    assert console.shop.live() == {"a.tar.gz": "mine"}
    console.shop.by_hand("a.tar.gz", None)
    attributes = console.sqs.get_queue_attributes(QueueUrl=console.queue, AttributeNames=["All"])["Attributes"]
    assert attributes["ApproximateNumberOfMessagesNotVisible"] == "1"


def test_a_follower_killed_before_its_note_does_no_harm_when_it_starts_again(
    console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (console.shop.candidate({"a.tar.gz": text}) for text in ("a1", "a2"))
    packages = [console.register(one) for one in (first, second)]
    for arn, status in ((packages[0], APPROVED), (packages[1], APPROVED), (packages[1], REJECTED)):
        event = console.decide(arn, status)
        with monkeypatch.context() as patch:
            patch.setattr(Follower, "_note", _killed)
            with pytest.raises(KeyboardInterrupt):
                console.follow()
        live, revision = console.shop.live(), console.revision
        console.send(event)  # the queue shows again what nobody has deleted
        console.follow()
        assert (console.shop.live(), console.revision) == (live, revision)
    assert console.shop.live() == {"a.tar.gz": "a1"}


def _killed(*_: object) -> None:
    raise KeyboardInterrupt


def test_the_printed_rule_lets_approvals_through_and_nothing_else(console: Console) -> None:
    arn = console.register(console.shop.candidate({"a.tar.gz": "a1"}))
    event = console.decide(arn, APPROVED, is_told=False)
    console.put_event(event)
    console.put_event(event | {"detail-type": "SageMaker Endpoint State Change"})
    console.put_event(event | {"detail": event["detail"] | {"ModelPackageGroupName": "another"}})
    console.follow()
    assert [word for word, _ in console.said] == ["approved"]
    assert console.shop.live() == {"a.tar.gz": "a1"}


def test_a_queue_that_is_none_is_said(console: Console) -> None:
    console.queue += "-none"
    with pytest.raises(Refused, match="does not exist"):
        console.follow()


def test_a_queue_that_does_not_answer_is_asked_again(console: Console) -> None:
    arn = console.register(console.shop.candidate({"a.tar.gz": "a1"}))
    console.decide(arn, APPROVED)
    paused: list[float] = []
    nobody = boto3.client("sqs", endpoint_url="http://127.0.0.1:1", config=Config(retries={"total_max_attempts": 1}))
    follower = Follower(console.shop.place, console.registry, console.group, "me", Gate(), lambda *_: None)
    assert follow(nobody, console.queue, follower, lambda: len(paused) == 3, once=False, pause=paused.append) == 0
    assert len(paused) == 3


def test_a_directory_has_no_registry(tmp_path: Any) -> None:
    with pytest.raises(Misused, match="lies in S3"):
        Registry(None, place_at(str(tmp_path / "live")))


def test_as_a_shell_sees_it(console: Console, capsys: pytest.CaptureFixture[str]) -> None:
    location = console.shop.place.location
    words = ["release", "follow", "--of", location, "--s3-endpoint-url", console.url, "--registry", console.group]
    assert main([*words, "--print-rule"]) == Exit.OK
    assert json.loads(capsys.readouterr().out) == rule_template(console.group)
    console.decide(console.register(console.shop.candidate({"a.tar.gz": "a1"})), APPROVED)
    assert main([*words, "--queue", console.queue, "--once"]) == Exit.OK
    assert capsys.readouterr().out.startswith("approved  ")
    assert console.shop.live() == {"a.tar.gz": "a1"}
