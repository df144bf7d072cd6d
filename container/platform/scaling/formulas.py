"""CloudWatch's metric math: an expression over figures of the same period, read once and worked out for each period.

Rule: a period in which a figure is missing has no value, unless FILL gives it one; nor has one that is divided by nothing. A
function that is not played is refused when the expression is read.

Source: CloudWatch user guide, using-metric-math (operators, functions). Of several figures those that are missing are left
out of SUM, MIN, MAX and AVG: inferred.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from container.platform.metrics import MetricName, Metrics

MAX_CHARACTERS = 1024  # Source: BC Expression of GetMetricData and PutMetricAlarm
MAX_DEPTH = 50
_TOKEN = re.compile(r"\s*(?:(\d+(?:\.\d*)?|\.\d+)|([A-Za-z]\w*)|(<=|>=|==|!=|&&|\|\||[-+*/^()<>,\[\]]))")

Values = Mapping[str, float | None]
Node = Callable[[Values], float | None]


class FormulaInvalid(ValueError):
    """It cannot be worked out, and why."""


@dataclass(frozen=True, slots=True)
class Part:
    """A metric that an expression names."""

    metric: MetricName
    statistic: str


@dataclass(frozen=True)
class Formula:
    """parts, expressions: by their ids. An expression may name those before and after it. shown: the id whose value it is."""

    parts: Mapping[str, Part]
    expressions: Mapping[str, str]
    shown: str

    def __post_init__(self) -> None:
        """Raises FormulaInvalid."""
        known = {*self.parts, *self.expressions}
        if self.shown not in known:
            raise FormulaInvalid(f"{self.shown!r} is the id of nothing")
        for text in self.expressions.values():
            if unknown := sorted(_read(text, ())[1] - known):
                raise FormulaInvalid(f"the expression names {unknown[0]!r}, which is the id of nothing")
        _order(self.expressions)

    def value(self, metrics: Metrics, start_s: int, end_s: int) -> float | None:
        """Of one period."""
        return self.worked_out(
            {id: metrics.value(part.metric, start_s, end_s, part.statistic) for id, part in self.parts.items()}
        )

    def worked_out(self, values: Values) -> float | None:
        """With the parts' values of one period."""
        known = dict(values)
        for id in _order(self.expressions):
            known[id] = _read(self.expressions[id], tuple(self.parts))[0](known)
        return known[self.shown]


def _order(expressions: Mapping[str, str]) -> list[str]:
    """Each after those that it names. Raises FormulaInvalid: they name one another."""
    left = {id: _read(text, ())[1] & expressions.keys() for id, text in expressions.items()}
    order: list[str] = []
    while left:
        ready = [id for id, names in left.items() if not names & left.keys()]
        if not ready:
            raise FormulaInvalid(f"expressions {', '.join(sorted(left))} name one another")
        order += ready
        for id in ready:
            del left[id]
    return order


@lru_cache(maxsize=512)
def _read(text: str, metrics: tuple[str, ...]) -> tuple[Node, frozenset[str]]:
    """metrics: ids that METRICS() stands for."""
    if len(text) > MAX_CHARACTERS:
        raise FormulaInvalid(f"an expression has at most {MAX_CHARACTERS} characters")
    reader = _Reader(list(_tokens(text)), metrics)
    node = reader.whole()
    return node, frozenset(reader.names)


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    at = 0
    end = len(text.rstrip())
    while at < end:
        found = _TOKEN.match(text, at)
        if found is None:
            raise FormulaInvalid(f"the expression cannot be read from {text[at : at + 20].strip()!r} on")
        number, name, sign = found.groups()
        yield ("number", number) if number else ("name", name) if name else ("sign", sign)
        at = found.end()


# From the loosest to the tightest. Source: the guide has no order of its own; C's, but for ^, which is a power.
_LEVELS: tuple[tuple[str, ...], ...] = (
    ("||", "OR"),
    ("&&", "AND"),
    ("==", "!=", "<", "<=", ">", ">="),
    ("+", "-"),
    ("*", "/"),
)
_SIGNS: dict[str, Callable[[float, float], float]] = {
    "||": lambda a, b: float(bool(a) or bool(b)),
    "&&": lambda a, b: float(bool(a) and bool(b)),
    "==": lambda a, b: float(a == b),
    "!=": lambda a, b: float(a != b),
    "<": lambda a, b: float(a < b),
    "<=": lambda a, b: float(a <= b),
    ">": lambda a, b: float(a > b),
    ">=": lambda a, b: float(a >= b),
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "^": operator.pow,
} | {"OR": lambda a, b: float(bool(a) or bool(b)), "AND": lambda a, b: float(bool(a) and bool(b))}
_ALONE: dict[str, Callable[[float], float]] = {
    "ABS": abs,
    "CEIL": lambda a: float(math.ceil(a)),
    "FLOOR": lambda a: float(math.floor(a)),
}
_TOGETHER: dict[str, Callable[[list[float]], float]] = {
    "SUM": sum,
    "MIN": min,
    "MAX": max,
    "AVG": lambda values: sum(values) / len(values),
}


class _Reader:
    """Reads tokens from the first to the last."""

    def __init__(self, tokens: list[tuple[str, str]], metrics: Sequence[str]) -> None:
        self._tokens = tokens
        self._metrics = metrics
        self._at = 0
        self._depth = 0
        self.names: set[str] = set()

    def whole(self) -> Node:
        node = self._level(0)
        if self._at < len(self._tokens):
            raise FormulaInvalid(f"the expression goes on with {self._tokens[self._at][1]!r}")
        return node

    def _level(self, at: int) -> Node:
        self._depth += 1
        if self._depth > MAX_DEPTH * len(_LEVELS):
            raise FormulaInvalid("the expression is nested too deep")
        node = self._level(at + 1) if at < len(_LEVELS) else self._power()
        while at < len(_LEVELS) and (sign := self._taken(*_LEVELS[at])) is not None:
            node = _both(_SIGNS[sign], node, self._level(at + 1))
        self._depth -= 1
        return node

    def _power(self) -> Node:
        if self._taken("-") is not None:
            inner = self._level(len(_LEVELS))
            return _alone(operator.neg, inner)
        node = self._one()
        return node if self._taken("^") is None else _both(_SIGNS["^"], node, self._level(len(_LEVELS)))

    def _one(self) -> Node:
        kind, text = self._next()
        if kind == "number":
            number = float(text)
            return lambda _: number
        if text == "(":
            node = self._level(0)
            self._must(")")
            return node
        if kind == "name" and self._taken("(") is not None:
            return self._call(text)
        if kind == "name":
            self.names.add(text)
            return lambda values: values.get(text)
        raise FormulaInvalid(f"the expression has {text!r} where a value is to be")

    def _call(self, name: str) -> Node:
        if name in _TOGETHER:
            inner = self._array()
            self._must(")")
            return _together(_TOGETHER[name], inner)
        given = [self._level(0)]
        while self._taken(",") is not None:
            given.append(self._level(0))
        self._must(")")
        if name in _ALONE and len(given) == 1:
            return _alone(_ALONE[name], given[0])
        if name == "FILL" and len(given) == 2:
            return _fill(*given)
        if name == "IF" and len(given) in (2, 3):
            return _if(given[0], given[1], given[2] if len(given) == 3 else lambda _: None)
        raise FormulaInvalid(f"mme platform does not play {name} with {len(given)} arguments in an expression")

    def _array(self) -> list[Node]:
        """[a, b], or METRICS()."""
        kind, text = self._next()
        if (kind, text) == ("name", "METRICS"):
            self._must("(")
            self._must(")")
            return [_named(id) for id in self._metrics]
        if text != "[":
            raise FormulaInvalid("mme platform plays SUM, MIN, MAX and AVG of [a, b] and METRICS() alone")
        nodes = [self._level(0)]
        while self._taken(",") is not None:
            nodes.append(self._level(0))
        self._must("]")
        return nodes

    def _next(self) -> tuple[str, str]:
        if self._at == len(self._tokens):
            raise FormulaInvalid("the expression ends too soon")
        self._at += 1
        return self._tokens[self._at - 1]

    def _taken(self, *signs: str) -> str | None:
        if self._at < len(self._tokens) and self._tokens[self._at][1] in signs:
            self._at += 1
            return self._tokens[self._at - 1][1]
        return None

    def _must(self, sign: str) -> None:
        if self._taken(sign) is None:
            raise FormulaInvalid(f"the expression needs a {sign!r}")


def _named(id: str) -> Node:
    return lambda values: values.get(id)


def _both(sign: Callable[[float, float], float], left: Node, right: Node) -> Node:
    def node(values: Values) -> float | None:
        a, b = left(values), right(values)
        return None if a is None or b is None else _real(lambda: sign(a, b))

    return node


def _alone(function: Callable[[float], float], inner: Node) -> Node:
    def node(values: Values) -> float | None:
        value = inner(values)
        return None if value is None else function(value)

    return node


def _together(function: Callable[[list[float]], float], inner: list[Node]) -> Node:
    """Those that are missing are left out."""

    def node(values: Values) -> float | None:
        there = [value for one in inner if (value := one(values)) is not None]
        return function(there) if there else None

    return node


def _fill(inner: Node, instead: Node) -> Node:
    def node(values: Values) -> float | None:
        value = inner(values)
        return instead(values) if value is None else value

    return node


def _if(condition: Node, then: Node, otherwise: Node) -> Node:
    def node(values: Values) -> float | None:
        so = condition(values)
        return None if so is None else then(values) if so else otherwise(values)

    return node


def _real(work: Callable[[], float]) -> float | None:
    try:
        value = work()
    except (ArithmeticError, ValueError):
        return None
    return value if isinstance(value, int | float) and math.isfinite(value) else None
