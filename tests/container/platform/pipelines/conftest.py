"""A platform with pipelines, shared by the tests here; what their steps run are shell scripts."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from container.platform.platform import Platform
from tests.container.platform.jobs.conftest import ROLE, Account, until
from tests.rig.platform import platform

HERE = "cd ${MME_OPT_ML:-/opt/ml}\n"
ON_ONE = {"InstanceType": "ml.m5.large", "InstanceCount": 1}


class Lines(Account):
    """An account whose jobs come of pipelines."""

    def processing(self, name: str, script: str, *, writes: bool = False, **asked: Any) -> dict[str, Any]:
        """A Processing step of this script. writes: its output `out`, of which `out.json` is the property file Said."""
        path = self.folder / f"{name}.sh"
        path.write_text(HERE + script)
        arguments: dict[str, Any] = {
            "RoleArn": ROLE,
            "AppSpecification": {"ImageUri": "image", "ContainerEntrypoint": ["sh", str(path)]},
            "ProcessingResources": {"ClusterConfig": {**ON_ONE, "VolumeSizeInGB": 1}},
        }
        step = {"Name": name, "Type": "Processing", "Arguments": arguments, **asked}
        if writes:
            target = {
                "S3Uri": f"{self.uri}/{name}",
                "LocalPath": "/opt/ml/processing/out",
                "S3UploadMode": "EndOfJob",
            }
            arguments["ProcessingOutputConfig"] = {"Outputs": [{"OutputName": "out", "S3Output": target}]}
            step["PropertyFiles"] = [{"PropertyFileName": "Said", "OutputName": "out", "FilePath": "out.json"}]
        return step

    def training(self, name: str, script: str, **arguments: Any) -> dict[str, Any]:
        path = self.folder / f"{name}.sh"
        path.write_text(HERE + script)
        algorithm = {
            "TrainingImage": "image",
            "TrainingInputMode": "File",
            "ContainerEntrypoint": ["sh", str(path)],
        }
        asked = {
            "RoleArn": ROLE,
            "AlgorithmSpecification": algorithm,
            "OutputDataConfig": {"S3OutputPath": f"{self.uri}/trained"},
            "ResourceConfig": {**ON_ONE, "VolumeSizeInGB": 1},
            "StoppingCondition": {"MaxRuntimeInSeconds": 3600},
        }
        return {"Name": name, "Type": "Training", "Arguments": {**asked, **arguments}}

    def pipeline(self, *steps: Mapping[str, Any], **more: Any) -> str:
        """Made; its name."""
        definition = {"Version": "2020-12-01", "Metadata": {}, "Parameters": [], "Steps": list(steps), **more}
        name = self.name("line")
        self.sagemaker.create_pipeline(
            PipelineName=name, PipelineDefinition=json.dumps(definition), RoleArn=ROLE, ClientRequestToken=token()
        )
        return name

    def start(self, name: str, **asked: Any) -> str:
        answer = self.sagemaker.start_pipeline_execution(PipelineName=name, **{"ClientRequestToken": token(), **asked})
        return str(answer["PipelineExecutionArn"])

    def over(self, arn: str) -> Any:
        def look() -> Any:
            told = self.sagemaker.describe_pipeline_execution(PipelineExecutionArn=arn)
            return told if told["PipelineExecutionStatus"] in ("Succeeded", "Failed", "Stopped") else None

        return until(look)

    def steps(self, arn: str) -> dict[str, Any]:
        """By name, the first to begin first."""
        answer = self.sagemaker.list_pipeline_execution_steps(
            PipelineExecutionArn=arn, SortOrder="Ascending", MaxResults=100
        )
        return {one["StepName"]: one for one in answer["PipelineExecutionSteps"]}

    def statuses(self, arn: str) -> dict[str, str]:
        return {name: one["StepStatus"] for name, one in self.steps(arn).items()}


def token() -> str:
    return str(uuid.uuid4())


def got(path: str) -> dict[str, str]:
    return {"Get": path}


def joined(*values: Any, on: str = "/") -> dict[str, Any]:
    return {"Std:Join": {"On": on, "Values": list(values)}}


def said(step: str, path: str) -> dict[str, Any]:
    """Of a step's property file."""
    return {"Std:JsonGet": {"PropertyFile": got(f"Steps.{step}.PropertyFiles.Said"), "Path": path}}


def at_most(left: Any, right: Any) -> dict[str, Any]:
    return {"Type": "LessThanOrEqualTo", "LeftValue": left, "RightValue": right}


@pytest.fixture(scope="package")
def shared() -> Iterator[Platform]:
    with platform() as made:
        yield made


@pytest.fixture
def account(shared: Platform, tmp_path: Path) -> Lines:
    return Lines(shared, tmp_path)
