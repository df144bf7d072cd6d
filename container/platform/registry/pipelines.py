"""CreatePipeline and its siblings: definitions are kept and told. Nothing runs them here.

Source: botocore's model; the error for one that is not there is documented for DescribePipeline (ResourceNotFound).
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from typing import Any

from container.platform.clock import Clock
from container.platform.service.call import Call, Operation
from container.platform.service.faults import ResourceNotFound, ValidationException
from container.platform.service.pages import listed
from container.platform.service.tags import Tags

_SUMMARY = ("PipelineArn", "PipelineName", "PipelineDisplayName", "PipelineDescription", "RoleArn", "CreationTime")


class Pipelines:
    """By name."""

    def __init__(self, clock: Clock, tags: Tags) -> None:
        self._clock = clock
        self._tags = tags
        self._lock = threading.RLock()
        self._pipelines: dict[str, dict[str, Any]] = {}

    def operations(self) -> dict[tuple[str, str], Operation]:
        return {
            ("sagemaker", "CreatePipeline"): self._create,
            ("sagemaker", "UpdatePipeline"): self._update,
            ("sagemaker", "DescribePipeline"): self._describe,
            ("sagemaker", "ListPipelines"): self._list,
            ("sagemaker", "DeletePipeline"): self._delete,
        }

    def dump(self) -> Any:
        with self._lock:
            return self._pipelines

    def restore(self, value: Any) -> None:
        self._pipelines = value

    def _create(self, call: Call) -> Mapping[str, Any]:
        asked = call.parameters
        name, arn = asked["PipelineName"], call.arn("pipeline", asked["PipelineName"])
        definition = _definition(asked)
        with self._lock:
            there = self._pipelines.get(name)
            if there is not None:
                if there["ClientRequestToken"] == asked["ClientRequestToken"]:
                    return {"PipelineArn": arn}
                raise ValidationException(f"Pipeline names must be unique within an AWS account and region: {arn}")
            self._tags.put(arn, asked.get("Tags", ()))
            now = self._clock.now()
            self._pipelines[name] = {
                **{key: one for key, one in asked.items() if key not in ("Tags", "PipelineDefinitionS3Location")},
                "PipelineDefinition": definition,
                "PipelineArn": arn,
                "PipelineStatus": "Active",
                "CreationTime": now,
                "LastModifiedTime": now,
            }
        return {"PipelineArn": arn}

    def _update(self, call: Call) -> Mapping[str, Any]:
        with self._lock:
            there = self._there(call)
            changed = {key: one for key, one in call.parameters.items() if key != "PipelineDefinitionS3Location"}
            if "PipelineDefinition" in changed or "PipelineDefinitionS3Location" in call.parameters:
                changed["PipelineDefinition"] = _definition(call.parameters)
            there |= {**changed, "LastModifiedTime": self._clock.now()}
        return {"PipelineArn": there["PipelineArn"]}

    def _describe(self, call: Call) -> Mapping[str, Any]:
        there = self._there(call)
        return {key: one for key, one in there.items() if key != "ClientRequestToken"}

    def _list(self, call: Call) -> Mapping[str, Any]:
        begin = call.parameters.get("PipelineNamePrefix", "")
        with self._lock:
            found = [one for name, one in self._pipelines.items() if name.startswith(begin)]
        summaries, token = listed(
            found, call.parameters, lambda one: {"Name": one["PipelineName"], "CreationTime": one["CreationTime"]}
        )
        told = [{key: one[key] for key in (*_SUMMARY, "LastModifiedTime") if key in one} for one in summaries]
        return {"PipelineSummaries": told, "NextToken": token}

    def _delete(self, call: Call) -> Mapping[str, Any]:
        with self._lock:
            there = self._there(call)
            del self._pipelines[there["PipelineName"]]
        return {"PipelineArn": there["PipelineArn"]}

    def _there(self, call: Call) -> dict[str, Any]:
        name = call.parameters["PipelineName"].rpartition("/")[2]
        with self._lock:
            there = self._pipelines.get(name)
        if there is None:
            raise ResourceNotFound(f"Pipeline {call.arn('pipeline', name)} does not exist.")
        return there


def _definition(asked: Mapping[str, Any]) -> str:
    text: str | None = asked.get("PipelineDefinition")
    if text is None:
        raise ValidationException("PipelineDefinition is needed here: a definition in S3 is not read")
    try:
        found = json.loads(text)
    except ValueError as error:
        raise ValidationException(f"Unable to parse pipeline definition: {error}") from error
    if not isinstance(found, dict) or not isinstance(found.get("Steps"), list) or "Version" not in found:
        raise ValidationException("Unable to parse pipeline definition: it has no Version or no Steps")
    return text
