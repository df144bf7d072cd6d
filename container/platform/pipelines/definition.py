"""A pipeline's definition: the document as it is written, read into steps and what each of them needs.

Rule: what can be seen to be wrong without running it is refused when the pipeline is made.

Sources: the JSON schema of SageMaker Pipelines, https://aws-sagemaker-mlops.github.io/sagemaker-model-building-pipeline-definition-JSON-schema/;
what SageMaker's Python SDK writes (src/sagemaker/workflow). Words of refusals are inferred, but for the first.
"""

from __future__ import annotations

import json
import string
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeGuard

from container.platform.pipelines.expressions import PathInvalid, references
from container.platform.service.faults import ValidationException

CONDITION, FAIL = "Condition", "Fail"
# What an execution carries out; the schema has more kinds.
PLAYED = ("Training", "Processing", "Transform", "Model", "RegisterModel", CONDITION, FAIL)
# Source: StepName in botocore's model.
MAX_NAME = 64
# Lists and objects inside one another. Ours: whoever follows them, condition beneath condition, is not to run out of stack.
MAX_DEPTH = 100
_NAME = frozenset(f"{string.ascii_letters}{string.digits}-_")
_KINDS: dict[str, tuple[type, ...]] = {"String": (str,), "Integer": (int,), "Float": (int, float), "Boolean": (bool,)}


@dataclass(frozen=True, slots=True)
class Parameter:
    """default: None when a start has to give it."""

    name: str
    type: str
    default: Any = None
    words: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class Step:
    """needs: steps that have to be over before. within: the condition and its outcome under which it is run at all."""

    name: str
    type: str
    arguments: Mapping[str, Any]
    needs: frozenset[str] = frozenset()
    within: tuple[str, bool] | None = None
    files: Mapping[str, tuple[str, str]] = field(default_factory=dict)  # property file -> output, path
    shown: Mapping[str, str] = field(default_factory=dict)  # StepDisplayName, StepDescription


@dataclass(frozen=True, slots=True)
class Definition:
    """steps: those of branches too, in the order in which they are written."""

    parameters: Mapping[str, Parameter]
    steps: Mapping[str, Step]

    def given(self, values: Mapping[str, str]) -> dict[str, Any]:
        """All parameters of a start, each of its type. Raises ValidationException."""
        unknown = sorted(values.keys() - self.parameters.keys())
        if unknown:
            raise ValidationException(f"Unknown parameters provided: {unknown}")
        missing = sorted(name for name, one in self.parameters.items() if name not in values and one.default is None)
        if missing:
            raise ValidationException(f"Parameters {missing} do not have default value and are not provided")
        return {
            name: _typed(one, values[name]) if name in values else one.default for name, one in self.parameters.items()
        }


def parse(text: str) -> Definition:
    """Raises ValidationException."""
    try:
        return _parsed(json.loads(text))
    except RecursionError as error:
        raise _wrong("it is nested too deep") from error
    except ValueError as error:
        raise _wrong(str(error)) from error


def _parsed(found: Any) -> Definition:
    if not isinstance(found, dict) or not isinstance(found.get("Steps"), list) or "Version" not in found:
        raise _wrong("it has no Version or no Steps")
    if _is_deeper(found, MAX_DEPTH):
        raise _wrong("it is nested too deep")
    parameters = dict(_parameter(one) for one in _listed(found.get("Parameters"), "Parameters"))
    steps: dict[str, Step] = {}
    for step in _steps(found["Steps"], None):
        if step.name in steps:
            raise _wrong(f"step name {step.name} is used more than once")
        steps[step.name] = step
    _check(parameters, steps)
    return Definition(parameters, steps)


def _is_deeper(value: Any, n_levels: int) -> bool:
    level = [value]
    for _ in range(n_levels):
        inside = [one.values() if isinstance(one, dict) else one for one in level]
        level = [one for some in inside for one in some if isinstance(one, dict | list)]
    return bool(level)


def _parameter(found: Any) -> tuple[str, Parameter]:
    if not isinstance(found, dict) or not _is_name(found.get("Name")) or found.get("Type") not in (*_KINDS,):
        raise _wrong(f"a parameter needs a Name and a Type of {', '.join(_KINDS)}")
    one = Parameter(
        found["Name"], found["Type"], found.get("DefaultValue"), tuple(_listed(found.get("EnumValues"), "EnumValues"))
    )
    if one.default is not None and not _is_of(one.type, one.default):
        raise _wrong(f"DefaultValue of parameter {one.name} is no {one.type}")
    if one.words and one.default is not None and one.default not in one.words:
        raise _wrong(f"DefaultValue of parameter {one.name} is none of its EnumValues")
    return one.name, one


def _steps(found: Any, within: tuple[str, bool] | None) -> Iterator[Step]:
    """Those of branches after their condition."""
    for one in _listed(found, "Steps"):
        if not isinstance(one, dict):
            raise _wrong("a step is no object")
        name, kind, arguments = one.get("Name"), one.get("Type"), one.get("Arguments", {})
        if not _is_name(name) or len(name) > MAX_NAME or not isinstance(kind, str):
            raise _wrong(f"a step needs a Name of at most {MAX_NAME} letters, digits, - and _, and a Type")
        if not isinstance(arguments, dict):
            raise _wrong(f"Arguments of step {name} are no object")
        depends = _listed(one.get("DependsOn"), f"DependsOn of step {name}")
        if not all(isinstance(other, str) for other in depends):
            raise _wrong(f"DependsOn of step {name} has what is no name")
        own = {key: value for key, value in arguments.items() if key not in ("IfSteps", "ElseSteps")}
        try:
            named = {words[1] for words in references(own) if words[0] == "Steps"}
        except PathInvalid as error:
            raise _wrong(f"step {name}: {error}") from error
        needs = frozenset({*depends, *named, *((within[0],) if within else ())})
        shown = {f"Step{key}": one[key] for key in ("DisplayName", "Description") if isinstance(one.get(key), str)}
        yield Step(name, kind, own, needs, within, _files(one, name), shown)
        if kind == CONDITION:
            yield from _steps(arguments.get("IfSteps"), (name, True))
            yield from _steps(arguments.get("ElseSteps"), (name, False))


def _files(step: Mapping[str, Any], name: str) -> dict[str, tuple[str, str]]:
    found = {}
    for one in _listed(step.get("PropertyFiles"), f"PropertyFiles of step {name}"):
        try:
            found[one["PropertyFileName"]] = (one["OutputName"], one["FilePath"])
        except (KeyError, TypeError) as error:
            raise _wrong(f"a property file of step {name} needs PropertyFileName, OutputName and FilePath") from error
    return found


def _check(parameters: Mapping[str, Parameter], steps: Mapping[str, Step]) -> None:
    for step in steps.values():
        for other in sorted(step.needs):
            if other not in steps:
                raise _wrong(f"step {step.name} refers to step {other}, which is not there")
            if steps[other].type == FAIL:
                raise ValidationException(f"{step.name} can not depends on {other}")  # as AWS words it
        for words in references(step.arguments):
            if words[0] == "Parameters" and words[1] not in parameters:
                raise _wrong(f"step {step.name} refers to parameter {words[1]}, which is not there")
    if ring := _ring(steps):
        raise _wrong(f"steps {', '.join(ring)} wait for one another")


def _ring(steps: Mapping[str, Step]) -> list[str]:
    """Those that can never begin because of one another."""
    left = dict(steps)
    while ready := [name for name, step in left.items() if not step.needs & left.keys()]:
        for name in ready:
            del left[name]
    return sorted(left)


def _typed(parameter: Parameter, value: str) -> Any:
    """What a start gives is always text."""
    wrong = ValidationException(f"Parameter {parameter.name} is no {parameter.type}: {value}")
    try:
        typed = _READERS[parameter.type](value)
    except ValueError as error:
        raise wrong from error
    if parameter.words and typed not in parameter.words:
        raise ValidationException(f"Parameter {parameter.name} is none of {list(parameter.words)}: {value}")
    return typed


def _boolean(value: str) -> bool:
    if value.lower() not in ("true", "false"):
        raise ValueError(value)
    return value.lower() == "true"


def _number(value: str, kind: Callable[[str], float]) -> float:
    """As JSON would have it: Python's own readers take more."""
    if not set(value) <= set("0123456789+-.eE"):
        raise ValueError(value)
    return kind(value)


_READERS: dict[str, Callable[[str], Any]] = {
    "String": str,
    "Integer": lambda value: _number(value, int),
    "Float": lambda value: _number(value, float),
    "Boolean": _boolean,
}


def _is_name(value: Any) -> TypeGuard[str]:
    return isinstance(value, str) and value != "" and set(value) <= _NAME


def _is_of(kind: str, value: Any) -> bool:
    return isinstance(value, _KINDS[kind]) and (kind == "Boolean") == isinstance(value, bool)


def _listed(found: Any, what: str) -> Sequence[Any]:
    if found is None:
        return ()
    if not isinstance(found, list):
        raise _wrong(f"{what} is no list")
    return found


def _wrong(why: str) -> ValidationException:
    return ValidationException(f"Unable to parse pipeline definition: {why}")
