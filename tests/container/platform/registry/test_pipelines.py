"""Pipelines are kept and told."""

from __future__ import annotations

import json
from collections.abc import Iterator
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
    other = json.dumps({"Version": "2020-12-01", "Steps": [{"Name": "Train"}]})
    sagemaker.update_pipeline(PipelineName="prices", PipelineDefinition=other)
    assert sagemaker.describe_pipeline(PipelineName="prices")["PipelineDefinition"] == other
    create(sagemaker, "rents", "u" * 32)
    listed = sagemaker.list_pipelines(PipelineNamePrefix="pri")["PipelineSummaries"]
    assert [one["PipelineName"] for one in listed] == ["prices"]
    sagemaker.delete_pipeline(PipelineName="prices", ClientRequestToken=TOKEN)
    with pytest.raises(ClientError) as error:
        sagemaker.describe_pipeline(PipelineName="prices")
    assert error.value.response["Error"]["Code"] == "ResourceNotFound"


@pytest.mark.parametrize("definition", ["not JSON", "[]", '{"Steps": []}'])
def test_a_definition_that_is_none_is_refused(sagemaker: Any, definition: str) -> None:
    with pytest.raises(ClientError, match="Unable to parse pipeline definition"):
        create(sagemaker, "broken", "b" * 32, definition)


def test_a_name_is_taken_once(sagemaker: Any) -> None:
    create(sagemaker, "taken", "c" * 32)
    with pytest.raises(ClientError, match="must be unique"):
        create(sagemaker, "taken", "d" * 32)
