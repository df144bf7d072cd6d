"""JSON of ours read into its type at once."""

from __future__ import annotations

import json
from typing import TypeVar

import msgspec

T = TypeVar("T")


def read_as(decoder: msgspec.json.Decoder[T], text: bytes) -> T:
    """Raises ValueError where it is none of the decoder's type. json knows NaN and infinity, which msgspec does not."""
    try:
        return decoder.decode(text)
    except msgspec.DecodeError:
        try:
            found: T = msgspec.convert(json.loads(text), decoder.type)
        except msgspec.ValidationError as error:
            raise ValueError(str(error)) from error
        return found
