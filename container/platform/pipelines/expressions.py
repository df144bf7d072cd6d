"""What stands for a value in a step's arguments, and what it comes to: Get, Std:Join, Std:JsonGet.

Rule: an expression that finds nothing is a failure of its step, never a null or a text left as it was.

Source: what SageMaker's Python SDK writes (src/sagemaker/workflow: entities, functions, properties, execution_variables).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

GET, JOIN, JSON_GET = "Get", "Std:Join", "Std:JsonGet"
ROOTS = ("Parameters", "Execution", "Steps")
FILES = "PropertyFiles"
# Members of descriptions that are lists, and what their items are known by: Outputs['train'] is the output of that name.
_KNOWN_BY = {
    "Outputs": "OutputName",
    "ProcessingInputs": "InputName",
    "InputDataConfig": "ChannelName",
    "FinalMetricDataList": "MetricName",
}


class PathInvalid(ValueError):
    """No path can be written so."""


class NotFound(Exception):
    """There is no such value, and why."""


@dataclass(frozen=True, slots=True)
class Scope:
    """steps: the description of each that is over. read: a document of S3. files: a step's property file, as a URI."""

    parameters: Mapping[str, Any]
    execution: Mapping[str, Any]
    steps: Mapping[str, Mapping[str, Any]]
    read: Callable[[str], bytes]
    file_uri: Callable[[str, str], str]


def resolved(value: Any, scope: Scope) -> Any:
    """The value with everything in it that stands for another. Raises NotFound, PathInvalid."""
    if isinstance(value, list):
        return [resolved(one, scope) for one in value]
    if not isinstance(value, dict):
        return value
    name = _function(value)
    if name is None:
        return {key: resolved(one, scope) for key, one in value.items()}
    if name == GET:
        return _got(value[GET], scope)
    if name == JOIN:
        asked = _object(value[JOIN], JOIN, "Values")
        return str(asked.get("On", "")).join(text(resolved(one, scope)) for one in asked["Values"])
    return _from_json(_object(value[JSON_GET], JSON_GET, "Path"), scope)


def references(value: Any) -> Iterator[list[str | int]]:
    """Every path that a value names, in its words. Raises PathInvalid: one that is none, or a function that is not played."""
    if isinstance(value, list):
        for one in value:
            yield from references(one)
    elif isinstance(value, dict):
        if _function(value) == GET:
            yield path_of(value[GET])
        else:
            for one in value.values():
                yield from references(one)


def path_of(found: Any) -> list[str | int]:
    """`Steps.Judge.Outputs['a'].S3Uri` in its words. Raises PathInvalid."""
    words = words_of(found)
    if len(words) < 2 or words[0] not in ROOTS or not isinstance(words[1], str):
        raise PathInvalid(f"{found!r} begins with none of {', '.join(f'{root}.NAME' for root in ROOTS)}")
    return words


def words_of(found: Any) -> list[str | int]:
    """`a.b[0]['c']` in its words: names, and numbers of items. Raises PathInvalid."""
    if not isinstance(found, str):
        raise PathInvalid(f"{found!r} is no path")
    words: list[str | int] = []
    rest = found.removeprefix("$").removeprefix(".")
    while rest:
        if rest[0] == "[":
            inside, closed, rest = rest[1:].partition("]")
            words.append(_indexed(inside, found, closed))
        else:
            end = min((at for at in (rest.find("."), rest.find("[")) if at >= 0), default=len(rest))
            words.append(rest[:end])
            rest = rest[end:]
        if rest[:1] == "." and rest[1:2] not in (".", "[", ""):
            rest = rest[1:]
        elif rest and rest[0] != "[":
            raise PathInvalid(f"{found!r} is no path")
    if not words or "" in words or "*" in words:
        raise PathInvalid(f"{found!r} is no path to one value")
    return words


def text(value: Any) -> str:
    """As it stands inside of a longer text."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    raise NotFound(f"a {type(value).__name__} cannot be joined")


def followed(value: Any, words: list[str | int], whole: str) -> Any:
    """The value at the end of a path. Raises NotFound."""
    last: str | int = ""
    for word in words:
        if isinstance(value, list) and isinstance(word, str) and isinstance(last, str) and last in _KNOWN_BY:
            named = (one for one in value if isinstance(one, Mapping))
            value = next((one for one in named if one.get(_KNOWN_BY[last]) == word), None)
        else:
            try:
                value = value[word]
            except (LookupError, TypeError):
                value = None
        if value is None:
            raise NotFound(f"{whole} is not there: nothing at {word!r}")
        last = word
    return value


def _got(path: Any, scope: Scope) -> Any:
    root, name, *rest = path_of(path)
    if root != "Steps":
        known = scope.parameters if root == "Parameters" else scope.execution
        if rest or name not in known:
            raise NotFound(f"{path} is not there")
        return known[str(name)]
    if name not in scope.steps:
        raise NotFound(f"{path}: step {name} was not run")
    return followed(scope.steps[str(name)], rest, str(path))


def _from_json(asked: Mapping[str, Any], scope: Scope) -> Any:
    if "S3Uri" in asked:
        uri = text(resolved(asked["S3Uri"], scope))
    else:
        path = path_of(_object(asked.get("PropertyFile"), "PropertyFile", GET)[GET])
        if len(path) != 4 or path[0] != "Steps" or path[2] != FILES:
            raise PathInvalid(f"PropertyFile {path!r} is not Steps.NAME.{FILES}.NAME")
        uri = scope.file_uri(str(path[1]), str(path[3]))
    try:
        document = json.loads(scope.read(uri))
    except (ValueError, RecursionError) as error:
        raise NotFound(f"{uri} is no JSON: {error}") from error
    value = followed(document, words_of(resolved(asked["Path"], scope)), f"{asked['Path']} of {uri}")
    if isinstance(value, dict | list):
        raise NotFound(f"{asked['Path']} of {uri} is no single value")
    return value


def _indexed(inside: str, whole: str, closed: str) -> str | int:
    """What stands in brackets."""
    quote = inside[:1]
    if closed and quote in ("'", '"') and len(inside) > 2 and inside.endswith(quote):
        return inside[1:-1]
    if closed and inside.isascii() and inside.isdigit():
        return int(inside)
    raise PathInvalid(f"{whole!r} is no path")


def _function(value: Mapping[str, Any]) -> str | None:
    """Raises PathInvalid: one that is not played."""
    if len(value) != 1:
        return None
    (name,) = value
    if name in (GET, JOIN, JSON_GET):
        return str(name)
    if name.startswith("Std:"):
        raise PathInvalid(f"{name} is not played")
    return None


def _object(found: Any, what: str, needs: str) -> Mapping[str, Any]:
    if not isinstance(found, dict) or needs not in found or (needs == "Values" and not isinstance(found[needs], list)):
        raise PathInvalid(f"{what} needs {needs}")
    return found
