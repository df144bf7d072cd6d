"""Columns of a window as the rows of features that a model takes.

Rule: what the endpoint refuses is refused here in the row that has it: text where a number belongs, and numbers that no
float32 can hold. Names decide where model and data have both; where the model has none, the order of the columns does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from container.operate.batch.asked import Asked
from container.operate.tables.floats import floats_of
from handler.errors import FeatureMismatch
from handler.payload.numbers import TOO_LARGE
from handler.payload.rows import MAX_NAMES_SHOWN, Floats
from handler.predictor import Facts

if TYPE_CHECKING:
    from container.operate.tables.windows import Window

# Sets of columns whose blocks are kept for a window: models of one family have one.
MAX_BLOCKS = 4


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Rows of features in the order of the window's groups.

    values  float32, C-contiguous, (n_rows, n_features)
    unfit   of each row, whether it holds what no model takes; None when none does
    """

    values: Floats
    unfit: NDArray[np.bool_] | None


class Features:
    """One window's columns of features. order: which row comes where in the blocks."""

    def __init__(self, window: Window, order: NDArray[np.intp], asked: Asked) -> None:
        self._window = window
        self._order = order
        self._columns: dict[str, tuple[Floats, dict[int, str]]] = {}
        self._blocks: dict[tuple[str, ...], Block] = {}
        self._names: dict[tuple[tuple[str, ...], int], tuple[str, ...]] = {}
        self._present = frozenset(window.table.column_names)
        text = frozenset(asked.text_columns)
        self._in_order = tuple(name for name in window.table.column_names if name not in text)

    def names_for(self, facts: Facts) -> tuple[str, ...]:
        """The columns a model takes, in its order. Raises FeatureMismatch."""
        names = self._names.get((facts.feature_names, facts.n_features))
        if names is None:
            names = self._names[facts.feature_names, facts.n_features] = self._found(facts)
        return names

    def _found(self, facts: Facts) -> tuple[str, ...]:
        if self._window.is_named and not facts.feature_names:
            places = tuple(f"f{at}" for at in range(facts.n_features))  # XGBoost's own names for features without
            if self._present.issuperset(places):
                return places
        if facts.feature_names and self._window.is_named:
            if self._present.issuperset(facts.feature_names):
                return facts.feature_names
            missing = [name for name in facts.feature_names if name not in self._present]
            shown = ", ".join(map(repr, missing[:MAX_NAMES_SHOWN]))
            more = f" and {len(missing) - MAX_NAMES_SHOWN} more" if len(missing) > MAX_NAMES_SHOWN else ""
            raise FeatureMismatch(f"columns are missing that the model has as features: {shown}{more}")
        if len(self._in_order) != facts.n_features:
            raise FeatureMismatch(
                f"the model has {facts.n_features} features without names, the data {len(self._in_order)} columns for them"
            )
        return self._in_order

    def block(self, names: tuple[str, ...]) -> Block:
        block = self._blocks.get(names)
        if block is None:
            if len(self._blocks) >= MAX_BLOCKS:
                del self._blocks[next(iter(self._blocks))]
            block = self._blocks[names] = self._made(names)
        return block

    def _made(self, names: tuple[str, ...]) -> Block:
        n_rows = len(self._order)
        values = np.empty((n_rows, len(names)), np.float32)
        unfit = np.zeros(n_rows, np.bool_)
        for at, name in enumerate(names):
            column, faults = self._column(name)
            values[:, at] = column[self._order]
            if faults:
                unfit[list(faults)] = True
            if not np.isfinite(
                column.sum()
            ):  # something in it is not, or the sum is too large; only then each is looked at
                unfit |= np.isinf(column)
        return Block(values, unfit[self._order] if unfit.any() else None)

    @staticmethod
    def odd_codes(rows: Floats, facts: Facts) -> NDArray[np.bool_]:
        """Rows with a number in a column of categories that is the code of none. As handler/payload/rows.py refuses them."""
        odd = np.zeros(len(rows), np.bool_)
        for feature, categories in facts.categories:
            cells = rows[:, feature]
            odd |= ~(np.isnan(cells) | ((cells >= 0) & (cells < len(categories)) & (cells == np.floor(cells))))
        return odd

    def why_unfit(self, names: tuple[str, ...], row: int) -> str:
        """What is wrong with a row, by its place in the window."""
        for name in names:
            column, faults = self._column(name)
            if row in faults:
                return f"column {name!r}: {faults[row]} is not a number"
            if np.isinf(column[row]):
                return f"column {name!r}: {TOO_LARGE}"
        return "it does not fit"

    def _column(self, name: str) -> tuple[Floats, dict[int, str]]:
        made = self._columns.get(name)
        if made is None:
            made = self._columns[name] = floats_of(self._window.table.column(name), is_typed=self._window.is_typed)
        return made
