"""text/libsvm in."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from handler.errors import ContentTypeUnsupported, FeatureMismatch, PayloadInvalid
from handler.payload import libsvm
from handler.payload.decode import decode

NAN = np.nan
N_FEATURES = 6

sparse_rows = st.lists(
    st.dictionaries(st.integers(0, N_FEATURES - 1), st.floats(width=32, allow_infinity=False), max_size=N_FEATURES),
    min_size=1,
    max_size=8,
)


@given(sparse_rows, st.sampled_from([0, 1]), st.sampled_from(["", "1 ", "-0.5 "]), st.integers(1, 100))
def test_any_rows_read_back(rows: list[dict[int, float]], base: int, label: str, piece_bytes: int) -> None:
    expected = np.full((len(rows), N_FEATURES), NAN, np.float32)
    lines = []
    for at, row in enumerate(rows):
        for column, number in row.items():
            expected[at, column] = number
        cells = " ".join(f"{column + base}:{number!r}" for column, number in row.items())
        lines.append((label or "0 " * (not cells)) + cells)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(libsvm, "PIECE_BYTES", piece_bytes)
        found = decode("\n".join(lines).encode(), f"text/libsvm; index_base={base}", N_FEATURES).values
    assert np.array_equal(found, expected, equal_nan=True)


@pytest.mark.parametrize("content_type", ["libsvm", "text/libsvm", "text/x-libsvm", "", "text/libsvm ;charset=utf8"])
def test_names_of_libsvm(content_type: str) -> None:
    assert decode(b"1 0:5 1:6", content_type, 2).values.tolist() == [[5, 6]]


@pytest.mark.parametrize(
    ("body", "content_type", "expected"),
    [
        (b"0:1 2:3\n1:5\n", "libsvm", [[1, NAN, 3], [NAN, 5, NAN]]),
        (b"1:1 2:3\r\n2:5", "libsvm", [[NAN, 1, 3], [NAN, NAN, 5]]),
        (b"1:5", "libsvm", [[NAN, 5, NAN]]),
        (b"1:5", "text/libsvm; index_base=0", [[NAN, 5, NAN]]),
        (b"1:5 3:7", "text/libsvm; index_base=1", [[5, NAN, 7]]),
        (
            b"1 qid:3 0:1\n0 qid:4 1:2\nqid:5 2:3\n1 qid:6",
            "libsvm",
            [[1, NAN, NAN], [NAN, 2, NAN], [NAN, NAN, 3], [NAN] * 3],
        ),
        (b"# rows\n1 0:1 # the first\n", "libsvm", [[1, NAN, NAN]]),
        (b"\t1\t0:.5\t1:+1.\t2:nan\n", "libsvm", [[0.5, 1, NAN]]),
        (b"7\n8", "libsvm", [[NAN] * 3] * 2),
    ],
)
def test_spellings_people_send(body: bytes, content_type: str, expected: list[list[float]]) -> None:
    assert np.array_equal(decode(body, content_type, 3).values, np.array(expected, np.float32), equal_nan=True)


@pytest.mark.parametrize("odd", [b"1 qid:3 %b", b"qid:3\t%b", b"1 %b # a:b", b"1 qid:3 %b#qid:4"])
def test_a_long_line_has_as_many_cells_with_a_query_or_a_comment(odd: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libsvm, "PIECE_BYTES", 8)
    cells = b" ".join(b"%d:%d" % (column, column) for column in range(N_FEATURES))
    body = b"0 0:1\n" + odd % cells
    assert decode(body, "text/libsvm", N_FEATURES).values[1].tolist() == list(range(N_FEATURES))
    with pytest.raises(FeatureMismatch, match=f"line 2 names {N_FEATURES}"):
        decode(body, "text/libsvm", N_FEATURES - 1)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"\n", "the body holds no rows"),
        (b"1,2,3", "line 1: '1,2,3' is neither a label nor index:value; is this text/csv?"),
        (b"0:1\n0:a", "line 2: '0:a' is not index:value"),
        (b"\n0:1\n0:", "line 3: '0:' is not index:value"),
        (b"0:1 5", "line 1: '5' is not index:value"),
        (b"0:1:2", "line 1: '0:1:2' is not index:value"),
        (b"-1:2", "line 1: '-1:2' is not index:value"),
        (b"1e0:2", "line 1: '1e0:2' is not index:value"),
        (b"99999999999999999999:2", "line 1: '99999999999999999999:2' is not index:value"),
        (b"0:1_0", "line 1: '0:1_0' is not index:value"),
        (b"0:inf", "line 1: '0:inf' is infinite, or too large for a float32"),
        (b"0:1e39", "line 1: '0:1e39' is infinite, or too large for a float32"),
        (b"0:1\n\n0:2", "line 2: blank, between rows"),
        (b"0:1\n0:1 1:1 0:2", "line 2: index 0 appears twice"),
        (b"0:null", "line 1: '0:null' is not index:value"),
        (b"1 qid:x 0:1", "line 1: qid: is read as a whole number before the first index:value, and once"),
        (b"0:1\n1 0:1 qid:2", "line 2: qid: is read as a whole number before"),
        (b"1 qid:2 qid:3 0:1", "line 1: qid: is read as a whole number before"),
        (b"0:" + b"1" * 600, "line 1: '0:" + "1" * 38 + "...' is not index:value"),
        (b"1" * 600 + b" 0:1", "line 1: '" + "1" * 40 + "...' is neither a label nor index:value"),
        (b"0:1\xff", "line 1: '0:1\ufffd' is not index:value"),
    ],
)
def test_a_refusal_names_the_place(body: bytes, message: str) -> None:
    with pytest.raises(PayloadInvalid) as refusal:
        decode(body, "libsvm", 3)
    assert str(refusal.value).startswith(message)


@pytest.mark.parametrize(
    ("body", "content_type", "message"),
    [
        (b"0:1\n0:1 4:1", "libsvm", "the model has 3 features, 0 to 2; line 2 has index 4"),
        (
            b"1:1 3:1",
            "libsvm",
            "the model has 3 features, 0 to 2; line 1 has index 3; where the first feature is 1, say"
            " text/libsvm; index_base=1",
        ),
        (b"1:1 4:1", "libsvm; index_base=1", "the model has 3 features, 1 to 3; line 1 has index 4"),
        (b"0:1", "libsvm; index_base=1", "the model has 3 features, 1 to 3; line 1 has index 0"),
        (b"1 " + b"0:1 " * 1_000_000, "libsvm", "the model has 3 features, line 1 names 1000000"),
    ],
)
def test_an_index_the_model_does_not_have_is_a_mismatch(body: bytes, content_type: str, message: str) -> None:
    with pytest.raises(FeatureMismatch) as refusal:
        decode(body, content_type, 3)
    assert str(refusal.value) == message


def test_a_row_reads_the_same_whatever_its_neighbours_are() -> None:
    alone = decode(b"1:5", "libsvm", 3).values[0]
    for neighbour in (b"0:1", b"1:1", b"2:1"):
        assert np.array_equal(decode(b"1:5\n" + neighbour, "libsvm", 3).values[0], alone, equal_nan=True)


@pytest.mark.parametrize(("body", "kind"), [(b"1,2,3", PayloadInvalid), (b"0:1 9:1", FeatureMismatch)])
def test_without_a_content_type_the_refusal_says_what_was_assumed(body: bytes, kind: type[Exception]) -> None:
    with pytest.raises(
        kind, match="there was no Content-Type, so the body was read as text/libsvm, as AWS's image reads it"
    ):
        decode(body, "", 3)
    with pytest.raises(kind) as refusal:
        decode(body, "text/libsvm", 3)
    assert "Content-Type" not in str(refusal.value)


def test_an_index_base_is_zero_or_one() -> None:
    with pytest.raises(ContentTypeUnsupported):
        decode(b"0:1", "text/libsvm; index_base=2", 3)


def test_few_bytes_do_not_become_many_rows_of_a_wide_model() -> None:
    with pytest.raises(
        PayloadInvalid, match="1000 sparse rows of 100000 features need 400000000 bytes; send at most 335 rows"
    ):
        decode(b"1\n" * 1000, "libsvm", 100_000)


@given(
    st.text(alphabet="019:. -e#naqid\n\t,", max_size=40)
    | st.binary(max_size=60).map(lambda noise: noise.decode("latin1"))
)
def test_any_text_is_rows_or_a_refusal(text: str) -> None:
    with contextlib.suppress(PayloadInvalid, FeatureMismatch):
        found = decode(text.encode() or b" ", "libsvm", 3).values
        assert found.shape[1] == 3
        assert not np.isinf(found).any()
