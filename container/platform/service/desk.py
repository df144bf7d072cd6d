"""Where a request goes: which service and operation it is for, and whose answer that is, from bytes to bytes.

Rule: an operation that nobody here plays is refused as NotImplemented, and the log says so.
"""

from __future__ import annotations

import json
import logging
import threading
import uuid
from collections.abc import Iterable, Mapping
from typing import Any

from botocore.model import OperationModel, StructureShape

from container.platform.service.call import Call, Operation, Request, Response
from container.platform.service.descriptions import RUNTIME, operation_model, routed, targeted
from container.platform.service.eventstream import CONTENT_TYPE
from container.platform.service.faults import (
    NotPlayed,
    SerializationException,
    ServiceFault,
    ThrottlingException,
    ValidationException,
)
from container.platform.service.moto import Moto
from container.platform.service.reading import read
from container.platform.service.unplayed import refuse_unplayed
from container.platform.service.writing import written

log = logging.getLogger(__name__)

JSON = "application/x-amz-json-1.1"


class Desk:
    """Any number of threads may ask.

    rooms   what each operation of ours is answered by, (service, operation) as botocore spells them
    """

    def __init__(
        self,
        rooms: Iterable[Mapping[tuple[str, str], Operation]],
        moto: Moto,
        *,
        region: str,
        account: str,
        is_throttling: bool = False,
    ) -> None:
        self._operations = {name: operation for room in rooms for name, operation in room.items()}
        self._moto = moto
        self._region = region
        self._account = account
        self._is_throttling = is_throttling
        self._lock = threading.Lock()
        self._n_unmarked = 0

    def answer(self, request: Request) -> Response:
        target = request.headers.get("x-amz-target", "")
        asked = targeted(target) if target else None
        if asked is not None:
            return self._answer_json(request, *asked)
        if not target and (found := routed(request.method, request.bare_path)) is not None:
            return self._answer_rest(request, *found)
        return self._moto.pass_on(request)

    # -- JSON 1.1: sagemaker, application-autoscaling ------------------------------------------------------------------

    def _answer_json(self, request: Request, service: str, operation: str) -> Response:
        try:
            self._throttle(request)
            model = _described(service, operation)
            play = self._play(service, operation)
            call = self._call(request, model, read(model.input_shape, _json(request.body)))
            answer = written(model.output_shape, play(call))
        except Exception as error:  # noqa: BLE001  a caller is told of anything at all
            fault = _as_fault(error, operation)
            body = {"__type": fault.code, "message": fault.message, **fault.fields}
            return _response(fault.status, JSON, body, ("x-amzn-errortype", fault.code))
        return _response(200, JSON, answer)

    # -- REST: sagemaker-runtime ---------------------------------------------------------------------------------------

    def _answer_rest(self, request: Request, model: OperationModel, said: dict[str, str]) -> Response:
        try:
            call = self._call(request, model, read_runtime(model, request, said))
            answer = self._play(RUNTIME, model.name)(call)
        except Exception as error:  # noqa: BLE001
            fault = _as_runtime(_as_fault(error, model.name))
            body = {"Message": fault.message, **fault.fields}
            return _response(fault.status, "application/json", body, ("x-amzn-errortype", fault.code))
        assert isinstance(model.output_shape, StructureShape)
        payload = model.output_shape.serialization.get("payload")
        headers = [
            (shape.serialization["name"], str(answer[name]))
            for name, shape in model.output_shape.members.items()
            if shape.serialization.get("location") == "header" and answer.get(name) is not None
        ]
        told = answer.get(str(payload), b"")
        if not isinstance(told, bytes):
            return Response(200, (("Content-Type", CONTENT_TYPE), *headers, _request_id()), b"", told)
        return Response(200, (*headers, _request_id()), told)

    # -- both ----------------------------------------------------------------------------------------------------------

    def _play(self, service: str, operation: str) -> Operation:
        play = self._operations.get((service, operation))
        if play is None:
            raise NotPlayed(service, operation)
        return play

    def _call(self, request: Request, model: OperationModel, parameters: Mapping[str, Any]) -> Call:
        signed_for = _scope(request)
        if signed_for is not None and signed_for != self._region:
            raise ValidationException(
                f"this platform plays region {self._region}, and the call is signed for {signed_for}: "
                f"set AWS_DEFAULT_REGION, or start it with --region"
            )
        refuse_unplayed(model.service_model.service_name, model.name, parameters)
        return Call(model.service_model.service_name, model.name, parameters, self._region, self._account, request)

    def _throttle(self, request: Request) -> None:
        """The trap: a first attempt is refused, and every other call of a client that does not count its attempts."""
        if not self._is_throttling:
            return
        counted = request.headers.get("amz-sdk-request", "")
        if counted:
            is_first = "attempt=1;" in f"{counted};".replace(" ", "")
        else:
            with self._lock:
                self._n_unmarked += 1
                is_first = self._n_unmarked % 2 == 1
        if is_first:
            raise ThrottlingException


def read_runtime(model: OperationModel, request: Request, said: Mapping[str, str]) -> dict[str, Any]:
    """Parameters from the path, the headers and the body. Raises ServiceFault."""
    shape = model.input_shape
    assert isinstance(shape, StructureShape)
    value: dict[str, Any] = dict(said)
    for name, member in shape.members.items():
        header = member.serialization.get("name", "").lower()
        if member.serialization.get("location") == "header" and header in request.headers:
            value[name] = request.headers[header]
    payload = shape.serialization.get("payload")
    if payload:
        value[payload] = request.body
    return read(shape, value)


def _described(service: str, operation: str) -> OperationModel:
    model = operation_model(service, operation)
    if model is None:
        raise ServiceFault(f"{operation} is no operation of {service}", "UnknownOperationException", 400)
    return model


def _json(body: bytes) -> Any:
    try:
        return json.loads(body or b"{}")
    except (ValueError, RecursionError) as error:
        raise SerializationException(f"the body is no JSON: {error}") from error


def _as_fault(error: Exception, operation: str) -> ServiceFault:
    if isinstance(error, NotPlayed):
        log.warning("%s", error)
    if isinstance(error, ServiceFault):
        return error
    log.error("%s failed", operation, exc_info=error)
    return ServiceFault(f"{type(error).__name__}: {error}")


def _as_runtime(fault: ServiceFault) -> ServiceFault:
    """The runtime's word for a request that is none."""
    if isinstance(fault, ValidationException | SerializationException):
        return ServiceFault(fault.message, "ValidationError", 400)
    return fault


def _scope(request: Request) -> str | None:
    """The region that a request is signed for: AKID/20260101/us-east-1/sagemaker/aws4_request."""
    _, _, credential = request.headers.get("authorization", "").partition("Credential=")
    parts = credential.split(",")[0].split("/")
    return parts[2] if len(parts) == 5 else None


def _response(status: int, kind: str, body: Mapping[str, Any], *headers: tuple[str, str]) -> Response:
    return Response(status, (("Content-Type", kind), *headers, _request_id()), json.dumps(body).encode())


def _request_id() -> tuple[str, str]:
    return "x-amzn-RequestId", str(uuid.uuid4())
