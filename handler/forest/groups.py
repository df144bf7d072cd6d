"""Rows in the order of their groups.

Rule: the same order with what is compiled (groups.c) as without: group by group, and in a group as the rows came.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from handler.compiled import letting_go
from handler.forest.walker import address


def in_groups(codes: npt.NDArray[Any], n_groups: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.int64]]:
    """What rows' numbers are in the order of groups, and where in it each group ends.

    codes  of each row its group's number, below n_groups
    """
    if letting_go is None:
        # NumPy sorts 16 bits by radix, ten times as fast as more.
        small = np.uint16 if n_groups <= 1 << 16 else np.int64
        order = np.argsort(codes.astype(small, copy=False), kind="stable")
        return order, np.cumsum(np.bincount(codes, minlength=n_groups))
    codes = np.ascontiguousarray(codes, np.int32)
    ends, order = np.empty(n_groups, np.int64), np.empty(len(codes), np.intp)
    is_done = letting_go.groups_order(address(codes), len(codes), n_groups, address(ends), address(order))
    assert is_done, "a code is no group's"
    return order, ends
