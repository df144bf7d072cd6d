"""Ordinary rows of JSON, read by jsonrows.c, against the longer way: the same bits, or none."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handler.compiled import holding
from handler.errors import ServingError
from handler.payload import Rows, jsonbody
from handler.payload.jsonbody import read_json, read_jsonlines

pytestmark = pytest.mark.skipif(holding is None, reason="there was no C compiler")

N_NUMBERS = 100_000

short_way = jsonbody._read_ordinary


@pytest.fixture(scope="module", autouse=True)
def readers_are_the_longer_way() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jsonbody, "_read_ordinary", lambda *_, **__: None)
        patch.setattr(jsonbody, "ONE_ROW_BYTES", 0)
        yield


def bits(rows: Rows | None) -> bytes | None:
    """NaN and the sign of zero count."""
    assert rows is None or (rows.names is None and not rows.words)
    return None if rows is None else np.ascontiguousarray(rows.values).tobytes()


def agree(body: bytes, n_features: int, *, is_lines: bool = False) -> bool:
    """Whether it was read; when it was, the longer way read the same."""
    rows = short_way(body, n_features, is_lines=is_lines)
    if rows is not None:
        longer = (read_jsonlines if is_lines else read_json)(body, n_features)
        assert rows.values.shape == longer.values.shape
        assert bits(rows) == bits(longer), body
    return rows is not None


# -- numbers ---------------------------------------------------------------------------------------------------------------


def spellings(random: np.random.Generator) -> Iterator[list[str]]:
    """Numbers as people and programs write them, and as nobody does."""
    doubles: npt.NDArray[np.float64] = random.integers(0, 2**63, N_NUMBERS).view(np.float64)
    yield [repr(x) for x in doubles.tolist() if np.isfinite(np.float32(x))]
    floats: npt.NDArray[np.float32] = random.integers(0, 2**32, N_NUMBERS, dtype=np.uint32).view(np.float32)
    floats = floats[np.isfinite(floats)]
    yield [repr(x) for x in floats.tolist()]
    yield [f"{x:.30e}" for x in floats[:10_000].tolist()]
    halfway = (floats[:20_000].astype(np.float64) + np.nextafter(floats[:20_000], np.float32(0)).astype(np.float64)) / 2
    yield [repr(x) for x in halfway.tolist()]
    yield [f"{x:.4f}" for x in random.normal(0, 1000, N_NUMBERS).tolist()]
    yield [str(x) for x in random.integers(-(2**63), 2**63, 20_000).tolist()]
    yield [str(x * 10 ** int(n) + 1) for x, n in zip(range(2000), random.integers(0, 30, 2000), strict=True)]


@pytest.mark.filterwarnings("ignore:overflow encountered")
def test_numbers_have_the_bits_of_the_longer_way_however_they_are_written() -> None:
    n_read = 0
    for texts in spellings(np.random.default_rng(4)):
        for start in range(0, len(texts), 1000):
            some = texts[start : start + 1000]
            assert agree(f"[{','.join(some)}]".encode(), len(some))
            n_read += len(some)
    assert n_read > N_NUMBERS


@pytest.mark.parametrize(
    "text",
    ["-0", "-0.0", "-0e1", "0", "0.0", "0e400", "1E+3", "1e-400", "7e-46", "8e-46", "16777217", "16777219", "3.4028235e38",
     "3.4028235677973362e38", "9007199254740993", "18446744073709551615", "18446744073709551616", "-9223372036854775809",
     "1" + "0" * 38, "0." + "0" * 30 + "1", "0." + "3" * 400, "null"],
)  # fmt: skip
def test_odd_numbers_are_read_to_the_bit_as_the_longer_way_reads_them(text: str) -> None:
    assert agree(f"[{text}]".encode(), 1)
    assert agree(f"[[1,{text}],[{text},2]]".encode(), 2)


@pytest.mark.parametrize(
    "text",
    ["1e400", "-1e400", "1e39", "3.4028236e38", "nan", "NaN", "Infinity", "-Infinity", "+1", ".5", "-.5", "5.", "5.e1", "1e",
     "1e+", "01", "-01", "00", "-", "--1", "0x1", "1_0", "true", "false", '"1"', '"x"', "{}", "", "nul", "nulll", "Null",
     "1 2", "1\x0b", "1\x00", "\xa01", "0." + "3" * 600],
)  # fmt: skip
def test_what_is_no_ordinary_number_is_left_to_the_longer_way(text: str) -> None:
    for body in (f"[{text}]", f"[[{text}]]", f'{{"features":[{text}]}}', f'{{"instances":[[{text}]]}}'):
        assert short_way(body.encode("latin-1"), 1, is_lines=False) is None


# -- shapes ----------------------------------------------------------------------------------------------------------------

ROW = "[1,2,3]"


@pytest.mark.parametrize("blank", ["", " ", "\n", "\t \r\n"])
@pytest.mark.parametrize("n_rows", [1, 2, 40])
def test_each_ordinary_shape_is_read_whatever_the_blanks_are(n_rows: int, blank: str) -> None:
    rows = [[index, None, -index / 7] for index in range(n_rows)]
    for items in (rows, [{"features": row} for row in rows]):
        for document in (items, {"instances": items}, items[0]):
            text = json.dumps(document, separators=(f"{blank},{blank}", f"{blank}:{blank}"))
            for mark in "[]{}":
                text = text.replace(mark, blank + mark + blank)
            assert agree(text.encode(), 3)
        lines = "\n".join(blank.replace("\n", "") + json.dumps(item) + blank.replace("\n", "") for item in items)
        for end in ("", "\n", "\r\n", "\n\n \n"):
            assert agree((end + lines + end).encode(), 3, is_lines=True)


@pytest.mark.parametrize(
    "body",
    [
        "", " ", "[]", "[[]]", "{}", '{"instances":[]}', '{"instances":[[]]}', '{"features":[]}',
        "[1,2]", "[1,2,3,4]", f"[{ROW},[1,2]]", f"[{ROW},[1,2,3,4]]", f"[[{ROW}]]", f"{ROW}{ROW}", f"{ROW},{ROW}",
        f"[{ROW},]", f"[,{ROW}]", f"[{ROW}", f"{ROW}]", f"[{ROW} {ROW}]", "[1,2,3", "[1,2,,3]", "[1,2,3,]", "[1 2 3]",
        '{1,2,3}', '{"instances":[1,2,3]}', f'{{"instances":{ROW}}}', f'{{"instances":[{ROW}]', f'{{"instances":[{ROW}]}}}}',
        f'{{"instances":[{ROW}],"instances":[{ROW}]}}', f'{{"instances":[{ROW}],"x":1}}', f'{{"x":1,"instances":[{ROW}]}}',
        f'{{"instances":[{ROW}],}}', f'{{"instances" [{ROW}]}}', f'{{"inst\\u0061nces":[{ROW}]}}', f'{{instances:[{ROW}]}}',
        f"{{'instances':[{ROW}]}}", f'{{"instances ":[{ROW}]}}', f'{{"Instances":[{ROW}]}}',
        '{"instances":{"features":[1,2,3]}}',
        f'{{"features":{ROW},"features":{ROW}}}', f'{{"features":{ROW},"x":1}}', f'{{"features":[{ROW}]}}',
        f'[{ROW},{{"features":{ROW}}}]', f'[{{"features":{ROW}}},{ROW}]', '{"a":1,"b":2,"c":3}', '[{"a":1,"b":2,"c":3}]',
        f'{{"data":{{"features":{{"values":{ROW}}}}}}}', f"\ufeff{ROW}", f"{ROW}\x00", f"\x00{ROW}", f"{ROW}x", f"\x0b{ROW}",
    ],
)  # fmt: skip
def test_every_other_shape_is_left_to_the_longer_way(body: str) -> None:
    assert short_way(body.encode(), 3, is_lines=False) is None


@pytest.mark.parametrize(
    "body",
    ["", "\n", f"{ROW}\n\n{ROW}", f"{ROW}{ROW}", f"{ROW} {ROW}", "[1,\n2,3]", f"[{ROW}]", f'{{"instances":[{ROW}]}}', "1,2,3",
     f'{ROW}\n{{"features":{ROW}}}', f'{{"features":\n{ROW}}}', f"{ROW}\n[1,2]", f"{ROW},\n{ROW}", f"{ROW}\x0b",
     f"{ROW}\n\x00"],
)  # fmt: skip
def test_every_other_kind_of_lines_is_left_to_the_longer_way(body: str) -> None:
    assert short_way(body.encode(), 3, is_lines=True) is None


CELL = st.one_of(
    st.floats(allow_nan=False).map(repr),
    st.integers(-(10**25), 10**25).map(str),
    st.sampled_from(["null", "-0", "1e5", "1E-3", "1e400", "1e39", "01", "5.", "+1", "true", '"1"', ""]),
    st.text("0123456789.eE+-", max_size=8),
)
PIECES = [
    "[",
    "]",
    "{",
    "}",
    ",",
    ":",
    '"instances"',
    '"features"',
    "[1,2]",
    "null",
    "-0",
    "1.5",
    " ",
    "\n",
    "\r",
    "\x00",
]


def read_or_refused(body: bytes, n_features: int, *, is_lines: bool) -> bool:
    try:
        return agree(body, n_features, is_lines=is_lines)
    except ServingError:
        pytest.fail(f"read, where the longer way refuses: {body!r}")


@settings(max_examples=600, deadline=None)
@given(
    st.lists(st.lists(CELL, min_size=2, max_size=3), min_size=1, max_size=4),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
def test_whatever_the_cells_are_the_rows_are_none_or_the_longer_ways(
    cells: list[list[str]], is_lines: bool, has_names: bool, is_enveloped: bool
) -> None:
    rows = [f"[{','.join(row)}]" for row in cells]
    items = [f'{{"features": {row}}}' for row in rows] if has_names else rows
    text = "\n".join(items) if is_lines else f"[{', '.join(items)}]"
    read_or_refused((f'{{"instances": {text}}}' if is_enveloped else text).encode(), 2, is_lines=is_lines)


@settings(max_examples=600, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=14).map("".join), st.booleans())
def test_whatever_the_shape_is_the_rows_are_none_or_the_longer_ways(text: str, is_lines: bool) -> None:
    read_or_refused(text.encode(), 2, is_lines=is_lines)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 60), st.binary(min_size=1, max_size=2), st.booleans())
def test_an_ordinary_body_with_any_bytes_put_into_it_is_none_or_the_longer_ways(
    at: int, change: bytes, is_insert: bool
) -> None:
    for text in (b'{"instances": [[1.5, null], [-0, 2e3]]}', b'[{"features": [1.5, null]}, {"features": [-0, 2e3]}]'):
        body = text[:at] + change + text[at if is_insert else at + len(change) :]
        read_or_refused(body, 2, is_lines=False)
        read_or_refused(body.replace(b"}, {", b"}\n{"), 2, is_lines=True)
