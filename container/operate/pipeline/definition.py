"""The loop as one SageMaker Pipeline.

    Train       Training job      mme train                               a candidate release
    Judge       Processing job    mme release diff --figures FILE         how it stands beside what is live
    Decide      condition         every figure is small enough
    Register    Processing job    mme release register --registry GROUP   a package, pending: a person approves it

Rule: a definition is a function of what was asked, so that applying it twice changes nothing.

Source: SageMaker Pipelines' JSON schema, https://aws-sagemaker-mlops.github.io/sagemaker-model-building-pipeline-definition-JSON-schema/
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from container.operate.jobs.machines import Machines
from container.operate.release.figures import Conditions
from container.operate.train.starting import training_request

VERSION = "2020-12-01"
_OUTPUT = "/opt/ml/processing/output"
_FILE = "figures.json"
# What is judged and registered is one document; any small machine will do.
_SMALL = "ml.m5.large"
_SMALL_S = 3600


@dataclass(frozen=True, slots=True)
class Loop:
    """live, releases: the live prefix, and where releases lie when that is not beside it. shelf: where they lie."""

    machines: Machines
    parameters: Mapping[str, str]
    params_uri: str | None
    live: str
    releases: str | None
    shelf: str
    conditions: Conditions
    group: str


def definition_of(loop: Loop) -> str:
    """JSON, the same for the same loop."""
    training = training_request(loop.machines, loop.parameters, loop.params_uri, f"{loop.shelf}jobs/")
    train = {"Name": "Train", "Type": "Training", "Arguments": training}
    judge = _processing(
        loop, "Judge", ["release", "diff", *_place(loop), "--figures", f"{_OUTPUT}/{_FILE}"], ["Train"], writes=True
    )
    register = _processing(
        loop,
        "Register",
        # What was judged, though another run may have made a newer one since.
        [
            "release",
            "register",
            _got("release"),
            *_place(loop),
            "--registry",
            loop.group,
            "--image",
            loop.machines.image,
        ],
        [],
    )
    decide = {
        "Name": "Decide",
        "Type": "Condition",
        "Arguments": {
            "Conditions": [_at_most(name, most) for name, most in loop.conditions.at_most],
            "IfSteps": [register],
            "ElseSteps": [],
        },
    }
    made = {"Version": VERSION, "Metadata": {}, "Parameters": [], "Steps": [train, judge, decide]}
    return json.dumps(made, indent=1, sort_keys=True)


def _place(loop: Loop) -> list[str]:
    return ["--of", loop.live, *(["--releases", loop.releases] if loop.releases else [])]


def _processing(
    loop: Loop, name: str, words: Sequence[str | dict[str, Any]], after: Sequence[str], *, writes: bool = False
) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "AppSpecification": {"ImageUri": loop.machines.image, "ContainerArguments": list(words)},
        "RoleArn": loop.machines.role,
        "ProcessingResources": {
            "ClusterConfig": {"InstanceType": _SMALL, "InstanceCount": 1, "VolumeSizeInGB": 10},
        },
        "StoppingCondition": {"MaxRuntimeInSeconds": _SMALL_S},
    }
    step: dict[str, Any] = {"Name": name, "Type": "Processing", "Arguments": arguments}
    if writes:
        output = {"S3Uri": f"{loop.shelf}figures/", "LocalPath": _OUTPUT, "S3UploadMode": "EndOfJob"}
        arguments["ProcessingOutputConfig"] = {"Outputs": [{"OutputName": "figures", "S3Output": output}]}
        step["PropertyFiles"] = [{"PropertyFileName": "Figures", "OutputName": "figures", "FilePath": _FILE}]
    if after:
        step["DependsOn"] = list(after)
    return step


def _at_most(name: str, most: float) -> dict[str, Any]:
    return {"Type": "LessThanOrEqualTo", "LeftValue": _got(name), "RightValue": most}


def _got(name: str) -> dict[str, Any]:
    """What the figures say, once they are there."""
    return {"Std:JsonGet": {"PropertyFile": {"Get": "Steps.Judge.PropertyFiles.Figures"}, "Path": name}}
