"""List operations: filtered, sorted, a page at a time."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from container.platform.service.faults import ValidationException

T = TypeVar("T")
DEFAULT_RESULTS = 10  # SageMaker's. Source: API reference, ListModels, ListEndpoints


def page(items: list[T], parameters: Mapping[str, Any]) -> tuple[list[T], str | None]:
    """What fits into MaxResults from NextToken on, and the next token. Raises ValidationException: a token that is none."""
    first = _first(parameters.get("NextToken"))
    end = first + parameters.get("MaxResults", DEFAULT_RESULTS)
    return items[first:end], _token(end) if end < len(items) else None


def listed(
    items: Iterable[T],
    parameters: Mapping[str, Any],
    facts: Callable[[T], Mapping[str, Any]],
    *,
    by: str = "CreationTime",
    order: str = "Descending",
) -> tuple[list[T], str | None]:
    """A page of those that NameContains, StatusEquals and the times of a SageMaker list operation let through.

    facts   an item's Name, Status, CreationTime and LastModifiedTime, those it has
    """
    shown = [(facts(item), item) for item in items]
    fits = [(known, item) for known, item in shown if _fits(known, parameters)]
    fits.sort(key=lambda pair: pair[0]["Name"])
    fits.sort(key=lambda pair: pair[0][parameters.get("SortBy", by)])
    if parameters.get("SortOrder", order) == "Descending":
        fits.reverse()
    return page([item for _, item in fits], parameters)


def _fits(known: Mapping[str, Any], parameters: Mapping[str, Any]) -> bool:
    part = parameters.get("NameContains")
    if part is not None and part.lower() not in known["Name"].lower():
        return False
    if "StatusEquals" in parameters and parameters["StatusEquals"] != known["Status"]:
        return False
    for name in ("CreationTime", "LastModifiedTime"):
        after, before = parameters.get(f"{name}After"), parameters.get(f"{name}Before")
        if (after is not None and known[name] <= after) or (before is not None and known[name] >= before):
            return False
    return True


def _token(first: int) -> str:
    return base64.urlsafe_b64encode(f"from {first}".encode()).decode()


def _first(token: str | None) -> int:
    if token is None:
        return 0
    try:
        return int(base64.urlsafe_b64decode(token.encode()).decode().removeprefix("from "))
    except (binascii.Error, ValueError) as error:
        raise ValidationException(f"Invalid NextToken: {token}") from error
