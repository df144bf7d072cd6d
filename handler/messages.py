"""What a request and its answer are, apart from any protocol."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Request:
    """One call of a model.

    headers      names in lower case
    request_id   MMS's own, for logs
    """

    headers: Mapping[str, str]
    body: bytes
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the caller gets back. Header values are single lines of printable text."""

    status: int
    content_type: str
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()
