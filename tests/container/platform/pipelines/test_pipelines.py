"""Pipelines are kept and told."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError

from container.platform.platform import Platform
from tests.rig.platform import ROLE, client, platform

DEFINITION = json.dumps({"Version": "2020-12-01", "Steps": []})
TOKEN = "t" * 32


@pytest.fixture(scope="module")
def made() -> Iterator[Platform]:
    with platform() as one:
        yield one


@pytest.fixture
def sagemaker(made: Platform) -> Any:
    return client(made.url, "sagemaker")


def create(sagemaker: Any, name: str, token: str = TOKEN, definition: str = DEFINITION) -> str:
    answer = sagemaker.create_pipeline(
        PipelineName=name, PipelineDefinition=definition, RoleArn=ROLE, ClientRequestToken=token
    )
    return str(answer["PipelineArn"])


def test_one_is_made_told_changed_and_gone(sagemaker: Any) -> None:
    arn = create(sagemaker, "prices")
    assert create(sagemaker, "prices") == arn  # asked again because the answer was lost
    told = sagemaker.describe_pipeline(PipelineName="prices")
    assert (told["PipelineArn"], told["PipelineDefinition"], told["RoleArn"]) == (arn, DEFINITION, ROLE)
    other = json.dumps({"Version": "2020-12-01", "Steps": [{"Name": "Train", "Type": "Training"}]})
    sagemaker.update_pipeline(PipelineName="prices", PipelineDefinition=other)
    assert sagemaker.describe_pipeline(PipelineName="prices")["PipelineDefinition"] == other
    create(sagemaker, "rents", "u" * 32)
    listed = sagemaker.list_pipelines(PipelineNamePrefix="pri")["PipelineSummaries"]
    assert [(one["PipelineName"], one["PipelineDisplayName"]) for one in listed] == [("prices", "prices")]
    later = listed[0]["CreationTime"] + timedelta(hours=1)
    assert sagemaker.list_pipelines(CreatedAfter=later)["PipelineSummaries"] == []
    assert len(sagemaker.list_pipelines(CreatedBefore=later, PipelineNamePrefix="pri")["PipelineSummaries"]) == 1
    sagemaker.delete_pipeline(PipelineName="prices", ClientRequestToken=TOKEN)
    with pytest.raises(ClientError) as error:
        sagemaker.describe_pipeline(PipelineName="prices")
    assert error.value.response["Error"]["Code"] == "ResourceNotFound"


def test_its_definition_may_lie_in_s3(made: Platform, sagemaker: Any) -> None:
    s3 = client(made.url, "s3")
    s3.create_bucket(Bucket="definitions")
    s3.put_object(Bucket="definitions", Key="a.json", Body=DEFINITION.encode())
    asked = {"RoleArn": ROLE, "ClientRequestToken": "f" * 32}
    where = {"Bucket": "definitions", "ObjectKey": "a.json"}
    sagemaker.create_pipeline(PipelineName="in-s3", PipelineDefinitionS3Location=where, **asked)
    assert sagemaker.describe_pipeline(PipelineName="in-s3")["PipelineDefinition"] == DEFINITION
    with pytest.raises(ClientError, match="cannot be read: NoSuchKey"):
        sagemaker.update_pipeline(PipelineName="in-s3", PipelineDefinitionS3Location={**where, "ObjectKey": "b.json"})
    with pytest.raises(ClientError, match="must be given"):
        sagemaker.create_pipeline(PipelineName="without", **asked)


def test_its_tags_are_told_with_it_and_gone_with_it(sagemaker: Any) -> None:
    definition = {"PipelineName": "tagged", "PipelineDefinition": DEFINITION, "RoleArn": ROLE}
    tags = [{"Key": "team", "Value": "prices"}]
    arn = sagemaker.create_pipeline(**definition, Tags=tags, ClientRequestToken="e" * 32)["PipelineArn"]
    assert sagemaker.list_tags(ResourceArn=arn)["Tags"] == tags
    sagemaker.add_tags(ResourceArn=arn, Tags=[{"Key": "tier", "Value": "1"}])
    sagemaker.delete_tags(ResourceArn=arn, TagKeys=["team"])
    assert sagemaker.list_tags(ResourceArn=arn)["Tags"] == [{"Key": "tier", "Value": "1"}]
    sagemaker.delete_pipeline(PipelineName="tagged", ClientRequestToken=TOKEN)
    assert sagemaker.list_tags(ResourceArn=arn)["Tags"] == []


@pytest.mark.parametrize("definition", ["not JSON", "[]", '{"Steps": []}', '{"Version": "1", "Steps": [3]}'])
def test_a_definition_that_is_none_is_refused(sagemaker: Any, definition: str) -> None:
    with pytest.raises(ClientError, match="Unable to parse pipeline definition"):
        create(sagemaker, "broken", "b" * 32, definition)


def test_a_name_is_taken_once(sagemaker: Any) -> None:
    create(sagemaker, "taken", "c" * 32)
    with pytest.raises(ClientError, match="must be unique"):
        create(sagemaker, "taken", "d" * 32)
