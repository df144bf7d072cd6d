"""Rows as application/x-npy: an array as numpy.save wrote it.

Rule: nothing is unpickled or evaluated, and a shape is believed only when the bytes behind the header are exactly that
many. numpy's own reader evaluates the header as a Python literal, and warns and tokenizes when it cannot.
source   numpy.lib.format, "Format Version 1.0" to 3.0
"""

from __future__ import annotations

import math
import re
import struct
from typing import Any

import numpy as np

from handler.errors import PayloadInvalid
from handler.payload.numbers import finite, shorten
from handler.payload.rows import Rows

_MAGIC = b"\x93NUMPY"

# An honest header of numbers is 118 bytes.
MAX_HEADER_BYTES = 1024

# Major version to the size of the header's length.
_LENGTHS = {1: struct.Struct("<H"), 2: struct.Struct("<I"), 3: struct.Struct("<I")}

_DESCR = re.compile(r"""["']descr["']\s*+:\s*+["']([<>|=]?[biuf]\d{1,2})["']""")
_ORDER = re.compile(r"""["']fortran_order["']\s*+:\s*+(True|False)""")
_SHAPE = re.compile(r"""["']shape["']\s*+:\s*+\(\s*+(\d++)\s*+,\s*+(?:(\d++)\s*+(?:,\s*+)?)?\)""")


def read_npy(body: bytes, n_features: int) -> Rows:  # noqa: ARG001 - every reader is called alike
    """The rows of an npy body: two axes, or one for a single row; any integer, float or boolean type.

    raises   PayloadInvalid
    """
    dtype, is_fortran, shape, start = _read_header(body)
    array = np.frombuffer(body, dtype, offset=start).reshape(shape, order="F" if is_fortran else "C")
    with np.errstate(over="ignore", invalid="ignore"):  # a number beyond float32 becomes infinite, and is found by that
        values = np.ascontiguousarray(array, dtype=np.float32)
    return Rows(finite(values.reshape(-1, shape[-1])))


def npy_shape(body: bytes) -> tuple[int, int]:
    """How many rows and columns an npy body holds; costs nothing, however many there are.

    raises   PayloadInvalid
    """
    _, _, shape, _ = _read_header(body)
    return math.prod(shape[:-1]), shape[-1]


def _read_header(body: bytes) -> tuple[np.dtype[Any], bool, tuple[int, ...], int]:
    """Type, whether columns lie together, shape, and where the numbers start."""
    if not body.startswith(_MAGIC) or len(body) < len(_MAGIC) + 6:
        raise PayloadInvalid("npy header", "no magic string, so no npy")
    length = _LENGTHS.get(body[len(_MAGIC)])
    if length is None:
        raise PayloadInvalid("npy header", f"version {body[len(_MAGIC)]}; only versions 1 to 3 are read")
    at = len(_MAGIC) + 2
    (n_bytes,) = length.unpack_from(body, at)
    start = at + length.size + n_bytes
    if n_bytes > MAX_HEADER_BYTES or start > len(body):
        raise PayloadInvalid("npy header", f"{n_bytes} bytes announced, at most {MAX_HEADER_BYTES} are read")
    text = body[at + length.size : start].decode("latin-1")
    descr, order, shape = (pattern.search(text) for pattern in (_DESCR, _ORDER, _SHAPE))
    if descr is None:
        raise PayloadInvalid("npy header", f"its type is not a number: {shorten(text)}")
    if order is None or shape is None:
        raise PayloadInvalid("npy header", f"its shape is neither one row nor rows and columns: {shorten(text)}")
    try:
        dtype = np.dtype(descr[1])
    except TypeError as error:
        raise PayloadInvalid("npy header", f"type {descr[1]} is not a number") from error
    sides = tuple(int(side) for side in shape.groups() if side is not None)
    n_numbers_bytes, there = math.prod(sides) * dtype.itemsize, len(body) - start
    if not n_numbers_bytes:
        raise PayloadInvalid("", "the body holds no rows")
    if n_numbers_bytes != there:
        raise PayloadInvalid("npy header", f"shape {sides} of {dtype} takes {n_numbers_bytes} bytes, {there} are there")
    return dtype, order[1] == "True", sides, start
