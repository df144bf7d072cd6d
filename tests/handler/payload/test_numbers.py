"""numbers.c against Python: the same floats, or declined."""

from __future__ import annotations

import locale

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from handler.compiled import holding
from handler.payload.delimited import _read_block, _read_block_in_python, read_csv

pytestmark = pytest.mark.skipif(holding is None, reason="there was no C compiler")

spellings = st.one_of(
    st.floats(width=32, allow_nan=False, allow_infinity=False).map(lambda number: str(np.float32(number))),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.integers(-(10**25), 10**25).map(str),
    st.from_regex(r"[+-]?[0-9]{0,22}\.?[0-9]{0,22}([eE][+-]?[0-9]{1,3})?", fullmatch=True),
    st.sampled_from(
        ["", "nan", "NaN", "-0", "1.", ".5", "1e", "-", ".", "inf", "0x1", "1_0", " 1", "1\0", "naan", "5e-324"]
    ),
)


def same(ours: np.ndarray | None, theirs: np.ndarray | None) -> bool:
    if ours is None or theirs is None:
        return ours is theirs
    return ours.shape == theirs.shape and np.array_equal(ours.view(np.uint32), theirs.view(np.uint32))


@given(st.lists(st.lists(spellings, min_size=2, max_size=4), min_size=2, max_size=4), st.integers(1, 4))
@example([["-0", "1"], ["2", "-0"]], 2)
@example([["-0", "1.5"], ["-0", "-0.5"]], 2)
@example([["16777217", "9007199254740993"], ["1e23", "8.5e22"]], 2)
@example([["1e-23", "4.35"], ["123456789012345678", "0.1e-30"]], 2)
@example([["3.4028235677973366e38", "3.4028235e38"], ["1e-45", "7e-46"]], 2)
def test_what_is_read_is_what_python_reads(rows: list[list[str]], n_columns: int) -> None:
    text = "\n".join(map(",".join, rows)).encode()
    with np.errstate(all="ignore"):
        assert same(_read_block(text, n_columns), _read_block_in_python(text, n_columns))


@given(st.binary(max_size=60), st.integers(1, 4))
def test_any_bytes_are_read_as_python_reads_them(text: bytes, n_columns: int) -> None:
    with np.errstate(all="ignore"):
        assert same(_read_block(text, n_columns), _read_block_in_python(text, n_columns))


def test_a_locale_with_decimal_commas_changes_nothing() -> None:
    before = locale.setlocale(locale.LC_NUMERIC)
    for name in ("de_DE.UTF-8", "fr_FR.UTF-8", ""):
        try:
            locale.setlocale(locale.LC_NUMERIC, name)
        except locale.Error:
            continue
    try:
        rows = read_csv(b"1.5,0.12345678901234567\n2.5,1e-30", 2)
    finally:
        locale.setlocale(locale.LC_NUMERIC, before)
    assert rows.values.tolist() == np.float32([[1.5, 0.12345678901234567], [2.5, 1e-30]]).tolist()


def test_a_body_of_many_pieces_is_read_whole() -> None:
    wanted = np.random.default_rng(0).standard_normal((40_000, 5), np.float32)
    body = "\n".join(",".join(map(str, row)) for row in wanted).encode()
    assert np.array_equal(read_csv(body, 5).values, wanted)
