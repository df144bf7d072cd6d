"""What came over the wire, read by its shape: the parameters, or all that is wrong with them, in AWS's words.

Source of the words: what SageMaker answers, `1 validation error detected: Value '0' at
'productionVariants.1.member.initialInstanceCount' failed to satisfy constraint: Member must have value greater than or
equal to 1`. The service ignores a member it does not know; botocore's clients refuse it, and so does this.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import cache
from typing import Any

from botocore.model import ListShape, MapShape, Shape, StringShape, StructureShape

from container.platform.service.faults import SerializationException, ValidationException

MAX_PROBLEMS = 10

# Java's classes of characters that the descriptions use, as Python's. Source: java.util.regex.Pattern
_JAVA = {
    r"\p{ASCII}": r"\x00-\x7f",
    r"\p{Print}": r"\x20-\x7e",
    r"\p{Alnum}": r"a-zA-Z0-9",
    r"\p{L}": r"a-zA-Z\u00aa-\U0010ffff",  # every sign beyond Latin-1's passes for a letter
    r"\p{M}": r"\u0300-\u036f",
    r"\p{Z}": r"\s",
    r"\p{N}": r"0-9",
    r"\p{S}": r"$+<=>\^`|~",
    r"\p{P}": r"!-#%-*,\-./:;?@\[\\\]_{}",
    r"\uD800\uDC00-\uDBFF\uDFFF": r"\U00010000-\U0010ffff",
}
_IN_BRACKETS = re.compile(r"\[[^\]]*\]")
_KINDS: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "character": (str,),
    "integer": (int,),
    "long": (int,),
    "float": (int, float),
    "double": (int, float),
    "boolean": (bool,),
}
_VALUES = {bool: "a boolean", int: "a number", float: "a number", str: "a string", list: "a list", dict: "a structure"}


def read(shape: Shape | None, value: Any) -> dict[str, Any]:
    """The parameters. Raises SerializationException, and ValidationException with all that is wrong."""
    if shape is None:
        return {}
    problems: list[str] = []
    parameters = _read(shape, {} if value is None else value, "", problems)
    if problems:
        some = "; ".join(problems[:MAX_PROBLEMS])
        plural = "" if len(problems) == 1 else "s"
        raise ValidationException(f"{len(problems)} validation error{plural} detected: {some}")
    assert isinstance(parameters, dict)
    return parameters


def _read(shape: Shape, value: Any, path: str, problems: list[str]) -> Any:
    if isinstance(shape, StructureShape):
        return _structure(shape, value, path, problems)
    if isinstance(shape, ListShape):
        _of_kind(shape, value, path, list)
        problems += _sizes(shape, value, path, "length")
        return [_read(shape.member, one, f"{path}.{at}.member", problems) for at, one in enumerate(value, 1)]
    if isinstance(shape, MapShape):
        _of_kind(shape, value, path, dict)
        problems += _sizes(shape, value, path, "length")
        return {
            _read(shape.key, key, f"{path}.key", problems): _read(shape.value, one, f"{path}.{key}.member", problems)
            for key, one in value.items()
        }
    return _scalar(shape, value, path, problems)


def _structure(shape: StructureShape, value: Any, path: str, problems: list[str]) -> dict[str, Any]:
    _of_kind(shape, value, path, dict)
    for name in value:
        if name not in shape.members:
            known = ", ".join(shape.members)
            where = path.lstrip(".") or "input"
            raise ValidationException(f'Unknown parameter in {where}: "{name}", must be one of: {known}')
    there = {name: one for name, one in value.items() if one is not None}
    missing = [name for name in shape.required_members if name not in there]
    problems += [_problem(None, _below(path, name), "Member must not be null") for name in missing]
    return {name: _read(shape.members[name], one, _below(path, name), problems) for name, one in there.items()}


def _scalar(shape: Shape, value: Any, path: str, problems: list[str]) -> Any:
    kind = shape.type_name
    if kind == "timestamp":
        return _time(value, path)
    if kind == "blob":
        if isinstance(value, bytes):  # a body; botocore has 6 MiB as its limit, which the service raised to 25 MB
            return value
        try:
            return base64.b64decode(value, validate=True)
        except (binascii.Error, TypeError, ValueError) as error:
            raise SerializationException(f"{path.lstrip('.')} is no base64") from error
    _of_kind(shape, value, path, *_KINDS[kind])
    if isinstance(value, str):
        problems += _text(shape, value, path)
    elif not isinstance(value, bool):
        problems += _sizes(shape, value, path, "value")
    return value


def _text(shape: Shape, value: str, path: str) -> Iterator[str]:
    """Its length first: no expression meets a text that is too long."""
    too_long = list(_sizes(shape, value, path, "length"))
    if too_long:
        yield from too_long
        return
    pattern = shape.metadata.get("pattern")
    if pattern and not _compiled(pattern).fullmatch(value):
        yield _problem(value, path, f"Member must satisfy regular expression pattern: {pattern}")
    if isinstance(shape, StringShape) and shape.enum and value not in shape.enum:
        yield _problem(value, path, f"Member must satisfy enum value set: [{', '.join(shape.enum)}]")


def _sizes(shape: Shape, value: Any, path: str, what: str) -> Iterator[str]:
    size = value if what == "value" else len(value)
    least, most = shape.metadata.get("min"), shape.metadata.get("max")
    if least is not None and size < least:
        yield _problem(value, path, f"Member must have {what} greater than or equal to {least}")
    if most is not None and size > most:
        yield _problem(value, path, f"Member must have {what} less than or equal to {most}")


def _problem(value: Any, path: str, constraint: str) -> str:
    shown = "null" if value is None else f"'{_shown(value)}'"
    return f"Value {shown} at '{path.lstrip('.')}' failed to satisfy constraint: {constraint}"


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(_shown(one) for one in value)}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}={_shown(one)}' for key, one in value.items())}}}"
    return str(value)[:1024]


def _below(path: str, name: str) -> str:
    return f"{path}.{name[0].lower()}{name[1:]}"


def _of_kind(shape: Shape, value: Any, path: str, *kinds: type) -> None:
    # To Python a bool is an int; to JSON it is none.
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        found = _VALUES.get(type(value), "null")
        raise SerializationException(f"{path.lstrip('.') or 'input'}: {found} cannot be converted to {shape.type_name}")


def _time(value: Any, path: str) -> datetime:
    try:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return datetime.fromtimestamp(value, UTC)
        at = datetime.fromisoformat(value)
    except (ValueError, TypeError, OverflowError, OSError) as error:
        raise SerializationException(f"{path.lstrip('.')} is no time") from error
    return at if at.tzinfo else at.replace(tzinfo=UTC)


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    """Java's expression as Python's. One that Python cannot read is held against nothing."""
    text = _IN_BRACKETS.sub(lambda found: _translated(found[0], "{}"), pattern.replace(r"\z", r"\Z"))
    try:
        return re.compile(_translated(text, "[{}]"), re.DOTALL)
    except re.error:
        return re.compile(".*", re.DOTALL)


def _translated(text: str, form: str) -> str:
    """Inside of brackets the characters alone; outside of them a class of their own."""
    for java, characters in _JAVA.items():
        text = text.replace(java, form.replace("{}", characters))
    return text
