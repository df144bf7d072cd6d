from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from container.platform.platform import Platform
from tests.container.platform.jobs.conftest import until
from tests.rig.platform import client, platform

_NUMBERS = itertools.count(1)
SPECIFICATION = {
    "Containers": [{"Image": "image", "ModelDataUrl": "s3://bucket/model.tar.gz"}],
    "SupportedContentTypes": ["text/csv"],
    "SupportedResponseMIMETypes": ["text/csv"],
}


class Registry:
    """One test's group."""

    def __init__(self, platform: Platform) -> None:
        self.platform = platform
        self.sagemaker = client(platform.url, "sagemaker")
        self.group = f"Group-{next(_NUMBERS)}"
        self.sagemaker.create_model_package_group(ModelPackageGroupName=self.group)

    def create(self, **asked: Any) -> str:
        asked = {"ModelPackageGroupName": self.group, "InferenceSpecification": SPECIFICATION, **asked}
        return str(self.sagemaker.create_model_package(**asked)["ModelPackageArn"])

    def describe(self, arn: str) -> Any:
        return self.sagemaker.describe_model_package(ModelPackageName=arn)

    def refused(self, operation: str, **asked: Any) -> tuple[str, str]:
        with pytest.raises(ClientError) as caught:
            getattr(self.sagemaker, operation)(**asked)
        error = caught.value.response["Error"]
        return error["Code"], error["Message"]


@pytest.fixture(scope="module")
def made() -> Iterator[Platform]:
    with platform() as one:
        yield one


@pytest.fixture
def registry(made: Platform) -> Registry:
    return Registry(made)


def test_versions_go_on_after_a_deletion_and_wait_for_approval(registry: Registry) -> None:
    first, second = registry.create(), registry.create()
    assert [arn.rpartition(":")[2] for arn in (first, second)] == [
        f"model-package/{registry.group.lower()}/{number}" for number in (1, 2)
    ]
    registry.sagemaker.delete_model_package(ModelPackageName=second)
    assert registry.create().endswith("/3")
    told = registry.describe(first)
    assert (told["ModelApprovalStatus"], told["ModelPackageVersion"], told["ModelPackageStatus"]) == (
        "PendingManualApproval",
        1,
        "Completed",
    )


def test_an_update_changes_what_it_names_and_nothing_else(registry: Registry) -> None:
    arn = registry.create(CustomerMetadataProperties={"a": "1", "b": "2"})
    update = registry.sagemaker.update_model_package
    update(ModelPackageArn=arn, ModelApprovalStatus="Approved", ApprovalDescription="better")
    update(ModelPackageArn=arn, CustomerMetadataProperties={"c": "3"}, CustomerMetadataPropertiesToRemove=["a"])
    told = registry.describe(arn)
    assert (told["ModelApprovalStatus"], told["ApprovalDescription"]) == ("Approved", "better")
    assert told["CustomerMetadataProperties"] == {"b": "2", "c": "3"}


def test_each_change_is_told_in_awss_shape(registry: Registry) -> None:
    arn = registry.create(ModelPackageDescription="first")
    update = registry.sagemaker.update_model_package
    update(ModelPackageArn=arn, ModelApprovalStatus="Approved")
    update(ModelPackageArn=arn, CustomerMetadataProperties={"note": "later"})
    made, approved, noted = (event for event in registry.platform.bus.sent if event.resources == (arn,))
    assert {event.detail_type for event in (made, approved, noted)} == {"SageMaker Model Package State Change"}
    assert "UpdatedModelPackageFields" not in made.detail
    assert approved.detail["UpdatedModelPackageFields"] == ["ModelApprovalStatus"]
    assert noted.detail["UpdatedModelPackageFields"] == ["CustomerMetadataProperties"]
    # The guide's own example: automating-sagemaker-with-eventbridge, "Model package state change".
    assert set(approved.detail) == {
        *("ModelPackageGroupName", "ModelPackageVersion", "ModelPackageArn", "ModelPackageDescription"),
        *("CreationTime", "InferenceSpecification", "ModelPackageStatus", "ModelPackageStatusDetails"),
        *("CertifyForMarketplace", "ModelApprovalStatus", "LastModifiedTime", "UpdatedModelPackageFields"),
    }
    assert approved.detail["LastModifiedTime"].endswith("Z")
    json.dumps(approved.detail)


def test_a_token_makes_one_package(registry: Registry) -> None:
    assert registry.create(ClientToken="t-1" + registry.group) == registry.create(ClientToken="t-1" + registry.group)


def test_packages_are_listed_by_group_status_and_batch(registry: Registry) -> None:
    first, second = registry.create(), registry.create()
    registry.sagemaker.update_model_package(ModelPackageArn=second, ModelApprovalStatus="Approved")
    listed = registry.sagemaker.list_model_packages(
        ModelPackageGroupName=registry.group, ModelApprovalStatus="Approved"
    )
    assert [one["ModelPackageArn"] for one in listed["ModelPackageSummaryList"]] == [second]
    found = registry.sagemaker.batch_describe_model_package(ModelPackageArnList=[first, f"{first}9"])
    assert list(found["ModelPackageSummaries"]) == [first]
    assert list(found["BatchDescribeModelPackageErrorMap"]) == [f"{first}9"]
    groups = registry.sagemaker.list_model_package_groups(NameContains=registry.group)["ModelPackageGroupSummaryList"]
    assert [one["ModelPackageGroupName"] for one in groups] == [registry.group]


def test_what_is_there_or_is_not_is_refused(registry: Registry) -> None:
    arn = registry.create()
    code, words = registry.refused("create_model_package_group", ModelPackageGroupName=registry.group)
    assert (code, "already exists" in words) == ("ValidationException", True)
    assert registry.refused("describe_model_package", ModelPackageName=f"{arn}9")[0] == "ValidationException"
    assert (
        registry.refused("delete_model_package_group", ModelPackageGroupName=registry.group)[0] == "ConflictException"
    )
    registry.sagemaker.delete_model_package(ModelPackageName=arn)
    registry.sagemaker.delete_model_package_group(ModelPackageGroupName=registry.group)
    assert registry.refused("create_model_package", ModelPackageGroupName=registry.group)[0] == "ValidationException"


@pytest.mark.parametrize("trap", [(), ("double-events",)])
def test_an_event_reaches_a_queue_through_a_rule_as_awss_do(trap: tuple[str, ...]) -> None:
    with platform(traps=trap) as one:
        sqs, events = client(one.url, "sqs"), client(one.url, "events")
        queue = sqs.create_queue(QueueName="q")["QueueUrl"]
        arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        pattern = {"source": ["aws.sagemaker"], "detail": {"ModelApprovalStatus": ["Approved"]}}
        events.put_rule(Name="approved", EventPattern=json.dumps(pattern))
        events.put_targets(Rule="approved", Targets=[{"Id": "q", "Arn": arn}])
        registry = Registry(one)
        package = registry.create()
        registry.sagemaker.update_model_package(ModelPackageArn=package, ModelApprovalStatus="Approved")
        messages: list[Any] = []
        until(
            lambda: (
                messages.extend(sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages", []))
                or len(messages) == 1 + len(trap)
            )
        )
        event = json.loads(messages[0]["Body"])
        assert {
            name: event[name] for name in ("version", "detail-type", "source", "account", "region", "resources")
        } == {
            "version": "0",
            "detail-type": "SageMaker Model Package State Change",
            "source": "aws.sagemaker",
            "account": one.account,
            "region": "us-east-1",
            "resources": [package],
        }
        assert event["time"].endswith("Z")
        assert event["detail"]["UpdatedModelPackageFields"] == ["ModelApprovalStatus"]
        assert len({json.loads(message["Body"])["id"] for message in messages}) == 1 + len(trap)


def test_packages_of_before_are_known(tmp_path: Any) -> None:
    with platform(state=tmp_path) as one:
        registry = Registry(one)
        arn = registry.create()
        told = registry.describe(arn)
    with platform(state=tmp_path) as one:
        again = client(one.url, "sagemaker").describe_model_package(ModelPackageName=arn)
        assert {**again, "ResponseMetadata": 0} == {**told, "ResponseMetadata": 0}
