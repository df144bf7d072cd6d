"""Calls to an endpoint of ours, as any boto3 program makes them.

Rule: an endpoint of ours checks no signature, so nothing here looks for credentials: a call works on a machine without
any and sends nobody's anywhere.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,
    HTTPClientError,
    NoCredentialsError,
    ParamValidationError,
)

from container.environments import DEMO_KEY, DEMO_REGION
from container.link.names import POOL
from container.operate.exits import CommandFailed, Exit
from handler.attributes import TARGET
from handler.aws import Patience, local_client
from handler.aws import client as aws_client

# MMS reads the pool's name from the path and ignores what boto3 appends (/endpoints/NAME/invocations).
PATH = f"/predictions/{POOL}"
ENDPOINT_NAME = "local"  # boto3 wants one; see PATH
PATIENCE = Patience(2.0, 70.0, 1)  # InvokeEndpoint answers within 60 s; AWS advises clients to wait 70

_EXITS = {
    "ValidationError": Exit.REFUSED,
    "ModelError": Exit.MODEL_ERROR,
    "ModelNotReadyException": Exit.NOT_NOW,
    "ServiceUnavailable": Exit.NOT_NOW,
}


@dataclass(frozen=True, slots=True)
class Answered:
    """A call that was answered.

    ms       from before the request to the last byte of the answer, boto3's own time included
    is_hit   the model was in memory; None when the endpoint does not say
    load_ms  what the request waited for the model to load; None when it did not, or the endpoint does not say
    """

    body: bytes = field(repr=False)
    content_type: str
    ms: float
    is_hit: bool | None
    load_ms: int | None


class CallFailed(CommandFailed):
    """No answer, and why."""


class CallRefused(CallFailed):
    """The endpoint answered with an error: `type` is the exception that boto3 programs catch."""

    def __init__(self, type: str, status: int, message: str, original_status: int | None, ms: float) -> None:
        within = "" if original_status is None else f", {original_status} from the container"
        super().__init__(f"{type} ({status}{within}): {message}")
        self.type = type
        self.status = status
        self.message = message
        self.original_status = original_status
        self.ms = ms
        self.exit = _EXITS.get(type, Exit.FAILED)


class EndpointUnreachable(CallFailed):
    """Nobody listens, or the answer did not come."""

    exit = Exit.UNREACHABLE


class CallImpossible(CallFailed):
    """boto3 cannot send such a request."""

    exit = Exit.USAGE


class Endpoint:
    """Calls `url`, one attempt each, so that what is told is what happened.

    raises   CallImpossible when `url` is none
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._name = ENDPOINT_NAME
        self._component: str | None = None
        self._is_in_attributes = False
        try:
            self._client = client("sagemaker-runtime", self.url + PATH)
        except ValueError as error:  # botocore's word for an address it cannot read
            raise CallImpossible(f"{url!r} is no address such as http://127.0.0.1:8080") from error

    @classmethod
    def on_sagemaker(
        cls, name: str, *, component: str | None = None, is_in_attributes: bool = False, url: str | None = None
    ) -> Endpoint:
        """SageMaker's endpoint of that name, with this machine's credentials.

        component         the inference component to call
        is_in_attributes  the target travels in the custom attributes: an endpoint that is not multi-model, such as a
                          component's or a serverless one, refuses TargetModel
        url               of a SageMaker played on this machine, which checks no credentials
        raises            CallImpossible
        """
        endpoint = cls.__new__(cls)
        endpoint.url, endpoint._name = name, name
        endpoint._component, endpoint._is_in_attributes = component, is_in_attributes or component is not None
        try:
            made = aws_client("sagemaker-runtime", PATIENCE) if url is None else client("sagemaker-runtime", url)
            endpoint._client = made
        except (BotoCoreError, ValueError) as error:  # no region
            raise CallImpossible(f"endpoint {name} cannot be called: {error}") from error
        return endpoint

    def _target(self, target: str) -> dict[str, str]:
        if not self._is_in_attributes:
            return {"TargetModel": target}
        named = {} if self._component is None else {"InferenceComponentName": self._component}
        return {**named, "CustomAttributes": _in_attributes(target)}

    def call(self, target: str, body: bytes, *, content_type: str = "text/csv", accept: str | None = None) -> Answered:
        """One request and its answer. Raises CallFailed."""
        request: Any = {**self._target(target), "Body": body, "ContentType": content_type}
        if accept is not None:
            request["Accept"] = accept
        start = time.perf_counter()
        try:
            response = self._client.invoke_endpoint(EndpointName=self._name, **request)
            answer = response["Body"].read()
        except ClientError as error:
            raise _refused(error, _ms_since(start)) from error
        except (ConnectionError, HTTPClientError) as error:
            raise EndpointUnreachable(f"{self.url} does not answer ({type(error).__name__})") from error
        except NoCredentialsError as error:
            raise CallFailed(f"{self.url} was not called: this machine has no credentials for AWS") from error
        except (ParamValidationError, UnicodeEncodeError) as error:
            said = " ".join(str(error).split())
            raise CallImpossible(f"boto3 cannot send this request: {said}") from error
        except (BotoCoreError, ValueError) as error:  # an answer that is none of SageMaker's
            raise CallFailed(f"{self.url} gave an answer boto3 cannot read: {error}") from error
        ms = _ms_since(start)
        is_hit, load_ms = cache_facts(response.get("CustomAttributes", ""))
        return Answered(answer, response["ContentType"], ms, is_hit, load_ms)


def _in_attributes(target: str) -> str:
    """Raises CallImpossible: attributes have no quotes (handler/attributes.py)."""
    if "," in target or ";" in target or target != target.strip():
        raise CallImpossible(
            f"{target!r} cannot travel in custom attributes: it holds a comma, a semicolon or outer spaces"
        )
    return f"{TARGET}={target}"


def client(service: Any, url: str) -> Any:
    """A boto3 client for one address of ours. Raises ValueError: `url` is none."""
    return local_client(service, url, PATIENCE, key=DEMO_KEY, region=DEMO_REGION)


def cache_facts(attributes: str) -> tuple[bool | None, int | None]:
    """Whether the model was in memory, and milliseconds waited for it, from `cache=hit` or `cache=miss,load_ms=31`."""
    pairs = dict(pair.partition("=")[::2] for pair in attributes.split(","))
    is_hit = {"hit": True, "miss": False}.get(pairs.get("cache", ""))
    load_ms = pairs.get("load_ms", "")
    return is_hit, int(load_ms) if load_ms.isdecimal() else None


def _refused(error: ClientError, ms: float) -> CallRefused:
    response: Any = error.response
    told = response.get("Error", {})
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    message = told.get("Message") or response.get("Message") or "no message"
    return CallRefused(told.get("Code") or "Unknown", status, message, response.get("OriginalStatusCode"), ms)


def _ms_since(start: float) -> float:
    return (time.perf_counter() - start) * 1000
