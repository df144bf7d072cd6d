"""The operations on pipelines and their executions.

Rule: an execution runs the definition that there was when it was started.

Sources: botocore's model; SageMaker guide, automating-sagemaker-with-eventbridge (names of executions). The error for a
pipeline that is not there is documented for DescribePipeline (ResourceNotFound).
"""

from __future__ import annotations

import random
import string
import threading
from collections.abc import Callable, Mapping
from typing import Any

from container.platform.bus import Event
from container.platform.jobs.objects import DataFault
from container.platform.pipelines.definition import parse
from container.platform.pipelines.execution import OVER, Asked, Execution, State, Surroundings, dumped, restored
from container.platform.rights import Rights
from container.platform.service.call import Call, Operation
from container.platform.service.faults import (
    ConflictException,
    NotPlayed,
    ResourceNotFound,
    ValidationException,
)
from container.platform.service.pages import listed, page
from container.platform.service.tags import Tags

_SUMMARY = ("PipelineArn", "PipelineName", "PipelineDisplayName", "PipelineDescription", "RoleArn", "CreationTime")
_DEFINITION = ("PipelineDefinition", "PipelineDefinitionS3Location")


class Pipelines:
    """By name. read: an object of S3 as a role may."""

    def __init__(self, around: Surroundings, tags: Tags, rights: Rights) -> None:
        self._around = around
        self._clock = around.clock
        self._tags = tags
        self._rights = rights
        self._lock = threading.RLock()
        self._pipelines: dict[str, dict[str, Any]] = {}
        self.executions = Executions()
        around.bus.on_event.append(self.executions.hear)

    def operations(self) -> dict[tuple[str, str], Operation]:
        operations: dict[str, Callable[[Call], Mapping[str, Any]]] = {
            "CreatePipeline": self._create,
            "UpdatePipeline": self._update,
            "DescribePipeline": self._describe,
            "ListPipelines": self._list,
            "DeletePipeline": self._delete,
            "StartPipelineExecution": self._start,
            "StopPipelineExecution": self._stop,
            "RetryPipelineExecution": self._retry,
            "UpdatePipelineExecution": self._rename,
            "DescribePipelineExecution": self._describe_execution,
            "DescribePipelineDefinitionForExecution": self._describe_text,
            "ListPipelineExecutions": self._list_executions,
            "ListPipelineExecutionSteps": self._list_steps,
            "ListPipelineParametersForExecution": self._list_parameters,
        }
        return {("sagemaker", name): operation for name, operation in operations.items()}

    def dump(self) -> Any:
        with self._lock:
            return self._pipelines

    def restore(self, value: Any) -> None:
        self._pipelines = value

    def close(self) -> None:
        """No execution goes on."""
        self.executions.close()

    # -- pipelines -----------------------------------------------------------------------------------------------------

    def _create(self, call: Call) -> Mapping[str, Any]:
        asked = call.parameters
        name, arn = asked["PipelineName"], call.arn("pipeline", asked["PipelineName"])
        self._rights.check_role(asked["RoleArn"])
        text = self._text(asked, asked["RoleArn"])
        parse(text)
        with self._lock:
            there = self._pipelines.get(name)
            if there is not None:
                if there["ClientRequestToken"] == asked["ClientRequestToken"]:
                    return {"PipelineArn": arn}
                raise ValidationException(f"Pipeline names must be unique within an AWS account and region: {arn}")
            self._tags.put(arn, asked.get("Tags", ()))
            now = self._clock.now()
            self._pipelines[name] = {
                **{key: one for key, one in asked.items() if key not in ("Tags", *_DEFINITION)},
                "PipelineDefinition": text,
                "PipelineArn": arn,
                "PipelineDisplayName": asked.get("PipelineDisplayName", name),
                "PipelineStatus": "Active",
                "CreationTime": now,
                "CreatedBy": call.caller,
                "LastModifiedTime": now,
                "LastModifiedBy": call.caller,
            }
        return {"PipelineArn": arn}

    def _update(self, call: Call) -> Mapping[str, Any]:
        asked = call.parameters
        changed = {key: one for key, one in asked.items() if key not in (*_DEFINITION, "PipelineName")}
        if any(name in asked for name in _DEFINITION):
            role = asked.get("RoleArn") or self._there(call, asked["PipelineName"])["RoleArn"]
            changed["PipelineDefinition"] = self._text(asked, role)
            parse(changed["PipelineDefinition"])
        with self._lock:
            there = self._there(call, asked["PipelineName"])
            there |= {**changed, "LastModifiedTime": self._clock.now(), "LastModifiedBy": call.caller}
        return {"PipelineArn": there["PipelineArn"]}

    def _describe(self, call: Call) -> Mapping[str, Any]:
        there = self._there(call, call.parameters["PipelineName"])
        return {key: one for key, one in there.items() if key != "ClientRequestToken"}

    def _list(self, call: Call) -> Mapping[str, Any]:
        begin = call.parameters.get("PipelineNamePrefix", "")
        with self._lock:
            found = [one for name, one in self._pipelines.items() if name.startswith(begin)]
        summaries, token = listed(
            found,
            _with_times(call.parameters),
            lambda one: {"Name": one["PipelineName"], "CreationTime": one["CreationTime"]},
        )
        told = [
            {key: one[key] for key in (*_SUMMARY, "LastModifiedTime") if key in one}
            | {"LastExecutionTime": one.get("LastRunTime")}
            for one in summaries
        ]
        return {"PipelineSummaries": told, "NextToken": token}

    def _delete(self, call: Call) -> Mapping[str, Any]:
        with self._lock:
            there = self._there(call, call.parameters["PipelineName"])
            arn = there["PipelineArn"]
            if any(not one.state.is_over for one in self.executions.of(arn)):
                raise ConflictException(f"Pipeline {arn} has executions that run. Stop them before it is deleted.")
            del self._pipelines[there["PipelineName"]]
            self.executions.forget(arn)
            self._tags.forget(arn)
        return {"PipelineArn": arn}

    def _there(self, call: Call, name: str) -> dict[str, Any]:
        """name: or its ARN, which is in lower case."""
        bare = name.rpartition("/")[2]
        is_arn = name.startswith("arn:")
        with self._lock:
            there = next(
                (one for key, one in self._pipelines.items() if bare == (key.lower() if is_arn else key)), None
            )
        if there is None:
            raise ResourceNotFound(f"Pipeline {call.arn('pipeline', bare)} does not exist.")
        return there

    def _text(self, asked: Mapping[str, Any], role: str) -> str:
        if "PipelineDefinition" in asked and "PipelineDefinitionS3Location" in asked:
            raise ValidationException("Only one of PipelineDefinition and PipelineDefinitionS3Location can be given.")
        if "PipelineDefinition" in asked:
            return str(asked["PipelineDefinition"])
        where = asked.get("PipelineDefinitionS3Location")
        if where is None:
            raise ValidationException("One of PipelineDefinition and PipelineDefinitionS3Location must be given.")
        if "VersionId" in where:
            raise NotPlayed("sagemaker", "PipelineDefinitionS3Location with VersionId")
        try:
            return self._around.read(f"s3://{where['Bucket']}/{where['ObjectKey']}", role).decode()
        except (DataFault, UnicodeDecodeError) as error:
            raise ValidationException(f"The pipeline definition cannot be read: {error}") from error

    # -- executions ----------------------------------------------------------------------------------------------------

    def _start(self, call: Call) -> Mapping[str, Any]:
        asked = call.parameters
        there = self._there(call, asked["PipelineName"])
        role = asked.get("RoleArn", there["RoleArn"])
        self._rights.check_role(role)
        definition = parse(there["PipelineDefinition"])
        given = {one["Name"]: one["Value"] for one in asked.get("PipelineParameters", ())}
        definition.given(given)
        now = self._clock.now()
        at_once = asked.get("ParallelismConfiguration", there.get("ParallelismConfiguration", {}))
        execution = Asked(
            arn=f"{there['PipelineArn']}/execution/{_id()}",
            pipeline=there["PipelineName"],
            pipeline_arn=there["PipelineArn"],
            role=role,
            display_name=asked.get("PipelineExecutionDisplayName", f"execution-{int(now.timestamp() * 1000)}"),
            description=asked.get("PipelineExecutionDescription"),
            text=there["PipelineDefinition"],
            given=given,
            n_at_once=at_once.get("MaxParallelExecutionSteps"),
            created_at=now,
        )
        token = f"{there['PipelineArn']} {asked['ClientRequestToken']}"
        arn = self.executions.begin(token, lambda: Execution(execution, definition, self._around))
        if arn == execution.arn:
            there["LastRunTime"] = now
        return {"PipelineExecutionArn": arn}

    def _stop(self, call: Call) -> Mapping[str, Any]:
        found = self.executions.get(call)
        if found.state.is_over or found.execution is None:
            raise ConflictException(
                f"Pipeline execution {found.asked.arn} is {found.state.status}: it cannot be stopped."
            )
        found.execution.stop()
        return {"PipelineExecutionArn": found.asked.arn}

    def _retry(self, call: Call) -> Mapping[str, Any]:
        found = self.executions.get(call)
        definition = parse(found.asked.text)
        token = f"retry {found.asked.arn} {call.parameters['ClientRequestToken']}"
        if not self.executions.retry(
            token, found, lambda: Execution(found.asked, definition, self._around, found.state)
        ):
            raise ConflictException(
                f"Pipeline execution {found.asked.arn} is {found.state.status}: only one that has failed or was stopped "
                f"can be retried."
            )
        return {"PipelineExecutionArn": found.asked.arn}

    def _rename(self, call: Call) -> Mapping[str, Any]:
        asked, found = call.parameters, self.executions.get(call)
        found.rename(asked.get("PipelineExecutionDisplayName"), asked.get("PipelineExecutionDescription"))
        return {"PipelineExecutionArn": found.asked.arn}

    def _describe_execution(self, call: Call) -> Mapping[str, Any]:
        found = self.executions.get(call)
        asked, state = found.asked, found.state
        return {
            "PipelineArn": asked.pipeline_arn,
            "PipelineExecutionArn": asked.arn,
            "PipelineExecutionDisplayName": asked.display_name,
            "PipelineExecutionStatus": state.status,
            "PipelineExecutionDescription": asked.description,
            "FailureReason": state.failure,
            "CreationTime": asked.created_at,
            "LastModifiedTime": state.modified_at,
            "ParallelismConfiguration": {"MaxParallelExecutionSteps": asked.n_at_once} if asked.n_at_once else None,
            "RoleArn": asked.role,
            "CreatedBy": call.caller,
            "LastModifiedBy": call.caller,
        }

    def _describe_text(self, call: Call) -> Mapping[str, Any]:
        asked = self.executions.get(call).asked
        return {"PipelineDefinition": asked.text, "CreationTime": asked.created_at}

    def _list_executions(self, call: Call) -> Mapping[str, Any]:
        asked = call.parameters
        arn = self._there(call, asked["PipelineName"])["PipelineArn"]
        found, token = listed(
            self.executions.of(arn),
            _with_times(asked),
            lambda one: {
                "Name": one.asked.arn,
                "PipelineExecutionArn": one.asked.arn,
                "CreationTime": one.asked.created_at,
            },
        )
        summaries = [
            {
                "PipelineExecutionArn": one.asked.arn,
                "StartTime": one.asked.created_at,
                "PipelineExecutionStatus": one.state.status,
                "PipelineExecutionDescription": one.asked.description,
                "PipelineExecutionDisplayName": one.asked.display_name,
                "PipelineExecutionFailureReason": one.state.failure,
            }
            for one in found
        ]
        return {"PipelineExecutionSummaries": summaries, "NextToken": token}

    def _list_steps(self, call: Call) -> Mapping[str, Any]:
        asked = call.parameters
        found = self.executions.get(call)
        shown = parse(found.asked.text).steps
        runs = list(found.state.runs)
        if asked.get("SortOrder", "Descending") == "Descending":
            runs.reverse()
        some, token = page(runs, asked)
        steps = [
            {
                "StepName": run.name,
                "StartTime": run.started_at,
                "EndTime": run.ended_at,
                "StepStatus": run.status,
                "FailureReason": run.failure,
                "Metadata": run.metadata or {},
                "AttemptCount": run.n_attempts,
                **shown[run.name].shown,
            }
            for run in some
        ]
        return {"PipelineExecutionSteps": steps, "NextToken": token}

    def _list_parameters(self, call: Call) -> Mapping[str, Any]:
        given = [{"Name": name, "Value": value} for name, value in self.executions.get(call).asked.given.items()]
        some, token = page(given, call.parameters)
        return {"PipelineParameters": some, "NextToken": token}


class Found:
    """An execution that runs, or ran; one of a platform before this one has no thread."""

    def __init__(self, asked: Asked, state: State, execution: Execution | None = None) -> None:
        self._asked = asked
        self._state = state
        self.execution = execution

    @property
    def asked(self) -> Asked:
        return self._asked if self.execution is None else self.execution.asked

    @property
    def state(self) -> State:
        return self._state if self.execution is None else self.execution.state

    def rename(self, display_name: str | None, description: str | None) -> None:
        if self.execution is not None:
            self.execution.rename(display_name, description)
        else:
            self._asked = self._asked.renamed(display_name, description)


class Executions:
    """Of all pipelines, by ARN. Any thread may ask."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: dict[str, Found] = {}
        self._tokens: dict[str, str] = {}
        self._is_closed = False

    def begin(self, token: str, make: Callable[[], Execution]) -> str:
        """Its ARN; of a start that was asked for before, that one's."""
        with self._lock:
            if token in self._tokens:
                return self._tokens[token]
            if self._is_closed:
                raise ConflictException("the platform ends")
            execution = make()
            arn = execution.asked.arn
            self._tokens[token] = arn
            self._found[arn] = Found(execution.asked, execution.state, execution)
        execution.begin()
        return arn

    def retry(self, token: str, found: Found, make: Callable[[], Execution]) -> bool:
        """make: for one of a platform before this one. False when it cannot be retried."""
        with self._lock:
            if token in self._tokens:
                return True
            if found.execution is None:
                found.execution = make()
            self._tokens[token] = found.asked.arn
        # Not with the lock held: it sends an event, of which every execution hears.
        is_done = found.execution.retry()
        if not is_done:
            with self._lock:
                del self._tokens[token]
        return is_done

    def get(self, call: Call) -> Found:
        """Raises ResourceNotFound."""
        arn = call.parameters["PipelineExecutionArn"]
        found = self._found.get(arn)
        if found is None:
            raise ResourceNotFound(f"Pipeline execution with ARN {arn} does not exist.")
        return found

    def of(self, pipeline_arn: str) -> list[Found]:
        return [one for one in self._all() if one.asked.pipeline_arn == pipeline_arn]

    def forget(self, pipeline_arn: str) -> None:
        with self._lock:
            self._found = {arn: one for arn, one in self._found.items() if one.asked.pipeline_arn != pipeline_arn}

    def hear(self, event: Event) -> None:
        for one in self._all():
            if one.execution is not None and one.state.status not in OVER:
                one.execution.hear(event.resources)

    def close(self) -> None:
        with self._lock:
            self._is_closed = True
        for one in self._all():
            if one.execution is not None:
                one.execution.close()

    def dump(self) -> Any:
        return [dumped(one.asked, one.state) for one in self._all()]

    def restore(self, value: Any) -> None:
        self._found = {asked.arn: Found(asked, state) for asked, state in map(restored, value)}

    def _all(self) -> list[Found]:
        with self._lock:
            return list(self._found.values())


def _with_times(asked: Mapping[str, Any]) -> dict[str, Any]:
    """What these operations call CreatedAfter is CreationTimeAfter to all others."""
    times = {
        f"CreationTime{when}": asked[f"Created{when}"] for when in ("After", "Before") if f"Created{when}" in asked
    }
    return {**asked, **times}


def _id() -> str:
    return "".join(random.SystemRandom().choices(string.ascii_lowercase + string.digits, k=12))
