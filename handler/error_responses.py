"""How each error reaches the caller: status, type and body.

Rule: this is the only place that knows status codes. Every ServingError has a row in `FAULTS`; anything else that
surfaces is a fault of ours and becomes 500.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import orjson

from handler.errors import (
    AcceptUnsupported,
    AnswerTooLarge,
    ArtifactBroken,
    ArtifactChanged,
    ArtifactForbidden,
    ArtifactMissing,
    ArtifactRefused,
    ArtifactUnavailable,
    BodyEmpty,
    CallerGone,
    ContentTypeUnsupported,
    HookFailed,
    ModelNotLoaded,
    ModelNotReady,
    NoRoom,
    PayloadInvalid,
    RequestError,
    ServingError,
    TargetInvalid,
    TooMuchWork,
    Unavailable,
    UnloadedMeanwhile,
)
from handler.messages import Answer


@dataclass(frozen=True, slots=True)
class Fault:
    """How an error reaches the caller: as the exception boto3 raises for `type`.

    original   the status inside a ModelError, which SageMaker puts around whatever a container answers
    """

    status: int
    type: str
    original: int | None = None


_VALIDATION = Fault(400, "ValidationError")
INTERNAL = Fault(500, "InternalFailure")
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
    AnswerTooLarge: _model_error(413),
    RequestError: _model_error(400),
    TooMuchWork: _model_error(413),
    HookFailed: _model_error(500),  # or what the hook said, see fault_of
    ArtifactBroken: _model_error(422),
    ArtifactRefused: _model_error(422),
    ArtifactUnavailable: _UNAVAILABLE,
    ArtifactChanged: _UNAVAILABLE,  # of writing, which no endpoint does
    ModelNotReady: Fault(429, "ModelNotReadyException"),
    NoRoom: _model_error(507),
    ModelNotLoaded: _UNAVAILABLE,
    UnloadedMeanwhile: _UNAVAILABLE,
    CallerGone: _UNAVAILABLE,
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


def fault_of(error: BaseException) -> Fault:
    """The row of FAULTS for an error; 500 InternalFailure for what is none of ours."""
    if isinstance(error, HookFailed):
        return _model_error(error.status)
    for kind in type(error).__mro__:
        if kind in FAULTS:
            return FAULTS[kind]
    return INTERNAL


def plain_fault_of(error: BaseException) -> Fault:
    """The status of an error on its own, with its class's name for a type."""
    if isinstance(error, HookFailed):
        return Fault(error.status, type(error).__name__)
    for kind in type(error).__mro__:
        if kind in PLAIN:
            return Fault(PLAIN[kind], type(error).__name__)
        if kind in FAULTS:
            return Fault(FAULTS[kind].original or FAULTS[kind].status, type(error).__name__)
    return INTERNAL


def _message(error: BaseException) -> str:
    """In words that JSON can hold: a hook's error or an archive's names may have half surrogate pairs, which it cannot."""
    if not isinstance(error, ServingError):
        return "internal failure; the endpoint's log has the trace"
    return str(error).encode("utf-8", "backslashreplace").decode()


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


# What AWS's image means to answer about a body. Its server for single models does; behind its multi-model one the handler of
# such errors fails itself (v3.0-5 with sagemaker-inference 1.5.5), and the caller gets 503 "Prediction failed" for them all.
_AWS: dict[type[BaseException], int] = {BodyEmpty: 204, PayloadInvalid: 415, AcceptUnsupported: 415}


def like_aws(framing: Framing) -> Framing:
    """The same, with the statuses of AWS's image for what is wrong with a body."""

    def fault_of(error: BaseException) -> Fault:
        fault = framing.fault_of(error)
        status = next((_AWS[kind] for kind in type(error).__mro__ if kind in _AWS), None)
        if status is None:
            return fault
        return replace(fault, original=status) if fault.original and status != 204 else Fault(status, fault.type)

    def refusal(error: Exception, fault: Fault) -> Answer:
        return Answer(204, "application/json", b"") if fault.status == 204 else framing.refusal(error, fault)

    return Framing(fault_of, refusal)


SAGEMAKER = Framing(fault_of, refusal)
CONTAINER = Framing(plain_fault_of, plain_refusal)  # what SageMaker expects of a container, and frames itself
