"""text/csv in: what Python's csv and float say is what a body says, whichever way reads it."""

from __future__ import annotations

import csv
import io
import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from handler.errors import ContentTypeUnsupported, FeatureMismatch, PayloadInvalid
from handler.payload import delimited
from handler.payload.decode import decode
from handler.payload.delimited import PIECE_BYTES, read_csv

FLOAT32_MAX = 3.4028234663852886e38


def rows_of(body: bytes, content_type: str = "text/csv", n_features: int = 3) -> list[list[float]]:
    return decode(body, content_type, n_features).values.tolist()


def same(actual: list[list[float]], expected: list[list[float]]) -> bool:
    return np.array_equal(np.array(actual, np.float32), np.array(expected, np.float32), equal_nan=True)


def by_the_book(text: str, delimiter: str = ",") -> np.ndarray:
    """The oracle: the csv module cuts, float() reads, numpy rounds."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    rows = [[float(cell) if cell.strip().strip("nulNUL") else math.nan for cell in row] for row in reader]
    return np.array(rows, dtype=np.float64).astype(np.float32)


numbers = st.floats(width=32, allow_nan=False, allow_infinity=False)
spellings = st.one_of(
    numbers.map(repr),
    numbers.map(lambda number: f"{number:.3g}"),
    numbers.map(lambda number: f"{number:+.9e}"),
    st.integers(-(10**20), 10**20).map(str),
    st.integers(0, 999).map(lambda number: f"00{number}"),
    st.integers(0, 999).map(lambda number: f".{number}"),
    st.integers(0, 999).map(lambda number: f"{number}."),
    st.sampled_from(["", " ", "nan", "NaN", "-nan", "null", "NULL", "-0", "0e0", "1E5"]),
)
cells = st.tuples(spellings, st.sampled_from(["{}", "{}", "{}", " {}", "{} ", '"{}"'])).map(
    lambda pair: pair[1].format(pair[0])
)
tables = st.integers(2, 5).flatmap(
    lambda width: st.lists(st.lists(cells, min_size=width, max_size=width), min_size=1, max_size=6)
)


@given(tables, st.sampled_from([",", ";", "\t"]), st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_any_table_reads_as_python_reads_it(table: list[list[str]], delimiter: str, end: str, is_ended: bool) -> None:
    text = end.join(delimiter.join(row) for row in table)
    body = (text + end * is_ended).encode()
    assert np.array_equal(decode(body, "text/csv", 3).values, by_the_book(text, delimiter), equal_nan=True)


@given(st.lists(st.floats(width=32, allow_infinity=False), min_size=1, max_size=40))
def test_a_line_of_float32_reads_back_bit_for_bit(row: list[float]) -> None:
    line = ",".join(str(np.float32(number)) for number in row)
    assert np.array_equal(decode(line.encode(), "text/csv", 3).values, np.array([row], np.float32), equal_nan=True)


@given(st.binary(max_size=200))
def test_any_bytes_are_rows_or_a_refusal(body: bytes) -> None:
    try:
        rows = decode(body, "text/csv", 3)
    except (PayloadInvalid, FeatureMismatch):
        return
    assert rows.values.dtype == np.float32
    assert rows.values.flags.c_contiguous
    assert rows.values.size
    assert not np.isinf(rows.values).any()


@given(st.text(alphabet='1,.-e \n\r\t;"na0', max_size=40))
def test_what_is_read_from_near_csv_is_what_python_reads(text: str) -> None:
    try:
        rows = read_csv(text.encode(), 3)
    except PayloadInvalid:
        return
    plain = text.strip(" \n\r")
    head = plain.split("\n")[0]
    delimiter = next((mark for mark in ",;\t" if mark in head.strip(" ")), None)
    if delimiter is None and " " in head.strip(" "):
        expected = by_the_book("\n".join(",".join(line.split()) for line in plain.split("\n")))
    else:
        expected = by_the_book(plain, delimiter or ",")
    assert np.array_equal(rows.values, expected, equal_nan=True)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"1,2,3", [[1, 2, 3]]),
        (b"1,2,3\n", [[1, 2, 3]]),
        (b"1,2,3\r\n4,5,6\r\n", [[1, 2, 3], [4, 5, 6]]),
        (b"\n\n1,2\n\n", [[1, 2]]),
        (b"1,,3\n,,", [[1, math.nan, 3], [math.nan] * 3]),
        (b"1,nan,NaN", [[1, math.nan, math.nan]]),
        (b"1,null,NULL", [[1, math.nan, math.nan]]),
        (b"1,Null,3\nnull,5, null ", [[1, math.nan, 3], [math.nan, 5, math.nan]]),
        (b'"1","2"\r\n"3",""', [[1, 2], [3, math.nan]]),
        (b" 1 ,\t2 ", [[1, 2]]),
        (b"+1,.5,1.,007", [[1, 0.5, 1, 7]]),
        (b"\xef\xbb\xbf1,2", [[1, 2]]),
        (b"42\n6\n9\n", [[42], [6], [9]]),
        (b'1\n""\n3', [[1], [math.nan], [3]]),
        (b"1;2\n3;4", [[1, 2], [3, 4]]),
        (b"1\t\t3\n4\t5\t6", [[1, math.nan, 3], [4, 5, 6]]),
        (b"1\t2\n \t\n3\t4\r\n", [[1, 2], [math.nan] * 2, [3, 4]]),
        (b"1  2 3 \n 4 5   6", [[1, 2, 3], [4, 5, 6]]),
        (b"1e-50,1e38", [[0, 1e38]]),
        (b"12345678901234567890123456789,1", [[12345678901234567890123456789, 1]]),
    ],
)
def test_spellings_people_send(body: bytes, expected: list[list[float]]) -> None:
    assert same(rows_of(body), expected)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "the body is empty"),
        (b"\n \r\n", "the body holds no rows"),
        (b"age,income\n1,2", "line 1, column 1: 'age' is not a number; send the rows without a header line"),
        (b"1,2\n3,abc", "line 2, column 2: 'abc' is not a number"),
        (b"\n\n1,2\n3,abc", "line 4, column 2: 'abc' is not a number"),
        (b"1,true", "line 1, column 2: 'true' is not a number"),
        (b"1,nul", "line 1, column 2: 'nul' is not a number"),
        (b"1,nulll", "line 1, column 2: 'nulll' is not a number"),
        (b"1," + b"1" * 600, "line 1, column 2: '" + "1" * 40 + "...' of 600 characters is not a number; at most 512"),
        (b"1,[2]", "line 1, column 2: '[2]' is not a number"),
        (b"1,0x10", "line 1, column 2: '0x10' is not a number"),
        (b"1_000,2", "line 1, column 1: '1_000' is not a number"),
        ("1,\u0663".encode(), "line 1, column 2: '\u0663' is not a number"),
        (b'"1,5",2', "line 1, column 1: '1,5' is not a number"),
        (b"1 2,3", "line 1, column 1: '1 2' is not a number"),
        (b"1,2\n3\n4,5", "line 2: 1 cell, where line 1 has 2"),
        (b"1,2\n3,4,5", "line 2: 3 cells, where line 1 has 2"),
        (b"1,2\n\n3,4", "line 2: blank, between rows"),
        (b"1\n\n3", "line 2: blank, between rows"),
        (b"1 2\n3, 4", "line 2: a comma, where the first line separates its cells by spaces"),
        (b"1;2\n3,4", "line 2: 1 cell, where line 1 has 2"),
        (b"inf,2", "line 1, column 1: 'inf' is infinite, or too large for a float32 (at most 3.4028235e+38)"),
        (b"1,-Infinity", "line 1, column 2: '-Infinity' is infinite"),
        (b"1,3.5e38", "line 1, column 2: '3.5e38' is infinite, or too large"),
        (b"1,2\n3,1e400", "line 2, column 2: '1e400' is infinite, or too large"),
        (b"1,2\x00", "line 1: a NUL byte"),
        (b"1,2\r3,4", "line 1: a carriage return without a line feed"),
        (b"\xff\xfe1\x00,\x00", "line 1: byte 0xff is not UTF-8 text"),
        (b"1,2\n3,\xe9", "line 2: byte 0xe9 is not UTF-8 text"),
        (b'1,"2', "line 1: not CSV"),
    ],
)
def test_a_refusal_names_the_place(body: bytes, message: str) -> None:
    with pytest.raises(PayloadInvalid) as refusal:
        rows_of(body)
    assert str(refusal.value).startswith(message)


def test_float32_ends_where_rounding_ends() -> None:
    assert rows_of(f"{FLOAT32_MAX!r}".encode()) == [[FLOAT32_MAX]]
    assert rows_of(b"3.40282356e38") == [[FLOAT32_MAX]]
    with pytest.raises(PayloadInvalid, match="too large"):
        rows_of(b"3.4028236e38")


@pytest.mark.parametrize("content_type", ["csv", "TEXT/CSV", "text/csv;charset=UTF-8", "text/csv; label_size=0"])
def test_names_of_csv(content_type: str) -> None:
    assert rows_of(b"1,2", content_type) == [[1, 2]]


@pytest.mark.parametrize("content_type", ["text/csv; label_size=2", "text/csv; charset=utf-16", "text/plain"])
def test_names_that_are_refused(content_type: str) -> None:
    with pytest.raises(ContentTypeUnsupported, match="text/csv"):
        rows_of(b"1,2", content_type)


def test_a_declared_label_column_is_dropped_and_only_when_it_is_there() -> None:
    assert rows_of(b"0,1,2\n1,3,4", "text/csv; label_size=1", n_features=2) == [[1, 2], [3, 4]]
    assert rows_of(b"1,2\n3,4", "text/csv; label_size=1", n_features=2) == [[1, 2], [3, 4]]


def test_many_pieces_read_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    table = np.random.default_rng(0).normal(size=(500, 7)).astype(np.float32)
    table[3, 2] = np.nan
    lines = [",".join(str(number) for number in row) for row in table]
    body = "\n".join(lines).encode()
    assert len(body) < PIECE_BYTES
    monkeypatch.setattr(delimited, "PIECE_BYTES", 1000)
    assert np.array_equal(read_csv(body, 7).values, table, equal_nan=True)
    lines[400] = lines[400] + "x"
    with pytest.raises(PayloadInvalid, match="line 401, column 7"):
        read_csv("\n".join(lines).encode(), 7)


def test_absurdly_wide_rows_are_refused_unread() -> None:
    with pytest.raises(FeatureMismatch, match="the model has 3 features, the rows have 1000001"):
        rows_of(b"1," * 1_000_000 + b"1")


@pytest.mark.parametrize("second", [b"1," * 1_000_000 + b"1", b'"1",' * 1_000_000 + b"1", b"x," * 1_000_000 + b"1"])
def test_an_absurdly_wide_line_below_the_first_is_refused_uncut(second: bytes) -> None:
    tracemalloc.start()
    with pytest.raises(PayloadInvalid, match="line 2: 1000001 cells, where line 1 has 3"):
        rows_of(b"1,2,3\n" + second)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12 * len(second)


@pytest.mark.timeout(10)
@pytest.mark.parametrize(
    "body",
    [
        b"1" * 2_000_000,
        b'"' * 2_000_001,
        b"1" + b" " * 2_000_000 + b"x",
        b"1 2\n" + b" " * 2_000_000 + b"\n1 2 3",
        b"\n" * 2_000_000,
        b'"' + b"1\n" * 1_000_000,
        b"1\n" * 1_000_000 + b"x",
    ],
    ids=["digits", "quotes", "spaces", "a line of spaces", "line ends", "open quote", "one bad line of a million"],
)
def test_a_hostile_body_is_refused_in_no_time(body: bytes) -> None:
    with pytest.raises(PayloadInvalid):
        rows_of(body)


@pytest.mark.parametrize("body", [b"-0,1", b"1,-0", b"-0 ,1", b"1,-0\n2,-0", b"-0,nan"])
def test_minus_zero_is_what_float_says_whichever_way_reads_it(body: bytes) -> None:
    values = read_csv(body, 2).values
    assert np.signbit(values[values == 0]).all()
