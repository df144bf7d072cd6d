"""One request, from its headers and body to its answer.

Rule: this is the only place that knows status codes. Every ServingError has a row in `FAULTS`; anything else that
surfaces is a fault of ours, becomes 500 and is logged with its trace.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import orjson

from handler.attributes import OUTPUT, TARGET, TIMING, parse_attributes
from handler.cache.model_cache import Borrowed, ModelCache
from handler.errors import (
    AcceptUnsupported,
    ArtifactBroken,
    ArtifactForbidden,
    ArtifactMissing,
    ArtifactRefused,
    ArtifactUnavailable,
    ContentTypeUnsupported,
    HookFailed,
    ModelNotLoaded,
    ModelNotReady,
    NoRoom,
    PayloadInvalid,
    RequestError,
    ServingError,
    TargetInvalid,
    Unavailable,
    UnloadedMeanwhile,
)
from handler.hooks.module import Hooks
from handler.hooks.scoring import HookedScoring
from handler.libxgboost import Floats, Kind, XGBoostError
from handler.messages import Answer, Request
from handler.outputs import parse_outputs, plan_outputs
from handler.payload import Predictions, choose_media_type, decode, encode, fit_rows
from handler.payload.media import CSV
from handler.predictor import FoldsDisagree, Scorer
from handler.targets import as_sent, parse_target
from handler.telemetry.recorder import BROKEN_ARTIFACTS, Invocation, Recorder

log = logging.getLogger(__name__)

TARGET_HEADER = "x-amzn-sagemaker-target-model"
ATTRIBUTES_HEADER = "x-amzn-sagemaker-custom-attributes"
INFERENCE_ID_HEADER = "x-amzn-sagemaker-inference-id"


@dataclass(frozen=True, slots=True)
class Fault:
    """How an error reaches the caller: as the exception boto3 raises for `type`.

    original   the status inside a ModelError, which SageMaker puts around whatever a container answers
    """

    status: int
    type: str
    original: int | None = None


_VALIDATION = Fault(400, "ValidationError")
_INTERNAL = Fault(500, "InternalFailure")
_UNAVAILABLE = Fault(503, "ServiceUnavailable")


def _model_error(original: int) -> Fault:
    return Fault(424, "ModelError", original)


# Looked up along the error's classes, so a row for a parent holds for its children.
# Source: botocore's sagemaker-runtime model, InvokeEndpoint errors.
FAULTS: dict[type[BaseException], Fault] = {
    TargetInvalid: _VALIDATION,
    ArtifactMissing: _VALIDATION,
    ArtifactForbidden: _VALIDATION,
    ContentTypeUnsupported: _model_error(415),
    AcceptUnsupported: _model_error(406),
    RequestError: _model_error(400),
    HookFailed: _model_error(500),  # or what the hook said, see fault_of
    ArtifactBroken: _model_error(422),
    ArtifactRefused: _model_error(422),
    ArtifactUnavailable: _UNAVAILABLE,
    ModelNotReady: Fault(429, "ModelNotReadyException"),
    NoRoom: _model_error(507),
    ModelNotLoaded: _UNAVAILABLE,
    UnloadedMeanwhile: _UNAVAILABLE,
    Unavailable: _UNAVAILABLE,
}

# Hosted, SageMaker itself puts every answer but 200 into a ModelError, and reads the status of a load: 507 has it unload what
# it likes least. What has no row here is answered with the status inside the ModelError above.
PLAIN: dict[type[BaseException], int] = {
    ArtifactMissing: 404,
    ModelNotLoaded: 404,
    UnloadedMeanwhile: 409,
    ModelNotReady: 503,
}

# SageMaker passes no header of a container's on to the caller but this one, so it tells cold from warm.
_WARM = ((ATTRIBUTES_HEADER, "cache=hit"),)
# A body that is read and scored in about the time that handing it to another thread would take: some twenty rows.
SMALL_BODY_BYTES = 2048
# CSV is read several times as fast as the rest: some hundred rows. Through a model of two hundred trees they walk in 0.1 ms.
SMALL_CSV_BYTES = 7000
SMALL_MODEL_BYTES_FOR_CSV = 256 << 10
# Some five thousand trees, which a row walks through in about a millisecond.
SMALL_MODEL_BYTES = 8 << 20
_NO_ATTRIBUTES: Mapping[str, str] = {}


class Journal(Protocol):
    """Where single requests are written down, such as the access log."""

    def wants(self, status: int) -> bool: ...
    def write(self, record: Invocation) -> None: ...


class Using(Protocol):
    """A model while a request uses it."""

    @property
    def model(self) -> Scorer: ...
    @property
    def is_hit(self) -> bool: ...
    @property
    def wait_us(self) -> int: ...


class Held(Protocol):
    """A model that a caller holds for more than one request: hosted, for as long as its connection lives.

    use   the model; raises why there is none
    """

    @property
    def name(self) -> str: ...
    def use(self) -> AbstractContextManager[Using]: ...


@dataclass(frozen=True, slots=True)
class _Present:
    """A model that was borrowed before the request was looked into; whoever borrowed it gives it back."""

    name: str
    borrowed: Borrowed

    def use(self) -> AbstractContextManager[Using]:
        return nullcontext(self.borrowed)


class Dispatcher:
    """Answers requests from models in the cache; any number of threads may call it at once.

    framing          how errors are written
    wait_s           how long a request waits for its model to load
    default_outputs  what to predict when the request does not say (see handler/outputs.py); empty for the plain score
    one_line         CSV as AWS's multi-model handler writes it, all on one line
    hooks            the endpoint's own code in the place of ours; models must then come from `ObjectMaker`
    """

    def __init__(
        self,
        cache: ModelCache,
        recorder: Recorder,
        journal: Journal | None = None,
        *,
        wait_s: float,
        framing: Framing | None = None,
        default_outputs: tuple[str, ...] = (),
        one_line: bool = False,
        hooks: Hooks | None = None,
    ) -> None:
        self._cache = cache
        self._recorder = recorder
        self._journal = journal
        self._wait_s = wait_s
        self._framing = framing or SAGEMAKER
        self._default_outputs = default_outputs
        self._one_line = one_line
        self._hooked = HookedScoring(hooks, one_line=one_line) if hooks is not None else None
        self._is_slow = hooks is not None or bool(default_outputs)

    def answer(self, request: Request, own: Held | None = None, *, wait_s: float | None = None) -> Answer:
        """The answer to a request, whatever happens.

        own     the model to ask; None is the one in the cache that the request names
        wait_s  how long to wait for its load; None is as long as ever
        """
        started = time.perf_counter_ns()
        headers = request.headers
        target: str | None = None
        try:
            text = headers.get(ATTRIBUTES_HEADER)
            attributes = parse_attributes(text) if text else _NO_ATTRIBUTES
            target = headers.get(TARGET_HEADER, own.name) if own else _target(headers.get(TARGET_HEADER), attributes)
            hooked = self._hooked
            media_type = choose_media_type(headers.get("accept")) if hooked is None else ""
            with (
                own.use() if own else self._cache.borrow(target, self._wait_s if wait_s is None else wait_s) as borrowed
            ):
                held = time.perf_counter_ns()
                model = borrowed.model
                outputs = parse_outputs(attributes[OUTPUT]) if OUTPUT in attributes else self._default_outputs
                if hooked is None:
                    facts = model.facts
                    rows = decode(request.body, headers.get("content-type", ""), facts.n_features)
                    values = fit_rows(rows, facts.n_features, facts.feature_names)
                    decoded = time.perf_counter_ns()
                    predictions = _predict(model, values, outputs) if outputs else Predictions(model.predict(values))
                    predicted = time.perf_counter_ns()
                else:
                    score = partial(_predict, model, outputs=outputs)
                    body, media_type, decoded, predicted = hooked.answer(request, target, model, score)
            if hooked is None:
                body = encode(predictions, media_type, one_line=self._one_line)
        except Exception as error:  # noqa: BLE001  whatever it is, the caller gets an answer and the thread lives on
            return self._refuse(error, request, target, started)
        ended = time.perf_counter_ns()
        self._recorder.invocation(
            target, borrowed.is_hit, (ended - started) // 1000, (ended - held) // 1000, 200, borrowed.wait_us
        )
        wants_timing = TIMING in attributes
        journal = self._journal if self._journal is not None and self._journal.wants(200) else None
        if borrowed.is_hit and not wants_timing and journal is None:
            return Answer(200, media_type, body, _WARM)
        stages_us = (
            ("wait", borrowed.wait_us),
            ("decode", (decoded - held) // 1000),
            ("predict", (predicted - decoded) // 1000),
            ("encode", (ended - predicted) // 1000),
        )
        total_us = (ended - started) // 1000
        if journal is not None:
            journal.write(Invocation(_request_id(request), target, 200, borrowed.is_hit, total_us, stages_us))
        return Answer(200, media_type, body, ((ATTRIBUTES_HEADER, _told(borrowed, stages_us if wants_timing else ())),))

    def answer_at_once(self, request: Request) -> Answer | None:
        """The answer when nothing has to be waited for and little computed: a small plain body for a model in memory.
        None otherwise; `answer` then takes its time, on a thread that has it."""
        headers = request.headers
        raw = headers.get(TARGET_HEADER)
        if raw is None or ATTRIBUTES_HEADER in headers or self._is_slow:
            return None
        most_model_bytes = SMALL_MODEL_BYTES
        if len(request.body) > SMALL_BODY_BYTES:
            if len(request.body) > SMALL_CSV_BYTES or headers.get("content-type") != CSV:
                return None
            most_model_bytes = SMALL_MODEL_BYTES_FOR_CSV
        borrowed = self._cache.borrow_present(as_sent(raw))
        if borrowed is None:
            # In a storm of first calls, turning one away costs less than waking a thread to do it.
            return self.answer(request, wait_s=0.0) if self._cache.is_crowded else None
        with borrowed:
            if borrowed.model.facts.resident_bytes > most_model_bytes:
                return None
            return self.answer(request, _Present(raw, borrowed))

    def _refuse(self, error: Exception, request: Request, target: str | None, started: int) -> Answer:
        fault = self._framing.fault_of(error)
        if fault.status == _INTERNAL.status:
            log.error("request for %s failed", target, exc_info=error)
        if isinstance(error, ArtifactBroken):
            self._recorder.count(BROKEN_ARTIFACTS)
        total_us = (time.perf_counter_ns() - started) // 1000
        # Only names that proved to exist get figures of their own; callers can invent any number of others.
        known = target if target is not None and target in self._cache else None
        self._recorder.invocation(known, None, total_us, None, fault.status)
        if self._journal is not None and self._journal.wants(fault.status):
            self._journal.write(
                Invocation(_request_id(request), target, fault.status, None, total_us, error=str(error))
            )
        return self._framing.refusal(error, fault)


def _target(header: str | None, attributes: Mapping[str, str]) -> str:
    raw = header if header is not None else attributes.get(TARGET)
    if raw is None:
        raise TargetInvalid(
            None,
            "no target model: set TargetModel, or TargetModel=... in CustomAttributes where the endpoint refuses it",
        )
    return parse_target(as_sent(raw))


def _predict(model: Scorer, values: Floats, outputs: tuple[str, ...]) -> Predictions:
    if not outputs:
        return Predictions(model.predict(values))
    plan = plan_outputs(outputs, model.facts.objective, model.facts.n_outputs)
    plan.check_size(len(values), model.facts.n_features)
    try:
        raw = {kind: model.predict(values, Kind[kind.upper()]) for kind in plan.kinds}
    except (XGBoostError, FoldsDisagree) as error:  # a linear booster has no leaves, for one
        raise PayloadInvalid("", f"this model cannot give {', '.join(outputs)}: {error}") from error
    return plan.answer(raw)


def _request_id(request: Request) -> str:
    return request.headers.get(INFERENCE_ID_HEADER) or request.request_id


def _told(borrowed: Using, stages_us: tuple[tuple[str, int], ...]) -> str:
    """What the caller is told in the custom attributes: `cache=miss,load_ms=12`, and its stages when it asked."""
    told = "cache=hit" if borrowed.is_hit else f"cache=miss,load_ms={borrowed.wait_us // 1000}"
    return "".join([told, *(f",{stage}_us={us}" for stage, us in stages_us)])


def fault_of(error: BaseException) -> Fault:
    """The row of FAULTS for an error; 500 InternalFailure for what is none of ours."""
    if isinstance(error, HookFailed):
        return _model_error(error.status)
    for kind in type(error).__mro__:
        if kind in FAULTS:
            return FAULTS[kind]
    return _INTERNAL


def plain_fault_of(error: BaseException) -> Fault:
    """The status of an error on its own, with its class's name for a type."""
    if isinstance(error, HookFailed):
        return Fault(error.status, type(error).__name__)
    for kind in type(error).__mro__:
        if kind in PLAIN:
            return Fault(PLAIN[kind], type(error).__name__)
        if kind in FAULTS:
            return Fault(FAULTS[kind].original or FAULTS[kind].status, type(error).__name__)
    return _INTERNAL


def _message(error: BaseException) -> str:
    return str(error) if isinstance(error, ServingError) else "internal failure; the endpoint's log has the trace"


def refusal(error: Exception, fault: Fault) -> Answer:
    """An error as SageMaker writes it, so that boto3 raises the exception of that type."""
    message = _message(error)
    if isinstance(error, (ArtifactMissing, ArtifactForbidden)):
        # SageMaker's own first words, which people search for
        message = f"Failed to download model data: {message}"
    fields: dict[str, str | int] = {"Message": message}
    if fault.original is not None:
        fields |= {"OriginalStatusCode": fault.original, "OriginalMessage": message}
    headers = [("x-amzn-errortype", fault.type)]
    if fault is _UNAVAILABLE:
        headers.append(("Retry-After", str(getattr(error, "retry_after_s", 1))))
    return Answer(fault.status, "application/json", orjson.dumps(fields), tuple(headers))


def plain_refusal(error: Exception, fault: Fault) -> Answer:
    """An error in the shape of MMS's own."""
    fields = {"code": fault.status, "type": fault.type, "message": _message(error)}
    return Answer(fault.status, "application/json", orjson.dumps(fields))


@dataclass(frozen=True, slots=True)
class Framing:
    """How errors are written: which fault, and its answer."""

    fault_of: Callable[[BaseException], Fault]
    refusal: Callable[[Exception, Fault], Answer]


SAGEMAKER = Framing(fault_of, refusal)
CONTAINER = Framing(plain_fault_of, plain_refusal)  # what SageMaker expects of a container, and frames itself
