"""A column's cells as float32, the way a model is handed them.

Rule: as the endpoint reads a body (handler/payload): what is no number there is none here, and is told with its row.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from handler.errors import PayloadInvalid
from handler.payload.numbers import read_number, shorten
from handler.payload.rows import Floats


def floats_of(column: Any, *, is_typed: bool) -> tuple[Floats, dict[int, str]]:
    """A column as float32, null as NaN, and the cells that are no numbers, by row.

    is_typed   what is written as text is no number, whatever it looks like

    Numbers go through float64, as the endpoint reads Parquet and CSV.
    """
    import pyarrow as pa
    import pyarrow.types as types

    kind = column.type
    if types.is_dictionary(kind):
        return floats_of(column.cast(kind.value_type), is_typed=True)
    if not is_typed and types.is_string(kind):
        return _floats_of_text(column)
    if not (types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind) or types.is_null(kind)):
        faults = dict.fromkeys(np.flatnonzero(column.is_valid().to_numpy()).tolist(), f"a {kind}")
        return np.full(len(column), np.nan, np.float32), faults
    if not (types.is_float32(kind) or types.is_float64(kind)):
        column = column.cast(pa.float64(), safe=False)
    with np.errstate(over="ignore"):  # beyond float32 is infinite, and found by that
        return _numbers(column).astype(np.float32, copy=False), {}


def _numbers(column: Any) -> NDArray[Any]:
    """A column of floats, null as NaN."""
    import pyarrow as pa

    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    pieces: list[NDArray[Any]] = [chunk.to_numpy(zero_copy_only=False) for chunk in chunks]
    if len(pieces) == 1:
        return pieces[0]
    # A tenth of the time that the column itself takes for it.
    return np.concatenate(pieces) if pieces else np.empty(0, np.float32)


def _number_of(cell: str) -> float | None:
    """As a body of text/csv would be read; None for what is no number."""
    try:
        return read_number(cell.strip(), "")
    except PayloadInvalid:
        return None


def _floats_of_text(column: Any) -> tuple[Floats, dict[int, str]]:
    faults: dict[int, str] = {}
    values = np.full(len(column), np.nan)
    known: dict[str, float | None] = {}
    for row, cell in enumerate(column.to_pylist()):
        if cell is None or not cell.strip():
            continue
        number = known.get(cell, ...)
        if number is ...:
            number = _number_of(cell)
            if len(known) < 1 << 16:
                known[cell] = number
        if number is None:
            faults[row] = shorten(cell)
        else:
            values[row] = number
    with np.errstate(over="ignore"):
        return values.astype(np.float32), faults
