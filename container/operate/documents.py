"""Documents of ours, read back from where others can write.

Rule: a document is what its type says, to the last field, or it is refused with where it is not.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec

from container.operate.troubles import Refused

T = TypeVar("T")


def read_as(kind: type[T], data: bytes, uri: str) -> T:
    """JSON as a value of this type. Raises Refused. Fields of a later release are looked past."""
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refused(f"{uri} is not as it was written: {error}") from error
