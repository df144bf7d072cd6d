"""Rows of features as a request carried them, and the check that they fit a model.

Rule: XGBoost takes one column of twenty without a word, so the count is always checked here, and so are names and categories.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NoReturn, Protocol

import numpy as np
from numpy.typing import NDArray

from handler.errors import FeatureMismatch, PayloadInvalid
from handler.payload.numbers import TOO_LARGE, shorten

Floats = NDArray[np.float32]

# A refusal lists names, of which a model may have thousands, and a caller's may be megabytes long.
MAX_NAMES_SHOWN = 8
MAX_NAME_CHARACTERS = 100

# Sparse rows are scored dense, so a few bytes may ask for thousands of cells; this is as far as that goes.
MAX_SPARSE_BYTES = 128 * 1024 * 1024

# Dense rows wider than this and than the model are refused before their cells become objects.
MAX_COLUMNS_READ = 10_000


# Different words in one column: they become Python objects, 60 bytes each. A model's own are far fewer.
MAX_WORDS = 100_000

# What a category may be called: as XGBoost keeps them in a model's file.
Word = str | int | float


class Columns(Protocol):
    """What a model knows of its columns.

    feature_names   empty when it was trained without
    feature_types   one of q, int, float, i, c for each feature, or empty
    categories      where its file holds them: (feature, its categories in the order of their codes)
    """

    @property
    def n_features(self) -> int: ...
    @property
    def feature_names(self) -> tuple[str, ...]: ...
    @property
    def feature_types(self) -> tuple[str, ...]: ...
    @property
    def categories(self) -> tuple[tuple[int, tuple[Word, ...]], ...]: ...


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Rows ready to be scored, once they fit.

    values   float32, C-contiguous, (n_rows, n_features); NaN is a missing value; never infinite; may be read-only
    names    the column names, when the request carried any (JSON objects, Parquet, Arrow)
    words    of columns that came as words: (column, what the numbers 0, 1, 2, ... in it stand for)
    """

    values: Floats
    names: tuple[str, ...] | None = None
    words: tuple[tuple[int, tuple[Word, ...]], ...] = ()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Rows):
            return NotImplemented
        is_same = self.names == other.names and self.words == other.words
        return is_same and np.array_equal(self.values, other.values, equal_nan=True)

    __hash__ = None  # type: ignore[assignment]  # an array inside: not hashable, whatever `frozen` promises


def fit_rows(rows: Rows, model: Columns, *, is_positional: bool = False, may_be_short: bool = False) -> Floats:
    """The values in the model's order of columns, words as the model's own codes for them.

    rows            as decoded
    is_positional   take columns in the order they came when the model has no names to compare theirs with
    may_be_short    rows without names may lack the last columns, which are then missing values
    returns         float32, C-contiguous, (n_rows, n_features)
    raises          FeatureMismatch for a wrong count, a name the model does not know or one it misses; PayloadInvalid for a
                    word that is none of its categories

    A model without names calls its features f0, f1, ... as XGBoost does, and rows may too. Any other name says nothing
    about the place of its column, and a JSON object has no order: such rows are refused unless positions are what counts.
    """
    order = None
    if rows.names is not None and rows.names != model.feature_names:
        order = _order_of(rows.names, model, is_positional)
    values = rows.values
    if order is not None:
        values = np.ascontiguousarray(values[:, order])
    elif values.shape[1] < model.n_features and may_be_short and rows.names is None:
        values = _widened(values, model.n_features)
    elif values.shape[1] != model.n_features:
        raise FeatureMismatch(f"the model has {model.n_features} features, the rows have {values.shape[1]}")
    if rows.words:
        values = _coded(values, rows, model, order)
    elif not model.categories:
        return values
    _check_codes(values, model)
    return values


def _widened(values: Floats, n_features: int) -> Floats:
    wide = sparse_rows(len(values), n_features)
    wide[:, : values.shape[1]] = values
    return wide


def _order_of(names: tuple[str, ...], model: Columns, is_positional: bool) -> list[int] | None:
    """Which column is each feature; None when they come in the model's order."""
    if model.feature_names:
        return _order(names, model.feature_names, "named features")
    places = _place_names(model.n_features)
    if all(name[:1] == "f" and name[1:].isdecimal() for name in names):
        return None if names == places else _order(names, places, f"features without names, f0 to {places[-1]}")
    if is_positional:
        return None
    raise FeatureMismatch(
        f"the model has no feature names to compare {some(names)} with; send arrays, call the columns f0 to {places[-1]}, "
        f"or serve with --columns positional, which takes them in the order they come"
    )


@lru_cache(maxsize=64)
def _place_names(n_features: int) -> tuple[str, ...]:
    return tuple(f"f{at}" for at in range(n_features))


def _order(names: tuple[str, ...], feature_names: tuple[str, ...], what: str) -> list[int]:
    at = {name: index for index, name in enumerate(names)}
    missing = [name for name in feature_names if name not in at]
    known = set(feature_names)
    unknown = [name for name in names if name not in known]
    # Parquet and Arrow may carry a name twice; of JSON such an object was refused when it was read.
    twice = [name for index, name in enumerate(names) if at[name] != index]
    if missing or unknown or twice:
        groups = (("missing", missing), ("unknown", unknown), ("twice", twice))
        faults = [f"{word} {some(group)}" for word, group in groups if group]
        raise FeatureMismatch(
            f"the model has {len(feature_names)} {what}, the rows have {len(names)}: {'; '.join(faults)}"
        )
    return [at[name] for name in feature_names]


def some(names: Sequence[Word]) -> str:
    cut = [name if not isinstance(name, str) else name[:MAX_NAME_CHARACTERS] for name in names[:MAX_NAMES_SHOWN]]
    shown = ", ".join(map(repr, cut))
    return shown if len(names) <= MAX_NAMES_SHOWN else f"{shown} and {len(names) - MAX_NAMES_SHOWN} more"


def _coded(values: Floats, rows: Rows, model: Columns, order: list[int] | None) -> Floats:
    """The values with the model's own numbers where the rows have words."""
    categories = dict(model.categories)
    coded = values.copy()
    for column, words in rows.words:
        feature = column if order is None else order.index(column)
        where = f"column {rows.names[column]!r}" if rows.names else f"column {column + 1}"
        if feature in categories:
            numbers = codes_of(words, categories[feature])
        elif model.feature_types and model.feature_types[feature] == "c":
            raise PayloadInvalid(
                where,
                "words, where the model has a category and its file does not hold the words; send the codes that it was "
                "trained with, as whole numbers",
            )
        else:  # numbers that happened to travel as a dictionary
            numbers = np.array([math.nan if isinstance(word, str) else word for word in words], np.float64)
        cells = values[:, feature]
        is_there = ~np.isnan(cells)
        used = cells[is_there].astype(np.int64)
        with np.errstate(over="ignore"):  # a number beyond float32 becomes infinite, and is found by that
            found = numbers.astype(np.float32)[used]
        odd = ~np.isfinite(found)
        if odd.any():
            row = int(np.flatnonzero(is_there)[odd.argmax()]) + 1
            _refuse_word(words[int(used[odd.argmax()])], f"row {row}, {where}", categories.get(feature))
        coded[is_there, feature] = found
    return coded


def _check_codes(values: Floats, model: Columns) -> None:
    """Numbers in a column of categories are their codes. One that is none, such as a category that is a number itself and
    came in a format without words, would be scored all the same."""
    for feature, categories in model.categories:
        cells = values[:, feature]
        odd = ~(np.isnan(cells) | ((cells >= 0) & (cells < len(categories)) & (cells == np.floor(cells))))
        if odd.any():
            name = repr(model.feature_names[feature]) if model.feature_names else str(feature + 1)
            raise PayloadInvalid(
                f"row {int(odd.argmax()) + 1}, column {name}",
                f"{float(cells[odd.argmax()]):g}, where the model has {len(categories)} categories: their codes are 0 to "
                f"{len(categories) - 1}; words are read from Parquet and Arrow",
            )


def codes_of(words: Sequence[Word], categories: Sequence[Word]) -> NDArray[np.float64]:
    """The model's code for each word; NaN for one it does not have."""
    codes = {(isinstance(word, str), word): code for code, word in enumerate(categories)}
    return np.array([codes.get((isinstance(word, str), word), math.nan) for word in words], np.float64)


def _refuse_word(word: Word, where: str, categories: tuple[Word, ...] | None) -> NoReturn:
    shown = shorten(word) if isinstance(word, str) else repr(word)
    if categories is not None:
        raise PayloadInvalid(where, f"{shown} is none of the model's categories, {some(categories)}")
    if isinstance(word, str):
        raise PayloadInvalid(where, f"the string {shown}, where the model has a number")
    raise PayloadInvalid(where, f"{shown} is {TOO_LARGE}")


def refuse_too_wide(n_columns: int, n_features: int) -> None:
    """Refuse a row so wide that merely reading it would cost memory, before it is read.

    raises   FeatureMismatch beyond both MAX_COLUMNS_READ and the model's own width (and a label)
    """
    if n_columns > MAX_COLUMNS_READ and n_columns > n_features + 1:
        raise FeatureMismatch(f"the model has {n_features} features, the rows have {n_columns}")


def sparse_rows(n_rows: int, n_features: int, n_before: int = 0) -> Floats:
    """Rows of nothing but missing values, to be filled in; absent is missing, as in AWS's image and in a DMatrix.

    n_before  rows that there are of the body already
    returns   float32, (n_rows, n_features)
    raises    PayloadInvalid when all would take more than MAX_SPARSE_BYTES
    """
    n_all = n_before + n_rows
    n_bytes = 4 * n_all * n_features
    if n_bytes > MAX_SPARSE_BYTES:
        at_most = MAX_SPARSE_BYTES // (4 * n_features)
        raise PayloadInvalid(
            "", f"{n_all} sparse rows of {n_features} features need {n_bytes} bytes; send at most {at_most} rows"
        )
    return np.full((n_rows, n_features), np.nan, dtype=np.float32)
