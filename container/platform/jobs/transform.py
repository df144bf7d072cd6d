"""Transform jobs: what CreateTransformJob asks for, what is refused, and what DescribeTransformJob answers.

Rule: what is asked for and not played is refused.

Sources: botocore's model; the guide's multi-model pages, which offer no TargetModel for a transform job. The refusal of a
multi-model container is worded as AWS words another one (aws/sagemaker-python-sdk#4777): inferred.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from container.platform.jobs import channels
from container.platform.jobs.life import State
from container.platform.jobs.refusals import not_played, refuse

MAX_PAYLOAD_MB = 100
ECHOED = (
    *("TransformJobName", "ModelName", "MaxConcurrentTransforms", "ModelClientConfig", "MaxPayloadInMB"),
    *("BatchStrategy", "Environment", "TransformInput", "TransformOutput", "TransformResources", "DataProcessing"),
    "ExperimentConfig",
)


def check(asked: Mapping[str, Any], model: Mapping[str, Any]) -> None:
    """Raises ServiceFault."""
    container = model["PrimaryContainer"]
    if container.get("Mode") == "MultiModel":
        refuse(
            "SageMaker Batch currently doesn't support Model entity with container definitions which use MultiModel mode"
        )
    if "ModelDataSource" in container:
        refuse(
            "SageMaker Batch currently doesn't support Model entity with container definitions which use "
            "ModelDataSource attribute"
        )
    if asked.get("DataCaptureConfig"):
        not_played("CreateTransformJob with DataCaptureConfig")
    processing = asked.get("DataProcessing", {})
    if processing.get("JoinSource", "None") != "None" or any(
        processing.get(name, "$") != "$" for name in ("InputFilter", "OutputFilter")
    ):
        not_played("CreateTransformJob with DataProcessing")
    source = asked["TransformInput"]
    if source["DataSource"]["S3DataSource"]["S3DataType"] not in (channels.PREFIX, channels.MANIFEST):
        not_played(f"S3DataType {source['DataSource']['S3DataSource']['S3DataType']}")
    if source.get("SplitType", "None") not in ("None", "Line"):
        not_played(f"SplitType {source['SplitType']}")
    n_mb, n_at_once = asked.get("MaxPayloadInMB"), asked.get("MaxConcurrentTransforms", 1)
    if n_mb == 0:
        not_played("MaxPayloadInMB 0 (HTTP chunked encoding)")
    if n_mb is not None and max(1, n_at_once) * n_mb > MAX_PAYLOAD_MB:
        refuse(f"MaxConcurrentTransforms * MaxPayloadInMB cannot exceed {MAX_PAYLOAD_MB} MB")


def described(asked: Mapping[str, Any], arn: str, state: State) -> dict[str, Any]:
    """DescribeTransformJob's answer."""
    return {
        **{name: asked[name] for name in ECHOED if name in asked},
        "TransformJobArn": arn,
        "TransformJobStatus": state.status,
        "FailureReason": state.failure or None,
        "CreationTime": state.created_at,
        "TransformStartTime": state.started_at,
        "TransformEndTime": state.ended_at,
    }


def summed_up(answer: Mapping[str, Any]) -> dict[str, Any]:
    names = ("TransformJobName", "TransformJobArn", "CreationTime", "TransformEndTime")
    return {name: answer.get(name) for name in (*names, "TransformJobStatus", "FailureReason")}


def event(answer: Mapping[str, Any]) -> dict[str, Any]:
    """The detail of its state change, as the guide shows it: times are ISO 8601."""
    return {
        name: value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if isinstance(value, datetime) else value
        for name, value in answer.items()
        if value is not None
    }
