"""Thousands of names, each with a number, in one Arrow array: a dictionary takes ten times as much for each.

Rule: a name has one number for good, in the order in which they came.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pyarrow as pa

NOBODY = -1
N_AT_ONCE = 4096


def places(texts: pa.Array, known: pa.Array) -> NDArray[np.int32]:
    """Where each is among those that are known; NOBODY where it is not, and for null."""
    import pyarrow.compute as pc

    found: NDArray[np.int32] = pc.index_in(texts, known).fill_null(NOBODY).to_numpy(zero_copy_only=False)
    return found


class Names:
    def __init__(self, names: Iterable[str] = ()) -> None:
        import pyarrow as pa

        self._names: Any = pa.array([], pa.string())
        self._by_name: NDArray[np.uint64] | None = None
        waiting: list[str] = []
        for name in names:
            waiting.append(name)
            if len(waiting) >= N_AT_ONCE:
                self.number(waiting)
                waiting.clear()
        self.number(waiting)

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, number: int) -> str:
        name: str = self._names[number].as_py()
        return name

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), N_AT_ONCE):
            yield from self._names.slice(start, N_AT_ONCE).to_pylist()

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.find(name) != NOBODY

    def known(self, names: pa.Array) -> NDArray[np.int32]:
        """Of each of many its number; NOBODY where it has none, and for null."""
        return places(names, self._names)

    def number(self, names: list[str]) -> NDArray[np.int32]:
        """The number of each; those that had none get the next ones."""
        import pyarrow as pa

        given = pa.array(names, pa.string())
        numbers = self.known(given)
        if (numbers == NOBODY).any():
            fresh = given.filter(pa.array(numbers == NOBODY)).unique()
            self._names = pa.concat_arrays([self._names, fresh])
            self._by_name = None
            numbers = self.known(given)
        return numbers

    def find(self, name: str) -> int:
        """The number of a single one, or NOBODY."""
        order = self.in_order()
        at = bisect_left(range(len(order)), name, key=lambda place: self[int(order[place])])
        if at < len(order) and self[int(order[at])] == name:
            return int(order[at])
        return NOBODY

    def in_order(self) -> NDArray[np.uint64]:
        """Numbers, sorted by name, as Python sorts texts."""
        import pyarrow.compute as pc

        if self._by_name is None:
            # Bytes of UTF-8 are in the order of the characters that they stand for.
            self._by_name = pc.array_sort_indices(self._names).to_numpy(zero_copy_only=False)
        return self._by_name
