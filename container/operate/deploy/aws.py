"""AWS asked: one call at a time, its errors told as ours.

Rule: every call of `mme deploy` goes through `Aws.call`, by the names that AWS gives service and operation, so that what is
sent can be seen, counted and tried in one place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from botocore import xform_name
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,
    HTTPClientError,
    NoCredentialsError,
    NoRegionError,
    ParamValidationError,
)

from container.operate.deploy.names import Json
from container.operate.deploy.trouble import Unreachable
from container.operate.exits import CommandFailed
from container.operate.troubles import Misused, NotNow, Refused
from handler import aws

PATIENCE = aws.Patience(5.0, 60.0, 6)  # throttled, botocore tries six times over some 20 s
INVOKE_PATIENCE = aws.Patience(5.0, 70.0, 1)

_EXPIRED = frozenset(
    {"ExpiredToken", "ExpiredTokenException", "RequestExpired", "InvalidClientTokenId", "UnrecognizedClientException"}
)
_THROTTLED = frozenset(
    {
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
        "RequestLimitExceeded",
        "ConcurrentUpdateException",
    }
)
_DENIED = frozenset({"AccessDenied", "AccessDeniedException", "UnauthorizedOperation"})
_ABSENT_CODES = frozenset(
    {"ResourceNotFound", "ResourceNotFoundException", "ObjectNotFoundException", "NoSuchEntity", "NotFoundException"}
)
_ABSENT_WORDS = ("could not find", "does not exist", "not found", "no such")
_UNDER_WAY_WORDS = ("in_progress", "in-progress", "in progress")
_TAKEN_WORDS = ("already exist", "already existing")


class AwsRefused(CommandFailed):
    """AWS's own error. code: as AWS names it; message: its words."""

    exit = Refused.exit

    def __init__(self, operation: str, code: str, message: str, status: int) -> None:
        super().__init__(f"{operation}: {code}: {message}")
        self.operation, self.code, self.message, self.status = operation, code, message, status

    @property
    def is_absent(self) -> bool:
        words = self.message.lower()
        return self.code in _ABSENT_CODES or (self.status == 400 and any(word in words for word in _ABSENT_WORDS))

    @property
    def is_taken(self) -> bool:
        return self.code in ("ResourceInUse", "ResourceInUseException", "ConflictException") or any(
            word in self.message.lower() for word in _TAKEN_WORDS
        )

    @property
    def is_under_way(self) -> bool:
        """It is at something else, which has to end first."""
        return any(word in self.message.lower() for word in _UNDER_WAY_WORDS)

    @property
    def is_denied(self) -> bool:
        return self.code in _DENIED


class Aws:
    """One account in one region. region: else this machine's."""

    def __init__(self, region: str = "", client: Callable[[str], Any] | None = None) -> None:
        self._region = region or None
        self._clients: dict[str, Any] = {}
        self._client = client or self._made

    @property
    def region(self) -> str:
        return str(self._of("sagemaker").meta.region_name)

    def call(self, service: str, operation: str, arguments: Json | None = None) -> Json:
        """Raises AwsRefused, and CommandFailed of other kinds when there is no answer."""
        client = self._of(service)
        try:
            answer: Json = getattr(client, xform_name(operation))(**(arguments or {}))
        except ClientError as error:
            raise _told(operation, error) from error
        except ParamValidationError as error:
            raise Misused(f"{operation}: {' '.join(str(error).split())}") from error
        except NoCredentialsError as error:
            raise Refused(f"{operation}: this machine has no credentials for AWS") from error
        except (ConnectionError, HTTPClientError) as error:
            raise Unreachable(f"{operation}: no answer ({type(error).__name__}); call again, it goes on") from error
        except BotoCoreError as error:
            raise NotNow(f"{operation}: {error}; call again, it goes on") from error
        return answer

    def invoke(self, arguments: Json) -> bytes:
        """InvokeEndpoint's answer, read to its end. Raises as `call`."""
        answer = self.call("sagemaker-runtime", "InvokeEndpoint", arguments)
        try:
            body: bytes = answer["Body"].read()
        except BotoCoreError as error:
            raise Unreachable(f"InvokeEndpoint: the answer broke off ({type(error).__name__})") from error
        return body

    def pages(self, service: str, operation: str, key: str, arguments: Json | None = None) -> Iterator[Any]:
        """All of `key` over all pages. Raises as `call`."""
        token: Json = {}
        while True:
            answer = self.call(service, operation, {**(arguments or {}), **token})
            yield from answer.get(key, ())
            name = "NextToken" if "NextToken" in answer else "nextToken"
            if not answer.get(name):
                return
            token = {name: answer[name]}

    def _of(self, service: str) -> Any:
        if service not in self._clients:
            try:
                self._clients[service] = self._client(service)
            except NoRegionError as error:
                raise Misused("no region: set region in the file, or AWS_DEFAULT_REGION") from error
            except (BotoCoreError, ValueError) as error:
                raise Misused(str(error)) from error
        return self._clients[service]

    def _made(self, service: str) -> Any:
        patience = INVOKE_PATIENCE if service == "sagemaker-runtime" else PATIENCE
        return aws.client(service, patience, region=self._region)


def _told(operation: str, error: ClientError) -> CommandFailed:
    told = error.response.get("Error", {})
    code, message = told.get("Code", "Unknown"), told.get("Message", "no message")
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    if code in _EXPIRED:
        return NotNow(
            f"{operation}: the credentials ran out or are not valid ({code}); renew them and call again, it goes on"
        )
    if code in _THROTTLED or (status >= 500 and code != "NotImplemented"):
        return NotNow(f"{operation}: AWS is busy ({code}); call again, it goes on")
    return AwsRefused(operation, code, message, status)
