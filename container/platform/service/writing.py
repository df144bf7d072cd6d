"""What an operation answers, written by its shape.

Rule: an answer has no member that botocore's parser does not know, none it needs is missing, and words are of the enum.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from botocore.model import ListShape, MapShape, Shape, StringShape, StructureShape


class AnswerWrong(Exception):
    """A room's answer is none that the service could give. Ours to mend."""


def written(shape: Shape | None, answer: Mapping[str, Any]) -> dict[str, Any]:
    """What JSON can say of it. Raises AnswerWrong."""
    if shape is None:
        if answer:
            raise AnswerWrong(f"the operation answers nothing, but got {sorted(answer)}")
        return {}
    value = _written(shape, answer, shape.name)
    assert isinstance(value, dict)
    return value


def _written(shape: Shape, value: Any, path: str) -> Any:
    if isinstance(shape, StructureShape):
        there = {name: one for name, one in value.items() if one is not None}
        unknown = there.keys() - shape.members.keys()
        missing = set(shape.required_members) - there.keys()
        if unknown or missing:
            raise AnswerWrong(f"{path}: unknown {sorted(unknown)}, missing {sorted(missing)}")
        return {name: _written(shape.members[name], one, f"{path}.{name}") for name, one in there.items()}
    if isinstance(shape, ListShape):
        return [_written(shape.member, one, path) for one in value]
    if isinstance(shape, MapShape):
        return {key: _written(shape.value, one, f"{path}.{key}") for key, one in value.items()}
    if isinstance(value, datetime):
        return round(value.timestamp(), 3)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(shape, StringShape) and shape.enum and value not in shape.enum:
        raise AnswerWrong(f"{path}: {value!r} is none of {shape.enum}")
    return value
