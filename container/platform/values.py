"""What a room knows, as JSON can say it: times are written so that they are read as times again."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

_TIME = "$time"


def to_plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return {_TIME: value.isoformat()}
    if isinstance(value, Mapping):
        return {name: to_plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(one) for one in value]
    return value


def from_plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        if value.keys() == {_TIME}:
            return datetime.fromisoformat(value[_TIME])
        return {name: from_plain(one) for name, one in value.items()}
    if isinstance(value, list):
        return [from_plain(one) for one in value]
    return value
