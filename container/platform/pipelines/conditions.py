"""Whether a condition of a Condition step holds.

Rule: what cannot be compared fails the step; it is neither true nor false.

Source: what SageMaker's Python SDK writes (src/sagemaker/workflow/conditions.py). What compares with what is inferred.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

from container.platform.pipelines.expressions import NotFound, Scope, resolved

_ORDERS: dict[str, Callable[[Any, Any], bool]] = {
    "GreaterThan": operator.gt,
    "GreaterThanOrEqualTo": operator.ge,
    "LessThan": operator.lt,
    "LessThanOrEqualTo": operator.le,
}


class ConditionInvalid(Exception):
    """It cannot be decided, and why."""


def holds(condition: Any, scope: Scope) -> bool:
    """Raises ConditionInvalid, NotFound, PathInvalid."""
    kind = condition.get("Type") if isinstance(condition, dict) else None
    if kind == "Not":
        return not holds(_member(condition, "Expression"), scope)
    if kind == "Or":
        return any(holds(one, scope) for one in _list(condition, "Conditions"))
    if kind == "In":
        wanted = _value(condition, "QueryValue", scope)
        return any(_is_same(wanted, resolved(one, scope)) for one in _list(condition, "Values"))
    if kind == "Equals":
        return _is_same(_value(condition, "LeftValue", scope), _value(condition, "RightValue", scope))
    if kind in (*_ORDERS,):
        left, right = _value(condition, "LeftValue", scope), _value(condition, "RightValue", scope)
        if not (_is_number(left) and _is_number(right)) and not (isinstance(left, str) and isinstance(right, str)):
            raise ConditionInvalid(f"{kind} cannot compare {left!r} with {right!r}")
        return _ORDERS[kind](left, right)
    raise ConditionInvalid(f"{kind!r} is no type of condition")


def _value(condition: Mapping[str, Any], name: str, scope: Scope) -> Any:
    found = resolved(_member(condition, name), scope)
    if isinstance(found, dict | list):
        raise NotFound(f"{name} of a condition is no single value")
    return found


def _member(condition: Mapping[str, Any], name: str) -> Any:
    if condition.get(name) is None:
        raise ConditionInvalid(f"a condition of type {condition['Type']} needs {name}")
    return condition[name]


def _list(condition: Mapping[str, Any], name: str) -> list[Any]:
    found = _member(condition, name)
    if not isinstance(found, list):
        raise ConditionInvalid(f"{name} of a condition is no list")
    return found


def _is_same(left: Any, right: Any) -> bool:
    if _is_number(left) and _is_number(right):
        return bool(left == right)
    return type(left) is type(right) and bool(left == right)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
