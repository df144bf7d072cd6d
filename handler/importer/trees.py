"""The trees of a booster's UBJSON in one call of C (trees.c), where it was compiled, and checked in another (checks.c): a
tenth of the time that Python takes.

Rule: what comes out is what Python would have read and found, to the bit. Whatever is out of the ordinary is declined and
looked at by Python.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from handler.compiled import letting_go
from handler.importer.learner import Array, Trees

_FLOAT, _INT, _LONG, _BYTE = map(np.dtype, (np.float32, np.int32, np.int64, np.uint8))
# column of Trees -> its type in memory, in the order of trees.c
_COLUMNS: dict[str, np.dtype[Any]] = {
    "base_weight": _FLOAT,
    "default_left": _BYTE,
    "left": _INT,
    "loss_change": _FLOAT,
    "parent": _INT,
    "right": _INT,
    "split_condition": _FLOAT,
    "split_index": _LONG,
    "split_type": _BYTE,
    "sum_hessian": _FLOAT,
}
# All of them lie in one block of memory: where each begins, in bytes for each node that there is room for. The widest first,
# so that each number lies at a multiple of its size.
_BESIDE: dict[str, int] = {}
_BLOCK_BYTES = 0
for _name in sorted(_COLUMNS, key=lambda name: -_COLUMNS[name].itemsize):
    _BESIDE[_name] = _BLOCK_BYTES
    _BLOCK_BYTES += _COLUMNS[_name].itemsize
_NODE_BYTES = 8 * 4 + 2  # in the file, at least
_TREE_BYTES = 400  # beside its nodes, at least; 16 keys and 11 heads
_Pointers = ctypes.c_void_p * len(_COLUMNS)
_buffer_of: Callable[[Any], ctypes.c_char] = ctypes.c_char.from_buffer


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
    block = np.empty(max_nodes * _BLOCK_BYTES, np.uint8)
    first = address(block)
    pointers = _Pointers(*[first + max_nodes * _BESIDE[name] for name in _COLUMNS])
    end = letting_go.trees_read(data, len(data), at, n_trees, max_nodes, address(sizes), pointers)
    if end < 0:
        return None
    np.add.accumulate(sizes, out=sizes)
    n_nodes = int(starts[-1])
    columns = {
        name: np.frombuffer(block, dtype, n_nodes, max_nodes * _BESIDE[name]) for name, dtype in _COLUMNS.items()
    }
    return TreeColumns(starts, columns), end


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
    if trees.starts.dtype != np.int64:
        return False
    shape = (int(trees.starts[-1]),)
    for column, dtype in (
        (trees.left, _INT),
        (trees.right, _INT),
        (trees.parent, _INT),
        (trees.split_index, _LONG),
        (trees.split_condition, _FLOAT),
        (trees.default_left, _BYTE),
        (trees.split_type, _BYTE),
    ):
        if column.dtype != dtype or column.shape != shape or not column.flags.c_contiguous:
            return False
    return True


def address(array: Array) -> int:
    """Of its first item; the array has to be kept for as long as it is used."""
    try:
        return ctypes.addressof(_buffer_of(array))
    except (TypeError, ValueError):  # read-only, or empty; to be asked costs five times as much
        found: int = array.__array_interface__["data"][0]
        return found
