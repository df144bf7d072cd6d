"""One run of a pipeline, on a thread of its own: which step is next, and what became of each.

Rule: each state is told once, in order. Steps that need nothing of one another run beside each other; after a failure none
begins, and those that run are let end.

Sources: SageMaker guide, automating-sagemaker-with-eventbridge (both events); BC StopPipelineExecution; sagemaker-python-sdk,
tests/integ/sagemaker/workflow/test_fail_steps.py (outcomes and messages). What a failure does to other steps is inferred.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from container.platform.bus import Bus
from container.platform.clock import Clock
from container.platform.jobs.objects import DataFault
from container.platform.pipelines.conditions import ConditionInvalid, holds
from container.platform.pipelines.definition import CONDITION, FAIL, PLAYED, Definition, Step
from container.platform.pipelines.expressions import NotFound, PathInvalid, Scope, resolved, text
from container.platform.pipelines.steps import KINDS, Ask, Began, StepRefused, begin

log = logging.getLogger("mme.platform.pipelines")

EXECUTING, STOPPING, STOPPED, FAILED, SUCCEEDED = "Executing", "Stopping", "Stopped", "Failed", "Succeeded"
STARTING = "Starting"  # of a step
OVER = (STOPPED, FAILED, SUCCEEDED)
ONE_FAILED = "Step failure: One or multiple steps failed."
BROKEN = "InternalServerError: We encountered an internal error. Please try again."
ENDED = "InternalServerError: the platform ended while this was under way"
EXECUTION_EVENT = "SageMaker Model Building Pipeline Execution Status Change"
STEP_EVENT = "SageMaker Model Building Pipeline Execution Step Status Change"
MAX_REASON = 1024


@dataclass(frozen=True, slots=True)
class Run:
    """What became of a step. metadata: as ListPipelineExecutionSteps has it. n_attempts: with those before a retry."""

    name: str
    status: str
    started_at: datetime
    ended_at: datetime | None = None
    failure: str | None = None
    metadata: Mapping[str, Mapping[str, Any]] | None = None
    n_attempts: int = 1

    @property
    def is_over(self) -> bool:
        return self.status in OVER


@dataclass(frozen=True, slots=True)
class Asked:
    """What a start asked for, and where it goes."""

    arn: str
    pipeline: str
    pipeline_arn: str
    role: str
    display_name: str
    description: str | None
    text: str
    given: Mapping[str, str]
    n_at_once: int | None
    created_at: datetime

    @property
    def id(self) -> str:
        return self.arn.rpartition("/")[2]

    def renamed(self, display_name: str | None, description: str | None) -> Asked:
        """None keeps what there is."""
        return replace(
            self,
            display_name=display_name or self.display_name,
            description=self.description if description is None else description,
        )


@dataclass(frozen=True, slots=True)
class State:
    """An execution at one moment. runs: of the steps that have begun, in that order. tried: steps that a retry does again."""

    status: str
    modified_at: datetime
    failure: str | None = None
    ended_at: datetime | None = None
    runs: tuple[Run, ...] = ()
    tried: Mapping[str, int] = field(default_factory=dict)

    @property
    def is_over(self) -> bool:
        return self.status in OVER


@dataclass(frozen=True, slots=True)
class Surroundings:
    """ask: operations of SageMaker. read: an object, as a role may."""

    clock: Clock
    bus: Bus
    ask: Ask
    read: Callable[[str, str], bytes]


class Execution:
    """Any thread may ask; `hear` is to be called with what events are about."""

    def __init__(self, asked: Asked, definition: Definition, around: Surroundings, state: State | None = None) -> None:
        """state: of one that was over, to be tried again."""
        self.asked = asked
        self._definition = definition
        self._around = around
        self._changed = threading.Condition()
        self._has_news = False
        self._is_wanted_stopped = False
        self._is_closed = False
        self._state = state or State(EXECUTING, asked.created_at)
        self._running: dict[str, Began] = {}
        self._told: dict[str, Mapping[str, Any]] = {}  # descriptions of steps that are over
        self._parameters = definition.given(asked.given)
        self._thread = self._new_thread()

    @property
    def state(self) -> State:
        with self._changed:
            return self._state

    def rename(self, display_name: str | None, description: str | None) -> None:
        with self._changed:
            self.asked = self.asked.renamed(display_name, description)
            self._state = replace(self._state, modified_at=self._around.clock.now())

    def begin(self) -> None:
        self._tell(None)
        self._thread.start()

    def retry(self) -> bool:
        """Go on where it failed or was stopped: what succeeded is not done again. False when it is neither."""
        with self._changed:
            before = self._state
            if before.status not in (FAILED, STOPPED) or self._is_closed:
                return False
            again = [run for run in before.runs if run.status != SUCCEEDED]
            self._state = State(
                EXECUTING,
                self._around.clock.now(),
                runs=tuple(run for run in before.runs if run.status == SUCCEEDED),
                tried={**before.tried, **{run.name: run.n_attempts for run in again}},
            )
            self._is_wanted_stopped = False
            self._thread = self._new_thread()
        self._tell(before.status)
        self._thread.start()
        return True

    def _new_thread(self) -> threading.Thread:
        return threading.Thread(target=self._live, name=f"pipeline {self.asked.id}", daemon=True)

    def hear(self, arns: Sequence[str]) -> None:
        with self._changed:
            if any(began.arn in arns for began in self._running.values()):
                self._ring()

    def stop(self) -> None:
        """Does nothing to one that is over."""
        with self._changed:
            if self._state.status != EXECUTING:
                return
            self._is_wanted_stopped = True
            self._state = replace(self._state, status=STOPPING, modified_at=self._around.clock.now())
            self._ring()
        self._tell(EXECUTING)

    def close(self) -> None:
        """It ends with the platform, without a word."""
        with self._changed:
            self._is_closed = True
            self._ring()
        if self._thread.ident is not None:
            self._thread.join()

    def _ring(self) -> None:
        self._has_news = True
        self._changed.notify_all()

    # -- on the execution's own thread ---------------------------------------------------------------------------------

    def _live(self) -> None:
        try:
            self._work()
        except Exception:
            log.exception("pipeline execution %s", self.asked.arn)
            for name in list(self._running):
                self._move(name, FAILED, failure=BROKEN)
            self._end(FAILED, BROKEN)

    def _work(self) -> None:
        unplayed = [step for step in self._definition.steps.values() if step.type not in PLAYED]
        if unplayed:
            said = ", ".join(f"{step.name} ({step.type})" for step in unplayed)
            log.warning("pipeline %s: mme platform does not play %s", self.asked.pipeline, said)
            return self._end(FAILED, f"mme platform does not play these steps: {said}")
        self._told |= {run.name: self._told_again(run) for run in self.state.runs if run.name not in self._told}
        has_stopped_them = False
        while not self._is_closed:
            if self._is_wanted_stopped and not has_stopped_them:
                has_stopped_them = True
                self._stop_steps()
            if self._look() or self._begin_ready():
                continue
            if not self._running:
                return self._end(*self._outcome())
            with self._changed:
                self._changed.wait_for(lambda: self._has_news)
                self._has_news = False
        return None

    def _told_again(self, run: Run) -> Mapping[str, Any]:
        """Of a step that succeeded in a platform before this one."""
        step, metadata = self._definition.steps[run.name], run.metadata or {}
        if step.type == CONDITION:
            return {"Outcome": str(metadata["Condition"]["Outcome"]).lower()}
        kind = KINDS[step.type]
        arn = str(metadata[kind.metadata]["Arn"])
        return Began(kind, arn.rpartition("/")[2] if kind.name else arn, arn).described(self._around.ask)

    def _outcome(self) -> tuple[str, str | None]:
        runs = self.state.runs
        if any(run.status == FAILED for run in runs):
            return FAILED, ONE_FAILED
        return (STOPPED if self._is_wanted_stopped else SUCCEEDED), None

    def _look(self) -> bool:
        """Whether any of the running steps is over."""
        is_any = False
        for name, began in list(self._running.items()):
            told = began.described(self._around.ask)
            status = {"Completed": SUCCEEDED, "Failed": FAILED, "Stopped": STOPPED}.get(str(told[began.kind.status]))
            if status is None:
                continue
            is_any = True
            self._told[name] = told
            failure = str(told.get("FailureReason") or "") or None
            if status == STOPPED and not self._is_wanted_stopped:  # by somebody else
                status, failure = FAILED, f"ClientError: the job {began.name} was stopped"
            with self._changed:
                del self._running[name]
            self._move(name, status, failure=failure)
        return is_any

    def _begin_ready(self) -> bool:
        if self._is_wanted_stopped or any(run.status == FAILED for run in self.state.runs):
            return False
        is_any = False
        for step in self._definition.steps.values():
            most = self.asked.n_at_once
            if (most is None or len(self._running) < most) and self._is_ready(step):
                is_any = True
                self._begin(step)
        return is_any

    def _is_ready(self, step: Step) -> bool:
        runs = {run.name: run for run in self.state.runs}
        if step.name in runs or any(run.status == FAILED for run in runs.values()):
            return False
        if any(name not in runs or runs[name].status != SUCCEEDED for name in step.needs):
            return False
        return step.within is None or self._told[step.within[0]]["Outcome"] == text(step.within[1])

    def _begin(self, step: Step) -> None:
        now = self._around.clock.now()
        with self._changed:
            run = Run(step.name, STARTING, now, n_attempts=1 + self._state.tried.get(step.name, 0))
            self._state = replace(self._state, modified_at=now, runs=(*self._state.runs, run))
        self._tell_step(step, None)
        try:
            arguments = self._arguments(step)
            if step.type == CONDITION:
                return self._decide(step)
            if step.type == FAIL:
                return self._fail(step, arguments)
            self._ask_for(step, arguments)
        except StepRefused as error:
            self._move(step.name, FAILED, failure=f"{error}{self._no_retry(step)}")
        except (NotFound, PathInvalid, ConditionInvalid, DataFault) as error:
            self._move(step.name, FAILED, failure=f"ClientError: {error}")
        return None

    def _arguments(self, step: Step) -> Mapping[str, Any]:
        if step.type == CONDITION:  # its own words are looked at one by one
            return {}
        found: Mapping[str, Any] = resolved(step.arguments, self._scope())
        return found

    def _decide(self, step: Step) -> None:
        conditions = step.arguments.get("Conditions")
        if not isinstance(conditions, list):
            raise ConditionInvalid("a Condition step needs Conditions")
        scope = self._scope()
        outcome = all(holds(one, scope) for one in conditions)
        self._told[step.name] = {"Outcome": text(outcome)}
        self._move(step.name, SUCCEEDED, metadata={"Condition": {"Outcome": str(outcome)}})

    def _fail(self, step: Step, arguments: Mapping[str, Any]) -> None:
        message = text(arguments.get("ErrorMessage", ""))
        self._move(step.name, FAILED, failure=message or None, metadata={"Fail": {"ErrorMessage": message}})

    def _ask_for(self, step: Step, arguments: Mapping[str, Any]) -> None:
        kind = KINDS[step.type]
        began = begin(kind, self.asked.id, step.name, arguments, self._around.ask)
        metadata = {kind.metadata: {"Arn": began.arn}}
        if not kind.status:
            self._told[step.name] = began.described(self._around.ask)
            return self._move(step.name, SUCCEEDED, metadata=metadata)
        with self._changed:
            self._running[step.name] = began
            self._has_news = True  # it may be over by now, and was not listened to
        return self._move(step.name, EXECUTING, metadata=metadata)

    def _stop_steps(self) -> None:
        for name, began in list(self._running.items()):
            self._move(name, STOPPING)
            began.stop(self._around.ask)

    def _scope(self) -> Scope:
        asked, now = self.asked, self._around.clock.now()
        execution = {
            "PipelineName": asked.pipeline,
            "PipelineArn": asked.pipeline_arn,
            "PipelineExecutionId": asked.id,
            "PipelineExecutionArn": asked.arn,
            "StartDateTime": _iso(asked.created_at),
            "CurrentDateTime": _iso(now),
        }
        return Scope(
            self._parameters,
            execution,
            self._told,
            lambda uri: self._around.read(uri, asked.role),
            self._file_uri,
        )

    def _file_uri(self, step: str, file: str) -> str:
        found = self._definition.steps[step].files.get(file)
        if found is None:
            raise NotFound(f"step {step} has no property file {file}")
        output, path = found
        told = self._told.get(step, {})
        outputs = told.get("ProcessingOutputConfig", {}).get("Outputs", [])
        uri = next((one["S3Output"]["S3Uri"] for one in outputs if one["OutputName"] == output), None)
        if uri is None:
            raise NotFound(f"step {step} has no output {output} for its property file {file}")
        return f"{uri.rstrip('/')}/{path}"

    def _no_retry(self, step: Step) -> str:
        return (
            f"\nRetry not appropriate on execution of step with PipelineExecutionArn {self.asked.arn} and StepId "
            f"{step.name}."
        )

    def _move(self, name: str, status: str, **fields: Any) -> None:
        """A step to its next state."""
        now = self._around.clock.now()
        if fields.get("failure"):
            fields["failure"] = fields["failure"][:MAX_REASON]
        with self._changed:
            before = next(run for run in self._state.runs if run.name == name)
            after = replace(before, status=status, ended_at=now if status in OVER else None, **fields)
            runs = tuple(after if run.name == name else run for run in self._state.runs)
            self._state = replace(self._state, modified_at=now, runs=runs)
        self._tell_step(self._definition.steps[name], before.status)

    def _end(self, status: str, failure: str | None) -> None:
        now = self._around.clock.now()
        with self._changed:
            before = self._state.status
            self._state = replace(self._state, status=status, failure=failure, modified_at=now, ended_at=now)
            self._changed.notify_all()
        self._tell(before)

    # -- events --------------------------------------------------------------------------------------------------------

    def _tell(self, before: str | None) -> None:
        asked, state = self.asked, self.state
        self._send(
            EXECUTION_EVENT,
            {
                "pipelineExecutionDescription": asked.description,
                "pipelineExecutionDisplayName": asked.display_name,
                "currentPipelineExecutionStatus": state.status,
                "previousPipelineExecutionStatus": before,
                "executionStartTime": _iso(asked.created_at),
                "executionEndTime": _iso(state.ended_at),
            },
        )

    def _tell_step(self, step: Step, before: str | None) -> None:
        run = next(one for one in self.state.runs if one.name == step.name)
        self._send(
            STEP_EVENT,
            {
                "metadata": _lower(run.metadata or {}),
                "stepStartTime": _iso(run.started_at),
                "stepEndTime": _iso(run.ended_at),
                "stepName": step.name,
                "stepType": step.type,
                "previousStepStatus": before,
                "currentStepStatus": run.status,
                "failureReason": run.failure,
            },
        )

    def _send(self, kind: str, detail: Mapping[str, Any]) -> None:
        asked = self.asked
        said = {name: value for name, value in detail.items() if value is not None}
        about = {"pipelineArn": asked.pipeline_arn, "pipelineExecutionArn": asked.arn}
        self._around.bus.send(kind, {**said, **about}, [asked.pipeline_arn, asked.arn])


def dumped(asked: Asked, state: State) -> Any:
    return {"asked": asdict(asked), "state": asdict(state)}


def restored(value: Mapping[str, Any]) -> tuple[Asked, State]:
    """One that was not over ended with the platform that had it."""
    runs = tuple(
        run if run.is_over else replace(run, status=FAILED, ended_at=run.started_at, failure=ENDED)
        for run in (Run(**one) for one in value["state"]["runs"])
    )
    state = State(**{**value["state"], "runs": runs})
    if not state.is_over:
        state = replace(state, status=FAILED, failure=ENDED, ended_at=state.modified_at)
    return Asked(**value["asked"]), state


def _iso(at: datetime | None) -> str | None:
    return None if at is None else at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _lower(value: Any) -> Any:
    """Names of members as events have them, beginning with a small letter."""
    if isinstance(value, Mapping):
        return {f"{name[:1].lower()}{name[1:]}": _lower(one) for name, one in value.items()}
    return value
