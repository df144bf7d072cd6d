"""The columns of answers that all parts of a run have.

Rule: a run has one layout, that of the first model its data names. Answers of another shape are errors of their rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from handler.outputs import SCORE
from handler.payload import Predictions

if TYPE_CHECKING:
    import pyarrow as pa

MAX_DEPTH = 2
# By NumPy's letter for a kind, and d for float64: labels may be numbers, truths or words.
_CELLS: dict[str, np.dtype[Any]] = {
    "f": np.dtype(np.float32),
    "d": np.dtype(np.float64),
    "i": np.dtype(np.int64),
    "b": np.dtype(np.bool_),
    "U": np.dtype(object),
}


@dataclass(frozen=True, slots=True)
class Column:
    """depth: 0 for one cell a row, 1 for a list of them, 2 for lists of lists. letter: what a cell is, of _CELLS."""

    name: str
    depth: int
    letter: str

    @property
    def type(self) -> pa.DataType:
        import pyarrow as pa

        kind = pa.string() if self.letter == "U" else pa.from_numpy_dtype(_CELLS[self.letter])
        for _ in range(self.depth):
            kind = pa.list_(kind)
        return kind

    @property
    def is_one(self) -> bool:
        """Whether there is such a column, in what was read back."""
        return self.letter in _CELLS and 0 <= self.depth <= MAX_DEPTH

    @property
    def cells(self) -> np.dtype[Any]:
        return _CELLS[self.letter]

    def fits(self, array: NDArray[Any]) -> bool:
        return array.ndim - 1 == self.depth and _letter(array) == self.letter


Layout = tuple[Column, ...]
PLAIN: Layout = (Column(SCORE, 0, "f"),)


def named(predictions: Predictions) -> Mapping[str, NDArray[Any]]:
    """Each output by its name, without the axis of outputs where there is but one."""
    outputs = predictions.outputs
    if isinstance(outputs, np.ndarray):
        return {SCORE: outputs[:, 0] if outputs.shape[1] == 1 else outputs}
    return outputs


def _letter(array: NDArray[Any]) -> str:
    kind = array.dtype.kind
    return "d" if kind == "f" and array.dtype.itemsize == 8 else "i" if kind == "u" else kind


def layout_of(predictions: Predictions) -> Layout:
    return tuple(Column(name, array.ndim - 1, _letter(array)) for name, array in named(predictions).items())


def without_model(outputs: tuple[str, ...]) -> Layout:
    """For data that names no model at all: there are no answers, and columns all the same."""
    return tuple(Column(name, 0, "f") for name in outputs) or PLAIN


def as_lists(array: NDArray[Any], column: Column) -> pa.Array:
    """Rows of numbers as Arrow's lists."""
    import pyarrow as pa

    made = pa.array(np.ascontiguousarray(array, column.cells).reshape(-1))
    for axis in range(array.ndim - 1, 0, -1):
        n_lists = int(np.prod(array.shape[:axis]))
        ends = np.arange(n_lists + 1, dtype=np.int32) * array.shape[axis]
        made = pa.ListArray.from_arrays(pa.array(ends), made)
    return made
