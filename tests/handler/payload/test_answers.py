"""Bodies out: what is written reads back as the same float32."""

from __future__ import annotations

import csv
import io
import json
import math
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from handler import compiled
from handler.errors import AcceptUnsupported
from handler.payload import ACCEPTED, Conventions, Predictions, encode, media
from handler.payload.conventions import AWS, OURS
from handler.payload.decode import decode

CSV, JSON, LINES, NPY, RECORDIO = ACCEPTED

finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
scores = arrays.arrays(np.float32, st.tuples(st.integers(1, 6), st.integers(1, 4)), elements=finite)
any_scores = arrays.arrays(np.float32, st.tuples(st.integers(1, 6), st.integers(1, 4)))


def same(actual: object, expected: np.ndarray) -> bool:
    return np.array_equal(np.array(actual, np.float32), expected, equal_nan=True)


@given(any_scores)
def test_csv_is_one_row_per_line(table: np.ndarray) -> None:
    text = encode(Predictions(table), CSV).decode()
    assert not text.endswith("\n")
    assert same([[float(cell) for cell in row] for row in csv.reader(io.StringIO(text))], table)


@given(scores)
def test_what_we_write_we_read(table: np.ndarray) -> None:
    for media_type in (CSV, NPY):
        found = decode(encode(Predictions(table), media_type), media_type, 3).values
        assert same(found.reshape(table.shape), table)


@given(scores)
def test_a_float_takes_no_more_digits_than_its_own(table: np.ndarray) -> None:
    for cell in encode(Predictions(table), CSV).decode().replace("\n", ",").split(","):
        digits = cell.lstrip("-").split("e")[0].replace(".", "").strip("0")
        assert len(digits) <= 9


@given(any_scores)
def test_json_holds_a_score_per_row_and_null_for_what_is_no_number(table: np.ndarray) -> None:
    document = json.loads(encode(Predictions(table), JSON))
    lines = [json.loads(line) for line in encode(Predictions(table), LINES).splitlines()]
    assert document == {"predictions": lines}
    expected = np.where(np.isfinite(table), table, np.nan)
    found = [line["score"] if isinstance(line["score"], list) else [line["score"]] for line in lines]
    assert all(isinstance(line["score"], list) == (table.shape[1] > 1) for line in lines)
    assert same([[math.nan if cell is None else cell for cell in row] for row in found], expected)


ONE_LINE = Conventions(one_line=True)


def test_the_answers_people_look_at() -> None:
    one = Predictions(np.array([[0.1]], np.float32))
    many = Predictions(np.array([[0.1, 0.9], [1.0, 0.0]], np.float32))
    assert encode(one, CSV) == b"0.1"
    assert encode(one, JSON) == b'{"predictions":[{"score":0.1}]}'
    assert encode(one, LINES) == b'{"score":0.1}\n'
    assert encode(many, CSV) == b"0.1,0.9\n1.0,0.0"
    assert encode(many, JSON) == b'{"predictions":[{"score":[0.1,0.9]},{"score":[1.0,0.0]}]}'
    assert encode(many, LINES) == b'{"score":[0.1,0.9]}\n{"score":[1.0,0.0]}\n'
    assert encode(Predictions(np.array([[0.5], [1.5]], np.float32)), CSV, ONE_LINE) == b"0.5,1.5"
    assert encode(many, CSV, ONE_LINE) == b"[0.1, 0.9],[1.0, 0.0]"
    assert encode(many, JSON, ONE_LINE) == encode(many, JSON)
    assert encode(Predictions(np.array([[np.nan], [-np.inf]], np.float32)), CSV) == b"nan\n-inf"


def test_a_view_of_an_array_is_written_like_a_copy() -> None:
    table = np.arange(6, dtype=np.float32).reshape(2, 3)
    for view in (table[:, ::2], table.T, np.asfortranarray(table)):
        for media_type in ACCEPTED:
            copied = encode(Predictions(np.ascontiguousarray(view)), media_type)
            assert encode(Predictions(view), media_type) == copied


def test_named_outputs_are_written_by_name() -> None:
    named = Predictions(
        {
            "predicted_label": np.array([1, 0]),
            "probabilities": np.array([[0.4, 0.6], [0.9, np.nan]], np.float32),
            "matrix": np.arange(8, dtype=np.float32).reshape(2, 2, 2)[:, ::-1],
        }
    )
    assert encode(named, CSV) == (
        b'1,"[0.4, 0.6]","[[2.0, 3.0], [0.0, 1.0]]"\n0,"[0.9, nan]","[[6.0, 7.0], [4.0, 5.0]]"'
    )
    first = {"predicted_label": 1, "probabilities": [0.4, 0.6], "matrix": [[2.0, 3.0], [0.0, 1.0]]}
    second = {"predicted_label": 0, "probabilities": [0.9, None], "matrix": [[6.0, 7.0], [4.0, 5.0]]}
    assert json.loads(encode(named, JSON)) == {"predictions": [first, second]}
    assert [json.loads(line) for line in encode(named, LINES).splitlines()] == [first, second]
    table = np.load(io.BytesIO(encode(named, NPY)), allow_pickle=False)
    assert table["predicted_label"].tolist() == [1, 0]
    assert same(table["probabilities"], named.outputs["probabilities"])
    assert table["matrix"].shape == (2, 2, 2)


@given(scores)
def test_recordio_answers_are_frames_with_labels(table: np.ndarray) -> None:
    """Read with the reader for requests: a label is a feature but for the number of its field."""
    body = encode(Predictions({"values": table}), RECORDIO)
    magic, length = struct.unpack_from("<II", body)
    assert magic == 0xCED7230A
    assert body[8] == 2 << 3 | 2
    frame = 8 + length + -length % 4
    assert len(body) == frame * len(table)
    as_features = bytearray(body)
    as_features[8::frame] = bytes([1 << 3 | 2]) * len(table)
    assert same(decode(bytes(as_features), RECORDIO, 3).values, table)


def test_recordio_names_a_plain_score_score() -> None:
    assert b"\x05score" in encode(Predictions(np.ones((1, 1), np.float32)), RECORDIO)


def test_a_long_output_has_a_long_length() -> None:
    table = np.arange(1000, dtype=np.float32).reshape(1, 1000)
    body = bytearray(encode(Predictions({"values": table}), RECORDIO))
    body[8] = 1 << 3 | 2
    assert same(decode(bytes(body), RECORDIO, 1000).values, table)


def test_what_cannot_be_written_is_refused() -> None:
    for outputs in (np.ones((1, 1), np.float32), {"a": np.ones(1)}):
        with pytest.raises(AcceptUnsupported, match="application/xml"):
            encode(Predictions(outputs), "application/xml")


@pytest.mark.parametrize("media_type", [media.CSV, media.JSON, media.JSONLINES])
@pytest.mark.parametrize("shape", [(25, 1), (25, 3), (20, 1), (7, 2)])
@pytest.mark.parametrize("conventions", [OURS, Conventions(one_line=True), AWS])
def test_an_answer_written_in_pieces_is_the_one_written_at_once(
    media_type: str, shape: tuple[int, int], conventions: Conventions, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    answers = [
        Predictions(scores),
        Predictions({"score": scores[:, 0], "contribs": scores, "label": np.arange(len(scores))}),
    ]
    whole = [encode(one, media_type, conventions) for one in answers]
    monkeypatch.setitem(encode.__globals__, "PIECE_NUMBERS", 5)
    assert [encode(one, media_type, conventions) for one in answers] == whole


def test_a_column_of_empty_texts_has_a_line_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(encode.__globals__, "PIECE_NUMBERS", 1)
    assert encode(Predictions({"predicted_label": np.array(["", "", "a", ""])}), "text/csv") == b"\n\na\n"


TEXTS = {"predicted_label": np.array(["no", 'ja, "sí"', "ü"]), "probability": np.array([0.5, 0.25, 0.75], np.float32)}


def test_labels_that_are_texts_are_written_as_texts() -> None:
    named = Predictions(TEXTS)
    assert encode(named, "text/csv").decode() == 'no,0.5\n"ja, ""sí""",0.25\nü,0.75'
    records = [
        {"predicted_label": label, "probability": chance}
        for label, chance in zip(TEXTS["predicted_label"].tolist(), [0.5, 0.25, 0.75], strict=True)
    ]
    assert json.loads(encode(named, "application/json")) == {"predictions": records}
    assert [json.loads(line) for line in encode(named, "application/jsonlines").splitlines()] == records
    table = np.load(io.BytesIO(encode(named, "application/x-npy")))
    assert table["predicted_label"].tolist() == TEXTS["predicted_label"].tolist()


def test_lists_of_texts_are_one_cell_and_one_list() -> None:
    named = Predictions({"labels": np.tile(np.array(["a", "b, c"]), (2, 1))})
    cells = [row[0] for row in csv.reader(encode(named, "text/csv").decode().splitlines())]
    assert [json.loads(cell) for cell in cells] == [["a", "b, c"]] * 2
    assert json.loads(encode(named, "application/json")) == {"predictions": [{"labels": ["a", "b, c"]}] * 2}


@pytest.mark.parametrize("labels", [np.array(["a", "b"]), np.array([1, (1 << 24) + 1])])
def test_recordio_is_refused_where_its_floats_would_change_a_label(labels: Any) -> None:
    with pytest.raises(AcceptUnsupported, match="text/csv"):
        encode(Predictions({"predicted_label": labels}), "application/x-recordio-protobuf")


@pytest.mark.skipif(compiled.row is None, reason="nothing was compiled for this Python")
@pytest.mark.parametrize("media_type", [CSV, JSON, LINES])
@pytest.mark.parametrize("one_line", [False, True])
def test_long_answers_have_the_letters_that_orjson_writes(
    media_type: str, one_line: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C writes them, but for those that it has no text for something in."""
    draw = np.random.default_rng(5)
    usual = (1 / (1 + np.exp(-draw.standard_normal((25_000, 1)) * 4))).astype(np.float32)
    odd = usual.copy()
    odd[12_345] = np.nan
    odd[24_999] = 0.5
    bits = draw.integers(0, 1 << 32, (5000, 1), np.uint32).view(np.float32)
    conventions = Conventions(one_line=one_line)
    for table in (usual, odd, bits, np.hstack([usual, odd]), usual.astype(np.float64)):
        written = encode(Predictions(table), media_type, conventions)
        with monkeypatch.context() as alone:
            alone.setitem(encode.__globals__, "row", None)
            assert written == encode(Predictions(table), media_type, conventions)
