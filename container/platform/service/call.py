"""One call of an operation, as its room gets it, and the bytes it came in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class Request:
    """What came over HTTP. Names of headers are lower case."""

    method: str
    path: str  # with the query
    headers: Mapping[str, str]
    body: bytes

    @property
    def bare_path(self) -> str:
        return urlsplit(self.path).path


class Streamed(Protocol):
    """Bytes that come one by one; closed by whoever reads them, at their end or before."""

    def __iter__(self) -> Iterator[bytes]: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Response:
    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    parts: Streamed | None = None  # in the place of a body: sent as they come


@dataclass(frozen=True, slots=True)
class Call:
    """parameters   as botocore's parser would give them: times are datetimes, blobs bytes; checked already"""

    service: str
    operation: str
    parameters: Mapping[str, Any]
    region: str
    account: str
    request: Request

    @property
    def caller(self) -> dict[str, Any]:
        """Whoever calls is the account itself: nobody has to prove who he is here."""
        return {"IamIdentity": {"Arn": f"arn:aws:iam::{self.account}:root", "PrincipalId": self.account}}

    def arn(self, kind: str, name: str) -> str:
        """SageMaker's, whose names are in lower case whatever the resource is called."""
        return f"arn:aws:sagemaker:{self.region}:{self.account}:{kind}/{name.lower()}"


# What an operation answers has the members of its output shape; those that are None are left out.
Operation = Callable[[Call], Mapping[str, Any]]
Operations = Mapping[tuple[str, str], Operation]
