"""How a step of each kind is carried out: by the operation that anybody may call, with the step's arguments.

Rule: a job is called pipelines-EXECUTION-STEP-RANDOM; a name in the arguments is refused, for AWS would not use it as it is.

Source: SageMaker guide, automating-sagemaker-with-eventbridge (names, metadata); ListPipelineExecutionSteps in botocore's
model; BC's Create operations.
"""

from __future__ import annotations

import random
import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from container.platform.service.faults import ServiceFault

MAX_STEP_IN_NAME = 20  # of a job's name, which has 63
# Operation, what it is asked -> its answer. Raises ServiceFault.
Ask = Callable[[str, Mapping[str, Any]], Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Kind:
    """create, describe, stop: operations. name: the member that names it. arn: of its description."""

    metadata: str
    create: str
    describe: str
    arn: str
    name: str = ""
    status: str = ""  # the member that tells whether it is over; without one it is over at once
    stop: str = ""


KINDS = {
    "Training": Kind(
        *("TrainingJob", "CreateTrainingJob", "DescribeTrainingJob", "TrainingJobArn", "TrainingJobName"),
        *("TrainingJobStatus", "StopTrainingJob"),
    ),
    "Processing": Kind(
        *("ProcessingJob", "CreateProcessingJob", "DescribeProcessingJob", "ProcessingJobArn", "ProcessingJobName"),
        *("ProcessingJobStatus", "StopProcessingJob"),
    ),
    "Transform": Kind(
        *("TransformJob", "CreateTransformJob", "DescribeTransformJob", "TransformJobArn", "TransformJobName"),
        *("TransformJobStatus", "StopTransformJob"),
    ),
    "Model": Kind("Model", "CreateModel", "DescribeModel", "ModelArn", "ModelName"),
    "RegisterModel": Kind("RegisterModel", "CreateModelPackage", "DescribeModelPackage", "ModelPackageArn"),
}


class StepRefused(Exception):
    """What the step asks for was not taken, in the words of its FailureReason."""


@dataclass(frozen=True, slots=True)
class Began:
    """name: what describes and stops it."""

    kind: Kind
    name: str
    arn: str

    def described(self, ask: Ask) -> Mapping[str, Any]:
        member = self.kind.name or "ModelPackageName"
        return ask(self.kind.describe, {member: self.name})

    def stop(self, ask: Ask) -> None:
        """Nothing is done to one that is over."""
        try:
            ask(self.kind.stop, {self.kind.name: self.name})
        except ServiceFault:
            return


def begin(kind: Kind, execution: str, step: str, arguments: Mapping[str, Any], ask: Ask) -> Began:
    """execution: its id. Raises StepRefused."""
    if kind.name and kind.name in arguments:
        raise StepRefused(f"ClientError: mme platform does not play {kind.name} in the arguments of a step")
    name = _name(execution, step)
    try:
        answer = ask(kind.create, {**arguments, kind.name: name} if kind.name else arguments)
    except ServiceFault as fault:
        raise StepRefused(
            f"ClientError: Failed to invoke sagemaker:{kind.create}. Error Details: {fault.message}"
        ) from fault
    arn = str(answer[kind.arn])
    return Began(kind, name if kind.name else arn, arn)


def _name(execution: str, step: str) -> str:
    """In small letters, so that the end of its ARN is its name; without the underscore that names of steps may have."""
    end = "".join(random.SystemRandom().choices(string.ascii_lowercase + string.digits, k=10))
    middle = step[:MAX_STEP_IN_NAME].lower().replace("_", "-").strip("-") or "step"
    return f"pipelines-{execution}-{middle}-{end}"
