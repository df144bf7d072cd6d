"""Whether a role may do something, by its policies as they are written.

Rule: conditions, boundaries and an organisation's own policies are not looked at: what is said to be missing is missing; what
is said to be there may be taken away elsewhere. AWS's simulator knows more and needs a right that deployers seldom have.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from container.operate.deploy.names import Json


def missing(documents: Iterable[Json], needed: Json) -> dict[str, list[str]]:
    """Of a policy of ours, by resource, the actions that none of a role's documents allows, or that one denies."""
    documents = list(documents)
    found: dict[str, list[str]] = {}
    for statement in needed["Statement"]:
        for resource in statement["Resource"]:
            there = found.get(resource, [])
            lacking = [
                action
                for action in statement["Action"]
                if action not in there and not allows(documents, action, resource.replace("*", "x"))
            ]
            if lacking:
                found[resource] = [*there, *lacking]
    return found


def allows(documents: Iterable[Json], action: str, resource: str) -> bool:
    is_allowed = False
    for document in documents:
        for statement in _list(document.get("Statement", ())):
            if not _covers(statement, action, resource):
                continue
            if statement.get("Effect") == "Deny" and not statement.get("Condition"):
                return False
            is_allowed |= statement.get("Effect") == "Allow"
    return is_allowed


def _covers(statement: Json, action: str, resource: str) -> bool:
    if "NotAction" in statement:
        has_action = not _any(statement["NotAction"], action.lower(), lower=True)
    else:
        has_action = _any(statement.get("Action", ()), action.lower(), lower=True)
    if "NotResource" in statement:
        return has_action and not _any(statement["NotResource"], resource)
    return has_action and _any(statement.get("Resource", ()), resource)


def _any(patterns: object, text: str, *, lower: bool = False) -> bool:
    return any(matches(one.lower() if lower else one, text) for one in _list(patterns))


def matches(pattern: str, text: str) -> bool:
    """IAM's wildcards: * for any text, ? for one character. A star that took too little takes one more, so it ends soon."""
    at = behind = 0
    star, resumed = -1, 0
    while at < len(text):
        if behind < len(pattern) and pattern[behind] == "*":
            star, resumed, behind = behind, at, behind + 1
        elif behind < len(pattern) and pattern[behind] in ("?", text[at]):
            at, behind = at + 1, behind + 1
        elif star >= 0:
            resumed += 1
            at, behind = resumed, star + 1
        else:
            return False
    return not pattern[behind:].strip("*")


def _list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]
