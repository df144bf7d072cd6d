"""Rows that fit a model, and rows that do not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from handler.errors import FeatureMismatch, PayloadInvalid
from handler.payload import Rows, fit_rows
from handler.payload.decode import decode
from handler.predictor import Facts


def rows(*names: str, n_rows: int = 2) -> Rows:
    return Rows(np.arange(n_rows * len(names), dtype=np.float32).reshape(n_rows, -1), names)


def model(n_features: int, names: tuple[str, ...] = (), **more: object) -> Facts:
    return Facts("reg:squarederror", "gbtree", n_features, 1, 0, feature_names=names, **more)  # type: ignore[arg-type]


def test_rows_without_names_fit_by_count() -> None:
    nameless = Rows(np.ones((2, 3), np.float32))
    assert fit_rows(nameless, model(3)) is nameless.values
    assert fit_rows(nameless, model(3, ("a", "b", "c"))) is nameless.values
    for n_features in (1, 2, 4):
        with pytest.raises(FeatureMismatch, match=f"the model has {n_features} features, the rows have 3"):
            fit_rows(nameless, model(n_features))


@given(st.permutations(["a", "b", "c", "d"]), st.booleans())
def test_names_put_columns_in_the_models_order(names: list[str], is_positional: bool) -> None:
    fitted = fit_rows(rows(*names), model(4, ("a", "b", "c", "d")), is_positional=is_positional)
    assert fitted.flags.c_contiguous
    assert fitted[0].tolist() == [names.index(name) for name in ("a", "b", "c", "d")]


@given(st.permutations([f"f{at}" for at in range(12)]), st.booleans())
def test_a_model_without_names_knows_f0_and_f1(names: list[str], is_positional: bool) -> None:
    fitted = fit_rows(rows(*names), model(12), is_positional=is_positional)
    assert fitted[0].tolist() == [names.index(f"f{at}") for at in range(12)]


def test_other_names_say_nothing_to_a_model_without_any() -> None:
    named = rows("b", "a")
    with pytest.raises(FeatureMismatch) as refusal:
        fit_rows(named, model(2))
    assert str(refusal.value) == (
        "the model has no feature names to compare 'b', 'a' with; send arrays, call the columns f0 to f1, or serve with"
        " --columns positional, which takes them in the order they come"
    )
    assert fit_rows(named, model(2), is_positional=True) is named.values
    with pytest.raises(FeatureMismatch, match="the model has 3 features, the rows have 2"):
        fit_rows(named, model(3), is_positional=True)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("f0", "f2"), "the model has 2 features without names, f0 to f1, the rows have 2: missing 'f1'; unknown 'f2'"),
        (("f1",), "the model has 2 features without names, f0 to f1, the rows have 1: missing 'f0'"),
        (
            ("f0", "f01"),
            "the model has 2 features without names, f0 to f1, the rows have 2: missing 'f1'; unknown 'f01'",
        ),
        (("f0", "b"), "the model has no feature names to compare 'f0', 'b' with"),
        (("f0", "f"), "the model has no feature names to compare 'f0', 'f' with"),
    ],
)
def test_places_that_a_model_without_names_does_not_have(names: tuple[str, ...], message: str) -> None:
    with pytest.raises(FeatureMismatch) as refusal:
        fit_rows(rows(*names), model(2))
    assert str(refusal.value).startswith(message)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("a", "c"), "the model has 2 named features, the rows have 2: missing 'b'; unknown 'c'"),
        (("a",), "the model has 2 named features, the rows have 1: missing 'b'"),
        (("a", "b", "c"), "the model has 2 named features, the rows have 3: unknown 'c'"),
        (("a", "b", "a"), "the model has 2 named features, the rows have 3: twice 'a'"),
        (("f0", "f1"), "the model has 2 named features, the rows have 2: missing 'a', 'b'; unknown 'f0', 'f1'"),
    ],
)
def test_other_names_are_named(names: tuple[str, ...], message: str) -> None:
    with pytest.raises(FeatureMismatch) as refusal:
        fit_rows(rows(*names), model(2, ("a", "b")))
    assert str(refusal.value) == message


def test_a_refusal_does_not_list_a_thousand_names() -> None:
    names = tuple(f"f{at}" for at in range(1000))
    with pytest.raises(FeatureMismatch) as refusal:
        fit_rows(rows("x" * 1000), model(1000, names))
    assert str(refusal.value).endswith(
        f"missing 'f0', 'f1', 'f2', 'f3', 'f4', 'f5', 'f6', 'f7' and 992 more; unknown '{'x' * 100}'"
    )


@pytest.mark.parametrize("body", [b'{"f0": 1, "f1": 2, "f2": 3}', b'{"f2": 3, "f0": 1, "f1": 2}'])
@pytest.mark.parametrize("content_type", ["application/json", "application/jsonlines"])
def test_one_object_is_one_row_in_whatever_order_its_keys_stand(body: bytes, content_type: str) -> None:
    """public report f03: the same object with its keys in another order got another answer"""
    assert fit_rows(decode(body, content_type, 3), model(3)).tolist() == [[1, 2, 3]]
    renamed = body.replace(b"f0", b"a").replace(b"f1", b"b").replace(b"f2", b"c")
    assert fit_rows(decode(renamed, content_type, 3), model(3, ("a", "b", "c"))).tolist() == [[1, 2, 3]]
    with pytest.raises(FeatureMismatch, match="no feature names"):
        fit_rows(decode(renamed, content_type, 3), model(3))


CITIES = (0, ("Bergen", "Lima", "Oslo"))
SIZES = (1, (10, 11, 12, 13))


def words(names: tuple[str, ...] | None = ("city", "n"), **columns: tuple[str | int | float, ...]) -> Rows:
    values = np.array([[0, 2], [1, 1], [2, np.nan], [np.nan, 0]], np.float32)
    told = {"city": 0, "n": 1}
    return Rows(values, names, tuple((told[name], found) for name, found in columns.items()))


def test_words_become_the_models_codes_and_not_the_requests() -> None:
    coded = model(2, ("city", "n"), feature_types=("c", "c"), categories=(CITIES, SIZES))
    found = fit_rows(words(city=("Oslo", "Bergen", "Lima"), n=(13, 11, 10)), coded)
    assert np.array_equal(found, np.array([[2, 0], [0, 1], [1, np.nan], [np.nan, 3]], np.float32), equal_nan=True)


def test_words_follow_their_column_to_its_place() -> None:
    coded = model(2, ("n", "city"), feature_types=("c", "c"), categories=((0, SIZES[1]), (1, CITIES[1])))
    found = fit_rows(words(city=("Oslo", "Bergen", "Lima"), n=(13, 11, 10)), coded)
    assert np.array_equal(found, np.array([[0, 2], [1, 0], [np.nan, 1], [3, np.nan]], np.float32), equal_nan=True)


def test_numbers_without_words_are_codes() -> None:
    coded = model(2, ("city", "n"), feature_types=("c", "c"), categories=(CITIES, SIZES))
    sent = words()
    assert fit_rows(sent, coded) is sent.values


@pytest.mark.parametrize("code", [4, -1, 0.5, 13])
def test_a_number_that_is_no_code_is_refused(code: float) -> None:
    coded = model(2, ("city", "n"), feature_types=("c", "c"), categories=(CITIES, SIZES))
    with pytest.raises(PayloadInvalid, match=f"row 2, column 'n': {code}, where the model has 4 categories"):
        fit_rows(Rows(np.array([[2, 3], [0, code]], np.float32)), coded)


def test_a_dictionary_of_numbers_in_a_column_that_is_no_category_is_its_numbers() -> None:
    found = fit_rows(words(city=(0.5, 1.5, 2.5), n=(7, 8, 9)), model(2, ("city", "n")))
    assert np.array_equal(found, np.array([[0.5, 9], [1.5, 8], [2.5, np.nan], [np.nan, 7]], np.float32), equal_nan=True)


def test_a_word_that_no_row_uses_may_be_unknown() -> None:
    coded = model(2, ("city", "n"), feature_types=("c", "q"), categories=(CITIES,))
    sent = words(city=("Oslo", "Bergen", "Lima", "Paris"))
    assert np.array_equal(fit_rows(sent, coded)[:, 0], np.array([2, 0, 1, np.nan], np.float32), equal_nan=True)


@pytest.mark.parametrize(
    ("types", "categories", "sent", "message"),
    [
        (("c", "q"), (CITIES,), ("Oslo", "Paris", "Lima"), "'Paris' is none of the model's categories, 'Bergen', 'Lima'"),
        (("c", "q"), (CITIES,), (0, 1, 2), "column 'city': 0 is none of the model's categories"),
        (("c", "q"), ((0, (0, 1, 2)),), ("0", "1", "2"), "column 'city': '0' is none of the model's categories, 0, 1, 2"),
        (("c", "q"), (), ("Oslo", "Lima", "x"), "column 'city': words, where the model has a category and its file does not"),
        (("c", "q"), (), (10, 11, 12), "column 'city': words, where the model has a category and its file does not"),
        ((), (), ("Oslo", "Lima", "x"), "column 'city': the string 'Oslo', where the model has a number"),
        ((), (), (1e39, 1.0, 2.0), r"column 'city': 1e\+39 is infinite, or too large"),
    ],
)  # fmt: skip
def test_words_the_model_does_not_have_are_refused(
    types: tuple[str, ...], categories: tuple[object, ...], sent: tuple[str | int | float, ...], message: str
) -> None:
    with pytest.raises(PayloadInvalid, match=message):
        fit_rows(words(city=sent), model(2, ("city", "n"), feature_types=types, categories=categories))
