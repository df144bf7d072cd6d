"""A deployment's life recorded on the platform and played again by botocore's stubber, which takes no member that AWS has
not: neither in what is asked nor in what is answered and read."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import boto3
import pytest
from botocore import xform_name
from botocore.exceptions import ParamValidationError
from botocore.stub import ANY, Stubber

from container.operate.deploy.apply import apply
from container.operate.deploy.aws import Aws, AwsRefused
from container.operate.deploy.back import delete, rollback_steps
from container.operate.deploy.doctor import diagnose
from container.operate.deploy.file import KINDS, Wanted
from container.operate.deploy.health import examine
from container.operate.deploy.look import look
from container.operate.troubles import Misused
from container.platform.platform import Platform
from tests.container.operate.deploy.files import ROLE, wanted
from tests.container.operate.deploy.test_apply import COMMAND, IMAGE, NEXT, PACE, QUICK, SPEED, shared
from tests.rig.platform import client, platform

UPDATES = {"multi-model": QUICK, "zero": "[zero]\ncopies = 1", "serverless": ""}


@dataclass(frozen=True)
class Said:
    """One call and its answer; of a refusal its code and words."""

    service: str
    operation: str
    arguments: dict[str, Any]
    answer: dict[str, Any]
    refusal: tuple[str, str, int] | None = None


class Recording(Aws):
    def __init__(self, url: str) -> None:
        super().__init__(client=lambda service: shared(url, service))
        self.said: list[Said] = []

    def call(self, service: str, operation: str, arguments: dict[str, Any] | None = None) -> dict[str, Any]:
        try:
            answer = super().call(service, operation, arguments)
        except AwsRefused as error:
            refusal = (error.code, error.message, error.status)
            self.said.append(Said(service, operation, arguments or {}, {}, refusal))
            raise
        self.said.append(Said(service, operation, arguments or {}, answer))
        return answer


class Replayed:
    """The same answers in the same order, from stubbers that hold both sides against botocore's models."""

    def __init__(self, said: list[Said]) -> None:
        self._stubbers: dict[str, Stubber] = {}
        for one in said:
            stubber = self._of(one.service)
            method, arguments = xform_name(one.operation), _timeless(one.arguments)
            if one.refusal is None:
                stubber.add_response(method, _as_sent(one.answer), arguments)
            else:
                code, message, status = one.refusal
                stubber.add_client_error(method, code, message, status, expected_params=arguments)
        self.aws = Aws(client=lambda service: self._of(service).client)

    def _of(self, service: str) -> Stubber:
        if service not in self._stubbers:
            keys = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing"}
            self._stubbers[service] = Stubber(boto3.client(service, region_name="us-east-1", **keys))
            self._stubbers[service].activate()
        return self._stubbers[service]

    def assert_all_was_asked(self) -> None:
        for stubber in self._stubbers.values():
            stubber.assert_no_pending_responses()


def _timeless(value: Any) -> Any:
    """Whatever time is asked about: it is another when it is asked again."""
    if isinstance(value, dict):
        return {name: _timeless(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_timeless(one) for one in value]
    return ANY if isinstance(value, datetime) else value


def _as_sent(value: Any) -> Any:
    """IAM's documents as AWS sends them: boto3 hands them over parsed, and parses them again when they are played."""
    if isinstance(value, dict):
        return {
            name: json.dumps(one) if name.endswith("Document") and isinstance(one, dict) else _as_sent(one)
            for name, one in value.items()
        }
    return [_as_sent(one) for one in value] if isinstance(value, list) else value


@pytest.fixture(scope="module")
def played() -> Iterator[Platform]:
    with platform(speed=SPEED, images={IMAGE: COMMAND, NEXT: COMMAND}) as one:
        client(one.url, "iam").create_role(RoleName=ROLE.rsplit("/", 1)[-1], AssumeRolePolicyDocument="{}")
        yield one


def life(aws: Aws, first: Wanted, second: Wanted) -> list[str]:
    """Made, updated, looked at by the doctor, taken back and taken down: what was told."""
    told: list[str] = []
    for of in (first, first, second):
        told.append(f"{apply(aws, of, tell=told.append, pace=PACE).n_calls} calls")
    told += [finding.check for finding in diagnose(second, examine(aws, second))]
    told += [step.what for step in rollback_steps(second, look(aws, second))]
    told.append(f"{delete(aws, second, tell=told.append, pace=PACE)} calls")
    return told


@pytest.mark.parametrize("kind", KINDS)
def test_all_that_is_asked_and_read_is_in_awss_models(played: Platform, kind: str) -> None:
    more = UPDATES[kind]
    first, second = (wanted(kind, more, name=f"recorded-{kind}", image=image) for image in (IMAGE, NEXT))
    recording = Recording(played.url)
    told = life(recording, first, second)
    replayed = Replayed(recording.said)
    assert life(replayed.aws, first, second) == told
    replayed.assert_all_was_asked()
    asked = Counter(one.operation for one in recording.said)
    assert asked["CreateEndpoint"] == asked["DeleteEndpoint"] == 1
    assert asked["UpdateEndpoint"] + asked["UpdateInferenceComponent"] == 1


def test_a_member_that_aws_does_not_have_would_have_been_told() -> None:
    with pytest.raises(ParamValidationError, match="EndpointColour"):
        Replayed([Said("sagemaker", "DescribeEndpoint", {"EndpointName": "a"}, {"EndpointColour": "red"})])
    asked = {"EndpointName": "a", "Colour": "red"}
    replayed = Replayed([Said("sagemaker", "DeleteEndpoint", asked, {})])
    with pytest.raises(Misused, match="Colour"):
        replayed.aws.call("sagemaker", "DeleteEndpoint", asked)
