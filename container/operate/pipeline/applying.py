"""A pipeline, and the rule that starts it when data arrive, made in an account: once or many times, with the same result.

Rule: what is there already and is as it should be is left alone; what somebody else has made is never taken away.

Source: CreatePipeline, PutRule, PutBucketNotificationConfiguration in botocore's models; EventBridge guide, "Amazon S3
events": a bucket sends them once EventBridgeConfiguration is in its notification configuration.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from container.operate.release.trouble import aws_told
from handler.stores import S3Location, parse_location

MADE, CHANGED, SAME = "made", "changed", "as it was"
_TARGET = "pipeline"


@dataclass(frozen=True, slots=True)
class Clients:
    """boto3's."""

    sagemaker: Any
    events: Any
    s3: Any


@dataclass(frozen=True, slots=True)
class Done:
    """What was done to each: MADE, CHANGED or SAME."""

    arn: str
    pipeline: str
    rule: str
    bucket: str


def apply(clients: Clients, name: str, definition: str, role: str, pattern: str, bucket: str) -> Done:
    """role: of the pipeline, and of the rule that starts it. Raises NotNow, Refused."""
    with aws_told():
        arn, pipeline = _apply_pipeline(clients.sagemaker, name, definition, role)
        rule = _apply_rule(clients.events, name, pattern, arn, role)
        return Done(arn, pipeline, rule, _tell_bucket(clients.s3, bucket))


def pattern_of(data: str, ends_with: str) -> tuple[str, str]:
    """An event pattern for objects that arrive below a location, and its bucket. ends_with: of their keys."""
    where = parse_location(data)
    assert isinstance(where, S3Location)
    pattern = {
        "source": ["aws.s3"],
        "detail-type": ["Object Created"],
        "detail": {
            "bucket": {"name": [where.bucket]},
            "object": {"key": [{"wildcard": f"{where.prefix}*{ends_with}"}]},
        },
    }
    return json.dumps(pattern, sort_keys=True), where.bucket


def _apply_pipeline(client: Any, name: str, definition: str, role: str) -> tuple[str, str]:
    wanted = {"PipelineDefinition": definition, "RoleArn": role}
    pages = client.get_paginator("list_pipelines").paginate(PipelineNamePrefix=name)  # others' names may begin so, too
    if not any(one["PipelineName"] == name for page in pages for one in page["PipelineSummaries"]):
        answer = client.create_pipeline(PipelineName=name, ClientRequestToken=f"mme-{name:-<32}"[:128], **wanted)
        return answer["PipelineArn"], MADE
    found = client.describe_pipeline(PipelineName=name)
    is_same = json.loads(found["PipelineDefinition"]) == json.loads(definition) and found["RoleArn"] == role
    if is_same:
        return found["PipelineArn"], SAME
    return client.update_pipeline(PipelineName=name, **wanted)["PipelineArn"], CHANGED


def _apply_rule(client: Any, name: str, pattern: str, arn: str, role: str) -> str:
    target = {"Id": _TARGET, "Arn": arn, "RoleArn": role}
    outcome = MADE
    try:
        found = client.describe_rule(Name=name)
        targets = client.list_targets_by_rule(Rule=name)["Targets"]
        outcome = CHANGED
        if (
            json.loads(found["EventPattern"]) == json.loads(pattern)
            and found["State"] == "ENABLED"
            and target in targets
        ):
            return SAME
    except client.exceptions.ResourceNotFoundException:
        pass
    client.put_rule(Name=name, EventPattern=pattern, State="ENABLED", Description="mme pipeline: data have arrived")
    client.put_targets(Rule=name, Targets=[target])
    return outcome


def _tell_bucket(client: Any, bucket: str) -> str:
    """Let it send its events, beside whatever else it does."""
    found = client.get_bucket_notification_configuration(Bucket=bucket)
    found.pop("ResponseMetadata", None)
    if "EventBridgeConfiguration" in found:
        return SAME
    client.put_bucket_notification_configuration(
        Bucket=bucket, NotificationConfiguration={**found, "EventBridgeConfiguration": {}}
    )
    return CHANGED
