"""libsvm.c against Python: the same rows, or the same refusal."""

from __future__ import annotations

from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from handler.compiled import holding
from handler.errors import RequestError
from handler.payload import libsvm
from handler.payload.libsvm import read_libsvm

pytestmark = pytest.mark.skipif(holding is None, reason="there was no C compiler")

N_FEATURES = 5
numbers = st.one_of(
    st.floats(width=32, allow_nan=False, allow_infinity=False).map(lambda number: str(np.float32(number))),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.integers(-(10**25), 10**25).map(str),
    st.sampled_from(
        ["", "nan", "NaN", "-nan", "na", "null", "inf", "-0", "1.", ".5", "1e", "1e39", "0x1", "1_0", "1\0"]
    ),
    st.just("1" * 600),
)
indices = st.one_of(
    st.integers(0, N_FEATURES).map(str),
    st.sampled_from(["", "-1", "+1", "01", "1e0", "1.0", "9" * 18, "9" * 19, "1" * 600]),
)
cells = st.one_of(
    st.tuples(indices, numbers).map(":".join), st.sampled_from(["qid:3", "1:2:3", "# x", "1", ":", "1: 2"])
)
ordinary = st.lists(st.tuples(st.integers(0, N_FEATURES - 1), numbers), max_size=4).map(
    lambda found: [f"{index}:{number}" for index, number in sorted(dict(found).items())]
)
lines = st.tuples(
    st.sampled_from(["", "0", "1.5", "-1", "nan", "x", "1e400", " "]),
    st.one_of(ordinary, ordinary, st.lists(cells, max_size=4)),
    st.sampled_from([" ", " ", "  ", "\t"]),
    st.sampled_from(["", "", "", " ", "\r", "\t \r", "\v", "é"]),
).map(lambda parts: parts[2].join([parts[0], *parts[1]]) + parts[3])


def outcome(body: bytes, index_base: int) -> tuple[object, ...]:
    with np.errstate(all="ignore"):
        try:
            values = read_libsvm(body, N_FEATURES, index_base).values
        except RequestError as error:
            return type(error), str(error)
    return values.shape, np.where(np.isnan(values), np.uint32(0x7FC00000), values.view(np.uint32)).tobytes()


def both(body: bytes, index_base: int = 0) -> tuple[tuple[object, ...], tuple[object, ...]]:
    with patch.object(libsvm, "holding", None):
        alone = outcome(body, index_base)
    return outcome(body, index_base), alone


@given(st.lists(lines, max_size=6), st.integers(0, 1))
@example(["1 0:1 1:2", "", "0 1:3"], 0)
@example(["", "1 0:1"], 0)
@example(["1 0:1", "# nothing", ""], 0)
@example(["1 0:1", "# nothing", "1 0:2"], 0)
@example(["0:1 0:2"], 0)
@example(["1:1 0:2"], 0)
@example(["0:16777217 1:9007199254740993 2:1e23 3:8.5e22 4:3.4028235677973366e38"], 0)
@example(["1 0:1\r0:2"], 0)
def test_what_is_read_is_what_python_reads(some: list[str], index_base: int) -> None:
    ours, theirs = both("\n".join(some).encode(), index_base)
    assert ours == theirs


@given(st.text("0123456789.:-+eE\n\r \tnaN#qidx", max_size=60), st.integers(0, 1))
def test_any_text_is_read_as_python_reads_it(text: str, index_base: int) -> None:
    ours, theirs = both(text.encode(), index_base)
    assert ours == theirs


@given(st.binary(max_size=60))
def test_any_bytes_are_read_as_python_reads_them(body: bytes) -> None:
    ours, theirs = both(body)
    assert ours == theirs


@pytest.mark.parametrize("odd", ["1 qid:3 0:1", "1 0:1 # x", "1 2:1 1:2", "1 0:-nan"])
def test_lines_that_python_reads_stand_among_those_that_c_does(odd: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libsvm, "PIECE_BYTES", 64)
    some = [odd if number % 50 == 20 else f"{number % 2} 0:{number} 3:{number / 7}" for number in range(1000)]
    ours, theirs = both("\n".join(some).encode())
    assert ours == theirs
    assert ours[0] == (1000, N_FEATURES)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("1 0:1 9:1", "line 701 has index 9"),
        ("1 0:x", "line 701"),
        ("", "line 701"),
        ("1 3:1 3:2", "index 3 appears twice"),
    ],
)
def test_what_is_wrong_is_named_by_its_line_behind_what_c_has_read(wrong: str, said: str) -> None:
    some = [wrong if number == 700 else f"1 0:{number}" for number in range(1000)]
    ours, theirs = both("\r\n".join(some).encode())
    assert ours == theirs
    assert said in str(ours[1])


def test_each_ordinary_line_is_read_by_c() -> None:
    body = b"0 0:1 1:2.5\n1 2:-3e5\t4:nan \r\n  0:1\n1\n0 0:1"
    with patch.object(libsvm, "_piece", side_effect=AssertionError):
        values = read_libsvm(body, N_FEATURES).values
    nan = np.nan
    wanted = [[1, 2.5, nan, nan, nan], [nan, nan, -3e5, nan, nan], [1, *[nan] * 4], [nan] * 5, [1, *[nan] * 4]]
    np.testing.assert_array_equal(values, np.float32(wanted))
