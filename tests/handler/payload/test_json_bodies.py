"""application/json and application/jsonlines in."""

from __future__ import annotations

import contextlib
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from handler.errors import FeatureMismatch, PayloadInvalid
from handler.payload import jsonbody
from handler.payload.decode import decode
from handler.payload.rows import Rows, fit_rows
from handler.predictor import Facts

JSON = "application/json"
LINES = "application/jsonlines"
NAN = math.nan


def rows(values: object, names: tuple[str, ...] | None = None) -> Rows:
    return Rows(np.array(values, dtype=np.float32), names)


cells = st.one_of(st.floats(width=32, allow_nan=False, allow_infinity=False), st.integers(-(2**53), 2**53), st.none())
tables = st.integers(1, 5).flatmap(
    lambda width: st.lists(st.lists(cells, min_size=width, max_size=width), min_size=1, max_size=6)
)


@given(tables)
def test_every_shape_says_the_same(table: list[list[float | None]]) -> None:
    expected = rows([[NAN if cell is None else cell for cell in row] for row in table])
    names = tuple(f"f{at}" for at in range(len(table[0])))
    objects = [dict(zip(names, row, strict=True)) for row in table]
    for document in (
        table,
        {"instances": table},
        {"instances": [{"features": row} for row in table]},
        {"instances": [{"data": {"features": {"values": row}}} for row in table]},
    ):
        assert decode(json.dumps(document).encode(), JSON, 3) == expected
    for document in (objects, {"instances": objects}):
        assert decode(json.dumps(document).encode(), JSON, 3) == Rows(expected.values, names)
    for line in (table, [{"features": row} for row in table]):
        assert decode("\n".join(map(json.dumps, line)).encode(), LINES, 3) == expected


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"[1, 2.5, null]", rows([[1, 2.5, NAN]])),
        (b'{"features": [1, 2]}', rows([[1, 2]])),
        (b'{"a": 1, "b": null}', rows([[1, NAN]], ("a", "b"))),
        (b'[{"a": 1, "b": 2}, {"b": 4, "a": 3}]', rows([[1, 2], [3, 4]], ("a", "b"))),
        (b"[true, false]", rows([[1, 0]])),
        (b"[[18446744073709551615], [1]]", rows([[18446744073709551615], [1]])),
        (b'\xef\xbb\xbf{"instances": [[1]]}', rows([[1]])),
        (b'{"features": 4.5}', rows([[4.5]], ("features",))),
        (
            b'{"instances": [{"data": {"features": {"keys": [2, 0], "shape": [3], "values": [7, 5]}}}]}',
            rows([[5, NAN, 7]]),
        ),
        (b'{"data": {"features": {"keys": [], "shape": [1, 3], "values": []}}}', rows([[NAN] * 3])),
    ],
)
def test_shapes_people_send(body: bytes, expected: Rows) -> None:
    assert decode(body, JSON, 3) == expected


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "the body is empty"),
        (b"  ", "empty, where a row was expected"),
        (b"[]", "the body holds no rows"),
        (b'{"instances": []}', "the body holds no rows"),
        (b'{"instances": 3}', "instances: a number, not an array of rows"),
        (b'{"inputs": [[1, 2]]}', "'inputs': an array; rows are read from 'instances': {\"instances\": [[...], ...]}"),
        (b'{"data": [[1, 2]]}', "'data': an array; rows are read from 'instances'"),
        (b'{"dataframe_split": {"columns": []}}', "'dataframe_split': an object; rows are read from 'instances'"),
        (b'{"a": 1, "b": [2]}', "'b': an array; rows are read from 'instances'"),
        (b'{"instances": [[1]], "parameters": {}}', "unknown keys beside 'instances': 'parameters'"),
        (b"3", "a number, where a row was expected"),
        (b"[[]]", "[0]: an empty row"),
        (b"{}", "an empty row"),
        (b"[1,\n 2", "line 2, column 3: not JSON: "),
        (b"[NaN]", "line 1, column 2: not JSON: unexpected character, expected a JSON value; a missing value is null"),
        (b'[[1, 2], ["3", 4]]', "[1][0]: the string '3', where a number was expected"),
        (b"[1, [2]]", "[1]: an array, where a number was expected"),
        (b"[[1, {}]]", "[0][1]: an object, where a number was expected"),
        (b"[[1, 2], [3]]", "[1]: 1 values, where the first row has 2"),
        (b"[[1, 2], 3]", "[1]: a number, not an array of numbers"),
        (b"[[1, 2], null]", "[1]: null, not an array of numbers"),
        (b"[[[1]]]", "[0][0]: an array, where a number was expected"),
        (b"[1e39]", "[0]: 1e+39 is infinite, or too large for a float32"),
        (b"[[1], [1e39]]", "[1][0]: 1e+39 is infinite, or too large for a float32"),
        (b"[1e400]", "line 1, column 2: not JSON: number is infinity"),
        (b'[{"a": 1}, {"b": 1}]', "[1]: not the names of the first row; 'a' is in one of them only"),
        (b'[{"a": 1}, {"a": 1, "b": 1}]', "[1]: not the names of the first row; 'b' is in one of them only"),
        (b'[{"a": 1}, [1]]', "[1]: an array, where the first row is an object"),
        (b'[{"a": 1}, {"a": "x"}]', "[1]['a']: the string 'x', where a number was expected"),
        (b'[{"features": [1]}, {"features": [1], "x": 2}]', "[1]: not an object with the one key 'features'"),
        (
            b'{"instances": [{"features": [1, "2"]}, {"features": [1, 2]}]}',
            "instances[1][1]: a number, where rows before have strings",
        ),
        (
            b'{"data": {"features": {"keys": [0, 0], "shape": [3], "values": [1, 2]}}}',
            "a key appears twice",
        ),
        (b'{"data": {"features": {"keys": [0], "shape": [3], "values": []}}}', "'keys' and 'values' are not arrays"),
        (b'{"data": {"features": {"keys": [0], "shape": ["3"], "values": [1]}}}', "'shape' is not one row's"),
        (b'{"data": {"features": [1]}}', "not a tensor of 'values'"),
        (b"\xff", "line 1, column 1: not JSON: "),
        (b"[" * 100_000, "line 1, column 1026: not JSON: depth limit exceeded"),
    ],
)
def test_a_refusal_names_the_place(body: bytes, message: str) -> None:
    with pytest.raises(PayloadInvalid) as refusal:
        decode(body, JSON, 3)
    assert str(refusal.value).startswith(message)


@pytest.mark.parametrize(
    "tensor", ['"keys": [3], "shape": [3]', '"keys": [-1]', '"keys": [0], "shape": [1152921504606846976]']
)
def test_a_sparse_row_of_another_width_is_a_mismatch(tensor: str) -> None:
    with pytest.raises(FeatureMismatch, match="the model has 3 features, the row has"):
        decode(f'{{"data": {{"features": {{{tensor}, "values": [1]}}}}}}'.encode(), JSON, 3)


def test_lines_are_rows_and_a_refusal_names_the_line() -> None:
    assert decode(b"\n[1, 2]\r\n[3, null]\n", "application/x-jsonlines", 3) == rows([[1, 2], [3, NAN]])
    assert decode(b'{"a": 1}\n{"a": 2}', LINES, 3) == rows([[1], [2]], ("a",))
    for body, message in (
        (b"\n[1, 2]\n[3, 4", "line 3, column 6: not JSON: "),
        (b"[1]\n\n[2]", "line 2: empty, where a row was expected"),
        (b"[1]\n[true, 2]", "line 2: 2 values, where the first row has 1"),
        (b'[1]\n["x"]', "line 2[0]: the string 'x', where a number was expected"),
        (b"[1]\n[2],[3]", "line 2, column 4: not JSON: "),
    ):
        with pytest.raises(PayloadInvalid) as refusal:
            decode(body, LINES, 3)
        assert str(refusal.value).startswith(message)


@pytest.mark.timeout(10)
@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        (JSON, b"[" + b"[]," * 1_000_000 + b"[]]"),
        (JSON, b"[" + b"{}," * 1_000_000 + b"{}]"),
        (LINES, b"[1]\n" * 1_000_000),
    ],
)
def test_more_lists_than_memory_is_worth_are_refused_unread(content_type: str, body: bytes) -> None:
    with pytest.raises(PayloadInvalid, match=f"more than {jsonbody.MAX_LISTS}"):
        decode(body, content_type, 3)


def test_sparse_rows_of_a_wide_model_do_not_fill_the_memory() -> None:
    row = '{"data": {"features": {"keys": [0], "values": [1]}}}'
    with pytest.raises(PayloadInvalid, match="100 sparse rows of 1000000 features need 400000000 bytes"):
        decode("\n".join([row] * 100).encode(), LINES, 1_000_000)


@given(st.binary(max_size=100), st.sampled_from([JSON, LINES]))
def test_any_bytes_are_rows_or_a_refusal(body: bytes, content_type: str) -> None:
    with contextlib.suppress(PayloadInvalid, FeatureMismatch):
        assert decode(body, content_type, 3).values.size


documents = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["instances", "features", "data", "values", "keys", "shape", "a"]), inner)
    ),
    max_leaves=12,
)


@given(documents, st.sampled_from([JSON, LINES]))
def test_any_document_is_rows_or_a_refusal(document: object, content_type: str) -> None:
    try:
        found = decode(json.dumps(document).encode(), content_type, 3)
    except (PayloadInvalid, FeatureMismatch):
        return
    assert found.values.size
    assert not np.isinf(found.values).any()


TWICE = {
    "instances": b'{"instances": [[1, 2]], "instances": [[3, 4]]}',
    "instances of words": b'{"instances": [["1"]], "instances": [["2"]]}',
    "features": b'{"features": [1], "features": [2]}',
    "features of a row": b'[{"features": [1]}, {"features": [2], "features": [2]}]',
    "a feature": b'{"a": 1, "b": 2, "a": 1}',
    "a feature beside words": b'{"a": 1, "b": "x", "a": 1}',
    "a feature, once a word": b'{"a": "x", "b": 2, "a": 1}',
    "a feature with a quote in its name": rb'{"a\"": 1, "a\"": 2}',
    "data": b'{"data": {"features": {"values": [1]}}, "data": {"features": {"values": [1]}}}',
    "features of data": b'{"data": {"features": {"values": [1]}, "features": {"values": [1]}}}',
    "values": b'{"data": {"features": {"values": [1], "values": [1]}}}',
    "keys": b'{"data": {"features": {"values": [1], "keys": [1], "keys": [0], "shape": [3]}}}',
}


@pytest.mark.parametrize("body", TWICE.values(), ids=TWICE)
def test_an_object_that_has_a_name_twice_is_refused(body: bytes) -> None:
    with pytest.raises(PayloadInvalid, match="an object has the same name twice"):
        decode(body, JSON, 3)
    with pytest.raises(PayloadInvalid):  # lines know no envelope
        decode(body, LINES, 3)


@pytest.mark.parametrize("size", [10, 10_000])
def test_two_keys_of_rows_are_refused_whatever_the_size(size: int) -> None:
    rows = json.dumps([[1.5]] * size)
    for body in (f'{{"instances": {rows}, "instances": [[2]]}}', f'{{"instances": [[2]], "instances": {rows}}}'):
        with pytest.raises(PayloadInvalid, match=r"twice|more behind the array of rows"):
            decode(body.encode(), JSON, 1)


@pytest.mark.parametrize("size", [1, 9_000])
def test_a_feature_that_a_row_has_twice_is_refused_whatever_the_size(size: int) -> None:
    row = '{"a": 1, "b": 2}'
    for body, kind in ((f'[{", ".join([row] * size)}, {{"b": 1, "a": 1, "b": 2}}]', JSON),
                       ("\n".join([row] * size + ['{"b": 1, "a": 1, "b": 2}']), LINES)):  # fmt: skip
        with pytest.raises(PayloadInvalid, match="an object has the same name twice"):
            decode(body.encode(), kind, 2)


@given(
    st.lists(
        st.dictionaries(st.sampled_from(["a", '"', '\\"', "\\\\"]), st.text('"\\ab', max_size=4), min_size=4),
        min_size=1,
    )
)
def test_quotes_and_backslashes_in_names_and_words_make_nothing_double(items: list[dict[str, str]]) -> None:
    assert len(decode(json.dumps(items).encode(), JSON, 4).values) == len(items)


@pytest.mark.parametrize(
    "body",
    [
        b'[{"city": "Oslo", "n": 1}, {"n": null, "city": null}, {"city": "Lima", "n": 3}, {"city": "Oslo", "n": 4}]',
        b'{"instances": [{"city": "Oslo", "n": 1}, {"n": null, "city": null}, {"city": "Lima", "n": 3},'
        b' {"city": "Oslo", "n": 4}]}',
    ],
)
def test_a_column_of_strings_holds_words(body: bytes) -> None:
    found = decode(body, "application/json", 2)
    assert found.words == ((0, ("Oslo", "Lima")),)
    assert np.array_equal(found.values, np.array([[0, 1], [NAN, NAN], [1, 3], [0, 4]], np.float32), equal_nan=True)
    coded = Facts("o", "gbtree", 2, 1, 0, ("n", "city"), ("q", "c"), categories=((1, ("Lima", "Oslo")),))
    expected = np.array([[1, 1], [NAN, NAN], [3, 0], [4, 1]], np.float32)
    assert np.array_equal(fit_rows(found, coded), expected, equal_nan=True)


@pytest.mark.parametrize("body", [b'["1", 2]', b'[[1, 2], [null, "x"]]', b'{"instances": [{"features": [1, "2"]}]}'])
def test_a_string_is_no_number_to_a_model_that_has_one_there(body: bytes) -> None:
    with pytest.raises(PayloadInvalid, match=r"the string '.', where (the model has a number|a number was expected)"):
        fit_rows(decode(body, "application/json", 2), Facts("o", "gbtree", 2, 1, 0))


def test_words_beyond_number_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonbody, "MAX_WORDS", 2)
    assert decode(b'[["a"], ["b"], ["a"]]', "application/json", 1).words == ((0, ("a", "b")),)
    with pytest.raises(PayloadInvalid, match="more than 2 different words in one column"):
        decode(b'[["a"], ["b"], ["c"]]', "application/json", 1)
