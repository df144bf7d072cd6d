"""The trees of a booster's UBJSON in one call of C (trees.c), where it was compiled, and checked in another (checks.c): a
tenth of the time that Python takes.

Rule: what comes out is what Python would have read and found, to the bit. Whatever is out of the ordinary is declined and
looked at by Python.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import numpy as np

from handler.compiled import letting_go
from handler.importer.learner import Array, Trees

# column of Trees -> its type in memory, in the order of trees.c
_COLUMNS: dict[str, Any] = {
    "base_weight": np.float32,
    "default_left": np.uint8,
    "left": np.int32,
    "loss_change": np.float32,
    "parent": np.int32,
    "right": np.int32,
    "split_condition": np.float32,
    "split_index": np.int64,
    "split_type": np.uint8,
    "sum_hessian": np.float32,
}
_NODE_BYTES = 8 * 4 + 2  # in the file, at least
_TREE_BYTES = 400  # beside its nodes, at least; 16 keys and 11 heads
_Pointers = ctypes.c_void_p * len(_COLUMNS)


@dataclass(frozen=True, slots=True, eq=False)
class TreeColumns:
    """All trees of a document, in the order of their ids: numerical splits, and one value a leaf.

    starts    int64, (n_trees + 1,): where the nodes of each begin, and the last one's end
    columns   of Trees, by name: those that hold a number for each node
    """

    starts: Array
    columns: dict[str, Array]


def read(data: bytes, at: int, n_trees: int) -> tuple[TreeColumns, int] | None:
    """The trees that begin at a byte of a document, and where they end; None for whatever is out of the ordinary."""
    if letting_go is None or type(data) is not bytes or n_trees < 1 or n_trees > (len(data) - at) // _TREE_BYTES:
        return None
    max_nodes = (len(data) - at) // _NODE_BYTES
    starts = np.zeros(n_trees + 1, np.int64)
    sizes = starts[1:]
    columns = {name: np.empty(max_nodes, dtype) for name, dtype in _COLUMNS.items()}
    pointers = _Pointers(*[address(column) for column in columns.values()])
    end = letting_go.trees_read(data, len(data), at, n_trees, max_nodes, address(sizes), pointers)
    if end < 0:
        return None
    np.add.accumulate(sizes, out=sizes)
    n_nodes = int(starts[-1])
    return TreeColumns(starts, {name: column[:n_nodes] for name, column in columns.items()}), end


def are_sound(trees: Trees, n_features: int, max_depth: int) -> bool:
    """Whether there is nothing to find for checks.py, which has to look when this is False. Spells them as that does."""
    if letting_go is None or trees.leaf_vectors is not None or len(trees.category_nodes) or len(trees.categories):
        return False
    if not are_as_read(trees):
        return False
    depths = np.empty(len(trees.left), np.uint16)
    found = letting_go.trees_are_sound(
        address(trees.starts), trees.n_trees, n_features, max_depth,
        address(trees.left), address(trees.right), address(trees.parent), address(trees.split_index),
        address(trees.split_condition), address(trees.default_left), address(trees.split_type), address(depths),
    )  # fmt: skip
    return bool(found)


def are_as_read(trees: Trees) -> bool:
    """Whether its columns lie in memory as C wants them."""
    n_nodes = int(trees.starts[-1])
    return trees.starts.dtype == np.int64 and all(
        column.dtype == dtype and column.shape == (n_nodes,) and column.flags.c_contiguous
        for column, dtype in (
            (trees.left, np.int32),
            (trees.right, np.int32),
            (trees.parent, np.int32),
            (trees.split_index, np.int64),
            (trees.split_condition, np.float32),
            (trees.default_left, np.uint8),
            (trees.split_type, np.uint8),
        )
    )


def address(array: Array) -> int:
    """Of its first item; the array has to be kept for as long as it is used."""
    try:
        return ctypes.addressof(ctypes.c_char.from_buffer(array.data))
    except (TypeError, ValueError):  # read-only, or empty; to be asked costs five times as much
        found: int = array.__array_interface__["data"][0]
        return found
