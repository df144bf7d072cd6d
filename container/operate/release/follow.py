"""Approval events of the Model Registry, taken from an SQS queue and acted on.

    console -> Model Registry -> EventBridge rule -> SQS queue -> here -> approve, or take back

Rule: an event only says that there is something to look at. What is done follows from what the package is now and from what
was done for it before, so that an event that comes twice, late, or for another reason changes nothing.

Source: SageMaker Developer Guide, "Automating Amazon SageMaker AI with Amazon EventBridge": several events may be sent for
each change. `UpdatedModelPackageFields` tells a changed approval from other changes; the guide's own example lacks it.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from container.operate.documents import read_as
from container.operate.release import shelf
from container.operate.release.approve import approve, reject
from container.operate.release.choice import Choice
from container.operate.release.diff import Gate
from container.operate.release.live import read_current
from container.operate.release.move import finish
from container.operate.release.place import Place
from container.operate.release.registry import APPROVED, REGISTERED, REJECTED, Package, Registry
from container.operate.release.rollback import take_back
from container.operate.release.trouble import aws_told
from container.operate.troubles import NotNow, Refused
from handler.errors import ArtifactError, ArtifactMissing
from handler.stores.writing import NOTHING

LOG = "mme.follow"
log = logging.getLogger(LOG)

DETAIL_TYPE = "SageMaker Model Package State Change"
SOURCE = "aws.sagemaker"
NEWEST = "newest-approval"
POLL_S = 5  # so long the queue is asked to wait, and so late a SIGTERM is heard
HIDDEN_S = 900  # for others, while it is acted on: an approval of 10,000 segments takes some 30 s
MOST_MESSAGES = 10


@dataclass(frozen=True, slots=True)
class Noted:
    """What was done last for a package. at: when its event says that it changed."""

    status: str
    at: str
    version: int = 0


class Follower:
    """group: whose packages; of others nothing is done. say: told each thing that is done, or is not and why."""

    def __init__(
        self, place: Place, registry: Registry, group: str, who: str, gate: Gate, say: Callable[[str, str], None]
    ) -> None:
        self._place = place
        self._registry = registry
        self._group = group
        self._who = who
        self._gate = gate
        self._say = say

    def act(self, body: str) -> None:
        """Act on one message. Raises Refused, NotNow, ArtifactError when it could not be, and is to come again."""
        event = _approval_event(body)
        if event is None:
            return self._say("ignored", "a message that is no change of a package's approval")
        detail = event["detail"]
        if detail.get("ModelPackageGroupName") != self._group:
            return self._say("ignored", f"a package of group {detail.get('ModelPackageGroupName')}")
        package = self._registry.package(detail["ModelPackageArn"])
        if package is None:
            return self._say("ignored", f"{detail['ModelPackageArn']} is no release of {self._place.location}")
        finish(self._place)
        key = f"{REGISTERED}{self._group}/{package.version}.done.json"
        before, over = self._noted(key)
        if before is not None and before.status == package.status:
            return self._say("ignored", f"{package.arn} is {package.status}, as before")
        at = str(event.get("time") or "")
        if package.status == APPROVED:
            self._approve(package, at)
        elif package.status == REJECTED:
            self._reject(package)
        else:
            self._say("waiting", f"{package.release} is {package.status}")
        self._note(key, Noted(package.status, at, package.version), over)
        return None

    def _approve(self, package: Package, at: str) -> None:
        key = f"{REGISTERED}{self._group}/{NEWEST}.json"
        newest, over = self._noted(key)
        if newest is not None and (at, package.version) < (newest.at, newest.version):
            return self._say("ignored", f"{package.release} was approved before what is live now")
        manifest = shelf.manifest(self._place.shelf, package.release)
        approval = approve(self._place, manifest, self._gate, Choice(), who=self._by(package), note=self._why(package))
        self._note(key, Noted(package.status, at, package.version), over)
        n_written = approval.moved.change.n_written if approval.moved else 0
        self._say("approved", f"{package.release}  {n_written:,} written")
        for row in approval.diff.kept_back:
            self._say("kept back", f"{row.key}: {row.kept_back}")
        return None

    def _reject(self, package: Package) -> None:
        """Taken back if anything of it is live. Killed in between, the next call finds the rest still to be done."""
        moved = take_back(self._place, package.release, who=self._by(package), note=self._why(package))
        current = read_current(self._place.shelf)
        if current.verdicts.get(package.release) != "reject":
            manifest = shelf.manifest(self._place.shelf, package.release)
            reject(self._place, manifest, self._by(package), self._why(package))
        n_moved = moved.change.n_written + moved.change.n_removed if moved else 0
        self._say("rejected", f"{package.release}  {n_moved:,} taken back")

    def _by(self, package: Package) -> str:
        return package.approved_by or self._who

    def _why(self, package: Package) -> str:
        said = f": {package.description}" if package.description else ""
        return f"{package.group}/{package.version} {package.status} in the Model Registry{said}"

    def _noted(self, key: str) -> tuple[Noted | None, str]:
        """With the version that the next note is written over."""
        with suppress(ArtifactMissing):
            fetched = self._place.shelf.fetch(key)
            return read_as(Noted, fetched.data, fetched.uri), fetched.version
        return None, NOTHING

    def _note(self, key: str, noted: Noted, over: str) -> None:
        self._place.shelf.put(key, json.dumps(asdict(noted)).encode(), over)


def follow(
    sqs: Any,
    queue_url: str,
    follower: Follower,
    is_over: Callable[[], bool],
    *,
    once: bool,
    pause: Callable[[float], object] = time.sleep,
) -> int:
    """Take messages until told that it is over, or with `once` until there are none; how many could not be acted on.

    What could not be acted on is left in the queue, which shows it again, and in the end puts it aside (its redrive policy).
    Raises Refused: there is no such queue; with `once` also NotNow.
    """
    n_failed = 0
    while not is_over():
        try:
            messages = _receive(sqs, queue_url, 0 if once else POLL_S)
        except NotNow as error:
            if once:
                raise
            log.warning("the queue does not answer: %s", error)
            pause(POLL_S)
            continue
        if once and not messages:
            break
        for message in messages:
            if is_over():
                _show_again(sqs, queue_url, message)
                continue
            try:
                follower.act(message["Body"])
            except (Refused, NotNow, ArtifactError) as error:
                n_failed += 1
                log.warning("a message is left in the queue: %s", error)
                if isinstance(error, NotNow):
                    _show_again(sqs, queue_url, message)
                continue
            with suppress(NotNow), aws_told():  # then it comes again, and changes nothing
                sqs.delete_message(QueueUrl=queue_url, ReceiptHandle=message["ReceiptHandle"])
    return n_failed


def _receive(sqs: Any, queue_url: str, wait_s: int) -> list[dict[str, Any]]:
    """Raises Refused: there is no such queue, or it may not be read; NotNow."""
    with aws_told():
        answer = sqs.receive_message(
            QueueUrl=queue_url,
            MaxNumberOfMessages=MOST_MESSAGES,
            WaitTimeSeconds=wait_s,
            VisibilityTimeout=HIDDEN_S,
        )
    messages: list[dict[str, Any]] = answer.get("Messages", [])
    return messages


def _show_again(sqs: Any, queue_url: str, message: dict[str, Any]) -> None:
    with suppress(NotNow), aws_told():
        sqs.change_message_visibility(
            QueueUrl=queue_url, ReceiptHandle=message["ReceiptHandle"], VisibilityTimeout=POLL_S
        )


def _approval_event(body: str) -> dict[str, Any] | None:
    """The event, when a package's approval may have changed."""
    try:
        event = json.loads(body)
        detail = event["detail"]
        is_ours = event["detail-type"] == DETAIL_TYPE and SOURCE in (event["source"], *event["source"])
        if not is_ours or not isinstance(detail["ModelPackageArn"], str):
            return None
        updated = detail.get("UpdatedModelPackageFields")
        if updated is not None and "ModelApprovalStatus" not in updated:
            return None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    whole: dict[str, Any] = event
    return whole


def rule_template(group: str) -> dict[str, Any]:
    """A CloudFormation template: the rule, its queue, and a queue for what could not be acted on five times."""
    return {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Description": f"Approvals in the model package group {group}, for mme release follow",
        "Resources": {
            "PutAside": {"Type": "AWS::SQS::Queue", "Properties": {"MessageRetentionPeriod": 1209600}},
            "Queue": {
                "Type": "AWS::SQS::Queue",
                "Properties": {
                    "VisibilityTimeout": HIDDEN_S,
                    "RedrivePolicy": {
                        "deadLetterTargetArn": {"Fn::GetAtt": ["PutAside", "Arn"]},
                        "maxReceiveCount": 5,
                    },
                },
            },
            "MayPut": {
                "Type": "AWS::SQS::QueuePolicy",
                "Properties": {
                    "Queues": [{"Ref": "Queue"}],
                    "PolicyDocument": {
                        "Version": "2012-10-17",
                        "Statement": [
                            {
                                "Effect": "Allow",
                                "Principal": {"Service": "events.amazonaws.com"},
                                "Action": "sqs:SendMessage",
                                "Resource": {"Fn::GetAtt": ["Queue", "Arn"]},
                                "Condition": {"ArnEquals": {"aws:SourceArn": {"Fn::GetAtt": ["Rule", "Arn"]}}},
                            }
                        ],
                    },
                },
            },
            "Rule": {
                "Type": "AWS::Events::Rule",
                "Properties": {
                    "EventPattern": {
                        "source": [SOURCE],
                        "detail-type": [DETAIL_TYPE],
                        # Of any status: what went back to pending and is approved again is another change.
                        "detail": {"ModelPackageGroupName": [group]},
                    },
                    "Targets": [{"Id": "queue", "Arn": {"Fn::GetAtt": ["Queue", "Arn"]}}],
                },
            },
        },
        "Outputs": {"QueueUrl": {"Value": {"Ref": "Queue"}}},
    }
