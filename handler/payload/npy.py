"""Rows as application/x-npy: an array as numpy.save wrote it.

Rule: never unpickled, and the shape is believed only when the bytes behind the header are exactly that many.
"""

from __future__ import annotations

import io
import math

import numpy as np

from handler.errors import PayloadInvalid
from handler.payload.numbers import finite
from handler.payload.rows import Rows

# An honest header is 128 bytes. It is a Python literal, so its size bounds what parsing it can cost.
MAX_HEADER_BYTES = 1024

# 1.0 and 2.0 differ in the size of a length; 3.0 allows UTF-8 field names, which numbers without fields do not need.
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def read_npy(body: bytes, n_features: int) -> Rows:  # noqa: ARG001 - every reader is called alike
    """The rows of an npy body: two axes, or one for a single row; any integer, float or boolean type.

    raises   PayloadInvalid
    """
    file = io.BytesIO(body)
    try:
        read_header = _HEADERS[np.lib.format.read_magic(file)]
        shape, is_fortran, dtype = read_header(file, max_header_size=MAX_HEADER_BYTES)
    except KeyError as error:
        raise PayloadInvalid("npy header", "only versions 1.0 and 2.0 are read") from error
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError, OverflowError) as error:
        raise PayloadInvalid("npy header", f"unreadable: {error}") from error
    if dtype.kind not in "biuf":
        raise PayloadInvalid("npy header", f"type {dtype} is not a number")
    if len(shape) not in {1, 2} or not all(side > 0 for side in shape):
        raise PayloadInvalid("npy header", f"shape {shape} is neither one row nor rows and columns")
    n_bytes, there = math.prod(shape) * dtype.itemsize, len(body) - file.tell()
    if n_bytes != there:
        raise PayloadInvalid("npy header", f"shape {shape} of {dtype} takes {n_bytes} bytes, {there} are there")
    array = np.frombuffer(body, dtype, offset=file.tell()).reshape(shape, order="F" if is_fortran else "C")
    with np.errstate(over="ignore"):  # a number beyond float32 becomes infinite, and is found by that
        values = np.ascontiguousarray(array, dtype=np.float32)
    return Rows(finite(values.reshape(-1, shape[-1])))
