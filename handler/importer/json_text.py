"""JSON as XGBoost writes it, read into Python values.

Rule: nesting is measured before a parser that recurses sees the text, and `NaN` and `Infinity`, which XGBoost writes
and JSON does not know, are read as XGBoost reads them.
"""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import orjson

from handler.importer.broken import Damaged

MAX_DEPTH = 24
# The closing quote is optional so that an unclosed string is one match to the end, not one try for each quote in it.
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*+"?', re.DOTALL)
_NO_BRACKET = bytes(byte for byte in range(256) if byte not in b"[]{}")


def read(data: bytes) -> Any:
    """The value in `data`.

    raises   Damaged where the text is no JSON, nests deeper than MAX_DEPTH, or is mostly brackets
    """
    _check_nesting(data)
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:
        if b"NaN" not in data and b"Infinity" not in data:
            raise Damaged(f"JSON is damaged ({error})") from error
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Damaged(f"JSON is damaged ({error})") from error


def _check_nesting(data: bytes) -> None:
    brackets = np.frombuffer(_STRING.sub(b"", data).translate(None, _NO_BRACKET), np.uint8)
    # "{}" costs two bytes here and 64 as a dict; the smallest tree has a bracket per 13 bytes.
    if len(brackets) > 1000 + len(data) // 8:
        raise Damaged("JSON has more objects and arrays than a booster of its size")
    if len(brackets):
        opens = (brackets == ord("[")) | (brackets == ord("{"))
        if np.cumsum(np.where(opens, 1, -1)).max() > MAX_DEPTH:
            raise Damaged(f"JSON nests deeper than {MAX_DEPTH} levels")
