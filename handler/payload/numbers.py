"""Numbers as float32, and what is not one.

Rule: a number that no float32 can hold is refused, never turned into infinity. XGBoost's DMatrix refuses infinity
("Input data contains `inf` or a value too large") while its in-place prediction takes it in silence; the answer must
not depend on which of the two a request meets, so infinity is refused here.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from handler.errors import PayloadInvalid

TOO_LARGE = "infinite, or too large for a float32 (at most 3.4028235e+38)"

# How many characters of an offending cell are shown.
SHOWN_CHARACTERS = 40

# The largest float32 printed in full has 39 digits, the smallest some 150. What is longer is no number that anybody means,
# and no regular expression gets to see it.
MAX_CELL_BYTES = 512

# One number as text. Possessive, so that what was matched is never tried another way: a cell costs its length and no more.
_NUMBER = re.compile(r"[+-]?(?:\d++(?:\.\d*+)?|\.\d++)(?:[eE][+-]?\d++)?", re.ASCII)
_MISSING = re.compile(r"[+-]?(?:nan|null)", re.ASCII | re.IGNORECASE)
_INFINITY = re.compile(r"[+-]?inf(?:inity)?", re.ASCII | re.IGNORECASE)


@lru_cache(maxsize=256)
def packer(n_numbers: int) -> Callable[..., bytes]:
    """A function of that many numbers: their native float32 bytes.

    It raises OverflowError for a number beyond float32, struct.error for what is no number.
    `=` and not `@`: only the standard sizes check for overflow.
    """
    if n_numbers == 0:
        raise ValueError("no numbers")
    return struct.Struct(f"={n_numbers}f").pack


def fits_float32(number: float) -> bool:
    """Whether the nearest float32 is finite (or the number is NaN)."""
    try:
        packer(1)(number)
    except OverflowError:
        return False
    return number not in (float("inf"), float("-inf"))


def finite(values: NDArray[np.float32], where: str = "row {row}, column {column}") -> NDArray[np.float32]:
    """The values, (n_rows, n_columns), when none of them is infinite.

    where    how a cell is named to the caller; `row` and `column` count from one
    raises   PayloadInvalid naming the first infinite cell
    """
    infinite = np.isinf(values)
    if infinite.any():
        row, column = divmod(int(infinite.argmax()), values.shape[1])
        raise PayloadInvalid(where.format(row=row + 1, column=column + 1), TOO_LARGE)
    return values


def has_long_cell(text: bytes, separator: bytes, at: int = 0, end: int | None = None) -> bool:
    """Whether more than MAX_CELL_BYTES lie between two separators; a look every so many bytes is enough to know."""
    end = len(text) if end is None else end
    while end - at > MAX_CELL_BYTES:
        found = text.rfind(separator, at, at + MAX_CELL_BYTES + 1)
        if found < 0:
            return True
        at = found + 1
    return False


def read_number(text: str, where: str, what: str = "a number", shown: str = "", hint: str = "") -> float:
    """The number a cell says; `nan` and `null` are missing values.

    what, shown, hint   for the refusal: what should have been there, what was (the text), what else to say
    raises              PayloadInvalid for anything else, infinity, what no float32 holds, more than MAX_CELL_BYTES
    """
    shown = shown or shorten(text)
    if len(text) > MAX_CELL_BYTES:
        raise PayloadInvalid(
            where, f"{shown} of {len(text)} characters is not {what}; at most {MAX_CELL_BYTES} are read"
        )
    if _NUMBER.fullmatch(text):
        number = float(text)
        if fits_float32(number):
            return number
    elif _MISSING.fullmatch(text):
        return math.nan
    elif not _INFINITY.fullmatch(text):
        raise PayloadInvalid(where, f"{shown} is not {what}{hint}")
    raise PayloadInvalid(where, f"{shown} is {TOO_LARGE}")


def shorten(text: str) -> str:
    """The text in quotes, cut to what fits in a message."""
    return repr(text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}...")
