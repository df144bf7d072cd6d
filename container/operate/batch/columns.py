"""Columns of a window as the rows of features that a model takes.

Rule: what the endpoint refuses is refused here in the row that has it: text where a number belongs, words that are none of a
model's categories, and numbers that no float32 can hold. Names decide where model and data have both; where the model has
none, the order of the columns does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from container.operate.batch.asked import Asked
from container.operate.tables.floats import floats_of
from handler.errors import FeatureMismatch
from handler.payload.numbers import TOO_LARGE, shorten
from handler.payload.rows import MAX_NAMES_SHOWN, Floats, Word, codes_of, some
from handler.predictor import Facts

if TYPE_CHECKING:
    from container.operate.tables.windows import Window

# Sets of columns whose blocks are kept for a window: models of one family have one.
MAX_BLOCKS = 4
# A model's categories in the order of their codes; None when its file does not hold them.
Words = tuple[Word, ...] | None
UsedWords = tuple[tuple[int, Words], ...]


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Rows of features in the order of the window's groups.

    columns  float32, C-contiguous, (n_features, n_rows)
    unfit    of each row, whether it holds what no model takes; None when none does
    """

    columns: Floats
    unfit: NDArray[np.bool_] | None

    def rows(self, start: int, end: int) -> Floats:
        """Float32, C-contiguous, (end - start, n_features)."""
        return np.ascontiguousarray(self.columns[:, start:end].T)


class Features:
    """One window's columns of features. order: which row comes where in the blocks, of the rows that come there at all."""

    def __init__(self, window: Window, order: NDArray[np.intp], asked: Asked) -> None:
        self._window = window
        self._order = order
        self._columns: dict[str, tuple[Floats, dict[int, str]]] = {}
        self._coded: dict[tuple[str, Words], tuple[Floats, dict[int, str]]] = {}
        self._blocks: dict[tuple[tuple[str, ...], UsedWords], Block] = {}
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

    def block(self, names: tuple[str, ...], facts: Facts) -> Block:
        key = names, self._used_words(names, facts)
        block = self._blocks.get(key)
        if block is None:
            if len(self._blocks) >= MAX_BLOCKS:
                del self._blocks[next(iter(self._blocks))]
            block = self._blocks[key] = self._made(*key)
        return block

    def _used_words(self, names: tuple[str, ...], facts: Facts) -> UsedWords:
        """Features that have categories where the window has words, and the words that the model knows."""
        if not facts.is_categorical and not facts.categories:
            return ()
        known = dict(facts.categories)
        wanted = {*known, *(at for at, kind in enumerate(facts.feature_types) if kind == "c")}
        return tuple((at, known.get(at)) for at in sorted(wanted) if self._has_words(names[at]))

    def _has_words(self, name: str) -> bool:
        import pyarrow.types as types

        kind = self._window.table.schema.field(name).type
        is_text = types.is_string(kind) or types.is_large_string(kind)
        return types.is_dictionary(kind) or (is_text and self._window.is_typed) or name in self._window.as_words

    def _made(self, names: tuple[str, ...], used: UsedWords) -> Block:
        values = np.empty((len(names), len(self._order)), np.float32)
        unfit = np.zeros(len(self._window.table), np.bool_)
        words = dict(used)
        for at, name in enumerate(names):
            column, faults = self._codes(name, words[at]) if at in words else self._column(name)
            np.take(column, self._order, out=values[at], mode="clip")  # all are in range; "raise" would copy once more
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

    def why_unfit(self, names: tuple[str, ...], facts: Facts, row: int) -> str:
        """What is wrong with a row, by its place in the window."""
        words = dict(self._used_words(names, facts))
        for at, name in enumerate(names):
            if at in words:
                faults = self._codes(name, words[at])[1]
                if row in faults:
                    return f"column {name!r}: {faults[row]}"
                continue
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

    def _codes(self, name: str, words: Words) -> tuple[Floats, dict[int, str]]:
        """A column of words as the model's codes, and what is wrong with those that have none, by row."""
        made = self._coded.get((name, words))
        if made is None:
            made = self._coded[name, words] = codes_of_column(self._window.table.column(name), words)
        return made


def codes_of_column(column: Any, words: Words) -> tuple[Floats, dict[int, str]]:
    """As the endpoint codes a body's words (handler/payload/rows.py)."""
    import pyarrow as pa
    import pyarrow.types as types

    array = pa.chunked_array(column.chunks, column.type).unify_dictionaries().combine_chunks()
    encoded = array if types.is_dictionary(array.type) else array.dictionary_encode()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    found: list[Any] = encoded.dictionary.to_pylist()
    codes = np.append(codes_of(found, words or ()), np.nan).astype(np.float32)
    is_missing = np.array([word is None or word != word for word in found] + [True])
    places = encoded.indices.fill_null(len(found)).to_numpy(zero_copy_only=False)
    odd = np.flatnonzero((np.isnan(codes) & ~is_missing)[places])
    return codes[places], {int(row): _why_odd(found[places[row]], words) for row in odd}


def _why_odd(word: Any, words: Words) -> str:
    if words is None:
        return "words, where the model has a category and its file does not hold the words; give its codes"
    shown = shorten(word) if isinstance(word, str) else repr(word)
    return f"{shown} is none of the model's categories, {some(words)}"
