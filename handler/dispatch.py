"""One request, from its headers and body to its answer.

Rule: this is the only place that knows status codes. Every ServingError has a row in `FAULTS`; anything else that
surfaces is a fault of ours, becomes 500 and is logged with its trace.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass

import orjson

from handler.cache import ModelCache
from handler.errors import (
    AcceptUnsupported,
    ArtifactBroken,
    ArtifactForbidden,
    ArtifactMissing,
    ArtifactRefused,
    ArtifactUnavailable,
    ContentTypeUnsupported,
    ModelNotLoaded,
    ModelNotReady,
    NoRoom,
    RequestError,
    ServingError,
    TargetInvalid,
    Unavailable,
    UnloadedMeanwhile,
)
from handler.libxgboost import Floats
from handler.messages import Answer, Request
from handler.payload import choose_media_type, decode, encode, fit_rows
from handler.predictor import Model
from handler.targets import parse_target, target_from_attributes
from handler.telemetry import BROKEN_ARTIFACTS, Recorder

log = logging.getLogger(__name__)

TARGET_HEADER = "x-amzn-sagemaker-target-model"
ATTRIBUTES_HEADER = "x-amzn-sagemaker-custom-attributes"


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
# Source: botocore's sagemaker-runtime model, InvokeEndpoint errors; DESIGN's table "What a caller sees".
FAULTS: dict[type[BaseException], Fault] = {
    TargetInvalid: _VALIDATION,
    ArtifactMissing: _VALIDATION,
    ArtifactForbidden: _VALIDATION,
    ContentTypeUnsupported: _model_error(415),
    AcceptUnsupported: _model_error(406),
    RequestError: _model_error(400),
    ArtifactBroken: _model_error(422),
    ArtifactRefused: _model_error(422),
    ArtifactUnavailable: _UNAVAILABLE,
    ModelNotReady: Fault(429, "ModelNotReadyException"),
    NoRoom: _model_error(507),
    Unavailable: _UNAVAILABLE,
}

# Hosted, SageMaker itself puts every answer but 200 into a ModelError, and reads the status of a load. 507 has it unload what
# it likes least, 409 means that the model is there or somebody else's; whatever has no row here is the ModelError's original.
PLAIN: dict[type[BaseException], int] = {
    ArtifactMissing: 404,
    ModelNotLoaded: 404,
    UnloadedMeanwhile: 409,
    ModelNotReady: 503,
}

# SageMaker passes no header of a container's on to the caller but this one, so it tells cold from warm.
_WARM = ((ATTRIBUTES_HEADER, "cache=hit"),)


class Dispatcher:
    """Answers requests from models in the cache; any number of threads may call it at once.

    wait_s   how long a request waits for its model to load
    """

    def __init__(self, cache: ModelCache, recorder: Recorder, *, wait_s: float) -> None:
        self._cache = cache
        self._recorder = recorder
        self._wait_s = wait_s

    def answer(self, request: Request) -> Answer:
        """The answer to a request, whatever happens."""
        start = time.perf_counter_ns()
        headers = request.headers
        target: str | None = None
        try:
            target = _target(headers.get(TARGET_HEADER), headers.get(ATTRIBUTES_HEADER))
            media_type = choose_media_type(headers.get("accept"))
            with self._cache.borrow(target, self._wait_s) as borrowed:
                held = time.perf_counter_ns()
                scores = _score(borrowed.model, request)
            body = encode(scores, media_type)
        except Exception as error:  # noqa: BLE001  whatever it is, the caller gets an answer and the thread lives on
            return self._refuse(error, target, start)
        end = time.perf_counter_ns()
        self._recorder.invocation(
            target,
            borrowed.is_hit,
            (end - start) // 1000,
            (end - held) // 1000,
            200,
            borrowed.wait_us,
        )
        if borrowed.is_hit:
            return Answer(200, media_type, body, _WARM)
        return Answer(200, media_type, body, ((ATTRIBUTES_HEADER, f"cache=miss,load_ms={borrowed.wait_us // 1000}"),))

    def _refuse(self, error: Exception, target: str | None, start: int) -> Answer:
        fault = fault_of(error)
        if fault is _INTERNAL:
            log.error("request for %s failed", target, exc_info=error)
        if isinstance(error, ArtifactBroken):
            self._recorder.count(BROKEN_ARTIFACTS)
        known = None if isinstance(error, (TargetInvalid, ArtifactMissing, ArtifactForbidden)) else target
        self._recorder.invocation(known, None, (time.perf_counter_ns() - start) // 1000, None, fault.status)
        return refusal(error, fault)


class ModelDispatcher:
    """Answers requests for a model that the caller holds; errors have plain statuses."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def answer(self, model: Model, name: str, request: Request) -> Answer:
        """The answer to a request, whatever happens.

        name   the platform's for the model; what its caller wrote, when that came too, is what is counted
        """
        start = time.perf_counter_ns()
        target = request.headers.get(TARGET_HEADER, name)
        try:
            media_type = choose_media_type(request.headers.get("accept"))
            body = encode(_score(model, request), media_type)
        except Exception as error:  # noqa: BLE001  whatever it is, the caller gets an answer and the thread lives on
            answer = self.refuse(error)
            self._recorder.invocation(target, None, (time.perf_counter_ns() - start) // 1000, None, answer.status)
            return answer
        took_us = (time.perf_counter_ns() - start) // 1000
        self._recorder.invocation(target, True, took_us, took_us, 200, 0)
        return Answer(200, media_type, body)

    def refuse(self, error: Exception) -> Answer:
        fault = plain_fault_of(error)
        if fault.status == _INTERNAL.status:
            log.error("a request failed", exc_info=error)
        fields = {"code": fault.status, "type": fault.type, "message": _message(error)}  # MMS's own shape
        return Answer(fault.status, "application/json", orjson.dumps(fields))


def _score(model: Model, request: Request) -> Floats:
    facts = model.facts
    rows = decode(request.body, request.headers.get("content-type", ""), facts.n_features)
    return model.predict(fit_rows(rows, facts.n_features, facts.feature_names or None))


def _target(header: str | None, attributes: str | None) -> str:
    if header is None and attributes is not None:
        header = target_from_attributes(attributes)
    if header is None:
        raise TargetInvalid(
            None,
            "no target model: set TargetModel, or TargetModel=... in CustomAttributes where the endpoint refuses it",
        )
    return parse_target(header)


def fault_of(error: BaseException) -> Fault:
    """The row of FAULTS for an error; 500 InternalFailure for what is none of ours."""
    for kind in type(error).__mro__:
        if kind in FAULTS:
            return FAULTS[kind]
    return _INTERNAL


def plain_fault_of(error: BaseException) -> Fault:
    """The status of an error on its own, with its class's name for a type."""
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
