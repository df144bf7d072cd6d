"""Rows of features as a request carried them, and the check that they fit a model.

Rule: XGBoost takes one column of twenty without a word, so the count is always checked here, and so are names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from handler.errors import FeatureMismatch, PayloadInvalid

Floats = NDArray[np.float32]

# A refusal lists names, and a model may have thousands.
MAX_NAMES_SHOWN = 8

# Sparse rows are scored dense, so a few bytes may ask for thousands of cells; this is as far as that goes.
MAX_SPARSE_BYTES = 128 * 1024 * 1024

# Dense rows wider than this and than the model are refused before their cells become objects.
MAX_COLUMNS_READ = 10_000


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Rows ready to be scored, once they fit.

    values   float32, C-contiguous, (n_rows, n_features); NaN is a missing value; never infinite; may be read-only
    names    the column names, when the request carried any (JSON objects, Parquet, Arrow)
    """

    values: Floats
    names: tuple[str, ...] | None = None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Rows):
            return NotImplemented
        return self.names == other.names and np.array_equal(self.values, other.values, equal_nan=True)

    __hash__ = None  # type: ignore[assignment]  # an array inside: not hashable, whatever `frozen` promises


def fit_rows(rows: Rows, n_features: int, feature_names: tuple[str, ...] | None) -> Floats:
    """The values in the model's order of columns.

    rows            as decoded
    n_features      the model's
    feature_names   the model's; None or empty when it was trained without
    returns         float32, C-contiguous, (n_rows, n_features)
    raises          FeatureMismatch for a wrong count, a name the model does not know or one it misses

    Names decide when both sides have them, whatever the order. When only the request has them, its order is taken
    to be the model's: there is nothing to check it against.
    """
    if rows.names is not None and feature_names and rows.names != feature_names:
        return np.ascontiguousarray(rows.values[:, _order(rows.names, feature_names)])
    n_columns = rows.values.shape[1]
    if n_columns != n_features:
        raise FeatureMismatch(f"the model has {n_features} features, the rows have {n_columns}")
    return rows.values


def _order(names: tuple[str, ...], feature_names: tuple[str, ...]) -> list[int]:
    at = {name: index for index, name in enumerate(names)}
    missing = [name for name in feature_names if name not in at]
    known = set(feature_names)
    unknown = [name for name in names if name not in known]
    # Parquet and Arrow may carry a name twice; a JSON object cannot.
    twice = [name for index, name in enumerate(names) if at[name] != index]
    if missing or unknown or twice:
        groups = (("missing", missing), ("unknown", unknown), ("twice", twice))
        faults = [f"{word} {_some(group)}" for word, group in groups if group]
        raise FeatureMismatch(
            f"the model has {len(feature_names)} named features, the rows have {len(names)}: {'; '.join(faults)}"
        )
    return [at[name] for name in feature_names]


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:MAX_NAMES_SHOWN])
    return shown if len(names) <= MAX_NAMES_SHOWN else f"{shown} and {len(names) - MAX_NAMES_SHOWN} more"


def refuse_too_wide(n_columns: int, n_features: int) -> None:
    """Refuse a row so wide that merely reading it would cost memory, before it is read.

    raises   FeatureMismatch beyond both MAX_COLUMNS_READ and the model's own width (and a label)
    """
    if n_columns > MAX_COLUMNS_READ and n_columns > n_features + 1:
        raise FeatureMismatch(f"the model has {n_features} features, the rows have {n_columns}")


def sparse_rows(n_rows: int, n_features: int) -> Floats:
    """Rows of nothing but missing values, to be filled in; absent is missing, as in AWS's image and in a DMatrix.

    returns   float32, (n_rows, n_features)
    raises    PayloadInvalid when they would take more than MAX_SPARSE_BYTES
    """
    n_bytes = 4 * n_rows * n_features
    if n_bytes > MAX_SPARSE_BYTES:
        at_most = MAX_SPARSE_BYTES // (4 * n_features)
        raise PayloadInvalid(
            "", f"{n_rows} sparse rows of {n_features} features need {n_bytes} bytes; send at most {at_most} rows"
        )
    return np.full((n_rows, n_features), np.nan, dtype=np.float32)
