"""The compiled half of this package: walk.c.

Rule: what is walked has been found sound first, whoever packed it; walk.c then believes it.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from handler.compiled import holding, letting_go

Floats = npt.NDArray[np.float32]

if holding is not None and letting_go is not None:
    _holding, _letting_go = holding.forest_predict, letting_go.forest_predict
    _groups_letting_go = letting_go.forests_predict

# Rows times trees that are walked without letting go of the interpreter lock: about 20 us. Letting go and taking it
# again costs as much when other threads want it.
BRIEF = 1000
# Rows times trees from which other cores help, if none of them is at work for another body: about 2 ms.
_LONG = 200_000
# That one call takes for many groups: as many numbers as walk.c has room for.
MOST_COLUMNS = 1 << 15
_LEVEL_BYTES = 2
# Of a forest that is looked at without letting go of the lock: about 20 us.
_BRIEF_BYTES = 1 << 17


def is_available() -> bool:
    return holding is not None and letting_go is not None


def margin_of(intercept: float, transform: int) -> float:
    """What the sum of leaves begins with, for an intercept as XGBoost stores it."""
    assert holding is not None
    return float(holding.forest_margin(intercept, transform))


def is_sound(forest: bytes) -> bool:
    """Whether every index is in range and its trees are trees, so that no walk leaves it; never where there is no walker."""
    if holding is None or letting_go is None:
        return False
    n_nodes = holding.forest_largest_tree(forest, len(forest))
    if not n_nodes:
        return False
    look = holding.forest_is_sound if len(forest) <= _BRIEF_BYTES else letting_go.forest_is_sound
    return bool(look(forest, len(forest), ctypes.create_string_buffer(_LEVEL_BYTES * n_nodes)))


def predict(
    forest: bytes,
    rows: Floats,
    n_trees: int,
    n_groups: int,
    n_outputs: int,
    *,
    is_margin: bool,
    crew: Crew | None = None,
) -> Floats:
    """Score rows.

    forest   packed, of n_groups and n_outputs
    n_trees  of its trees that are walked, from the first on
    rows     float32, C-contiguous, (n_rows, n_features of the forest)
    crew     other cores, for a body that is long; None is this thread alone
    returns  float32, (n_rows, n_outputs); (n_rows, n_groups) for margins
    """
    n_rows = len(rows)
    scores = np.empty((n_rows, n_groups), np.float32)
    n_walks = n_rows * n_trees
    is_square = is_margin or n_outputs == n_groups  # otherwise scores move together, and parts of them would not
    if n_walks <= BRIEF:
        _holding(forest, address(rows), n_rows, n_trees, is_margin, address(scores))
    elif (
        crew is None
        or n_walks < _LONG
        or not is_square
        or not crew.walk(forest, rows, scores, n_trees, is_margin=is_margin)
    ):
        _letting_go(forest, address(rows), n_rows, n_trees, is_margin, address(scores))
    if is_square:
        return scores
    return scores.reshape(-1)[: n_rows * n_outputs].reshape(n_rows, n_outputs)


def predict_groups(forests: Sequence[bytes], borders: Sequence[int], columns: Floats, scores: Floats) -> None:
    """Score groups of rows, each by a forest of its own, in one call: 1 us a group, which `predict` takes ten of.

    forests  packed, each of one output and as many features as there are columns
    borders  two for each forest: where its rows begin and end
    columns  float32, C-contiguous, (n_features, n_rows); at most MOST_COLUMNS of them
    scores   float32, (n_rows,): where the plain scores go
    """
    assert len(columns) <= MOST_COLUMNS
    pointers = (ctypes.c_char_p * len(forests))(*forests)
    places = np.array(borders, np.int64)
    _groups_letting_go(pointers, len(forests), address(places), address(columns), columns.shape[1], address(scores))


def address(array: npt.NDArray[Any]) -> int:
    """Where its first number lies."""
    at: int = array.__array_interface__["data"][0]
    return at


class Crew:
    """All cores for one body at a time: a large one that comes alone is done sooner, and many at once, each on the core of
    its own thread, are not slowed by turns. Its threads start with the first such body and end with `close`.

    n_cores   that may be kept busy, the caller's own included
    """

    def __init__(self, n_cores: int) -> None:
        self.n_cores = n_cores
        self._is_at_work = threading.Lock()
        self._n_others = n_cores - 1
        self._threads: ThreadPoolExecutor | None = None

    def walk(self, forest: bytes, rows: Floats, scores: Floats, n_trees: int, *, is_margin: bool) -> bool:
        """False when the others are at work for somebody else, or there are none."""
        if self._n_others < 1 or not self._is_at_work.acquire(blocking=False):
            return False
        try:
            if self._threads is None:
                self._threads = ThreadPoolExecutor(self._n_others, thread_name_prefix="walker")
            borders = [len(rows) * number // (self._n_others + 1) for number in range(self._n_others + 2)]
            jobs = [
                partial(
                    _letting_go,
                    forest,
                    address(rows[start:end]),
                    end - start,
                    n_trees,
                    is_margin,
                    address(scores[start:end]),
                )
                for start, end in pairwise(borders)
            ]
            others = [self._threads.submit(job) for job in jobs[1:]]
            jobs[0]()
            for other in others:
                other.result()
        finally:
            self._is_at_work.release()
        return True

    def close(self) -> None:
        """No more bodies; returns when the threads are gone."""
        with self._is_at_work:
            self._n_others = 0
            if self._threads is not None:
                self._threads.shutdown()
