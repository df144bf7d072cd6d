"""Numbers as float32, and what is not one.

Rule: a number that no float32 can hold is refused, never turned into infinity. XGBoost's DMatrix refuses infinity
("Input data contains `inf` or a value too large") while its in-place prediction takes it in silence; the answer must
not depend on which of the two a request meets, so infinity is refused here.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from handler.errors import PayloadInvalid

TOO_LARGE = "infinite, or too large for a float32 (at most 3.4028235e+38)"

# How many characters of an offending cell are shown.
SHOWN_CHARACTERS = 40


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


def shorten(text: str) -> str:
    """The text in quotes, cut to what fits in a message."""
    return repr(text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}...")
