"""Rows that fit a model, and rows that do not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from handler.errors import FeatureMismatch
from handler.payload import Rows, fit_rows


def rows(*names: str, n_rows: int = 2) -> Rows:
    return Rows(np.arange(n_rows * len(names), dtype=np.float32).reshape(n_rows, -1), names)


def test_rows_without_names_fit_by_count() -> None:
    nameless = Rows(np.ones((2, 3), np.float32))
    assert fit_rows(nameless, 3, None) is nameless.values
    assert fit_rows(nameless, 3, ("a", "b", "c")) is nameless.values
    for n_features in (1, 2, 4):
        with pytest.raises(FeatureMismatch, match=f"the model has {n_features} features, the rows have 3"):
            fit_rows(nameless, n_features, None)


@given(st.permutations(["a", "b", "c", "d"]))
def test_names_put_columns_in_the_models_order(names: list[str]) -> None:
    fitted = fit_rows(rows(*names), 4, ("a", "b", "c", "d"))
    assert fitted.flags.c_contiguous
    assert fitted[0].tolist() == [names.index(name) for name in ("a", "b", "c", "d")]


@pytest.mark.parametrize("feature_names", [None, ()])
def test_names_mean_nothing_to_a_model_without_any(feature_names: tuple[str, ...] | None) -> None:
    named = rows("b", "a")
    assert fit_rows(named, 2, feature_names) is named.values
    with pytest.raises(FeatureMismatch, match="the model has 3 features, the rows have 2"):
        fit_rows(named, 3, feature_names)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("a", "c"), "the model has 2 named features, the rows have 2: missing 'b'; unknown 'c'"),
        (("a",), "the model has 2 named features, the rows have 1: missing 'b'"),
        (("a", "b", "c"), "the model has 2 named features, the rows have 3: unknown 'c'"),
        (("a", "b", "a"), "the model has 2 named features, the rows have 3: twice 'a'"),
    ],
)
def test_other_names_are_named(names: tuple[str, ...], message: str) -> None:
    with pytest.raises(FeatureMismatch) as refusal:
        fit_rows(rows(*names), 2, ("a", "b"))
    assert str(refusal.value) == message


def test_a_refusal_does_not_list_a_thousand_names() -> None:
    names = tuple(f"f{at}" for at in range(1000))
    with pytest.raises(FeatureMismatch) as refusal:
        fit_rows(rows("x"), 1000, names)
    assert str(refusal.value).endswith(
        "missing 'f0', 'f1', 'f2', 'f3', 'f4', 'f5', 'f6', 'f7' and 992 more; unknown 'x'"
    )
