"""Large bodies are read a piece at a time: the same rows as in one go, and nobody waits long for the interpreter lock."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from handler.compiled import letting_go
from handler.errors import FeatureMismatch, PayloadInvalid
from handler.payload import delimited, jsonbody, libsvm, steps
from handler.payload.decode import decode
from handler.payload.rows import Rows

MODULES = (delimited, jsonbody, libsvm)
JSON, LINES, CSV, LIBSVM = "application/json", "application/jsonlines", "text/csv", "text/libsvm"
ROW = b"0.1,0.2,0.3,0.4,0.5,0.6"
MEGABYTES = 1


def read(body: bytes, content_type: str, piece_bytes: int) -> Rows | str:
    with pytest.MonkeyPatch.context() as patch:
        for module in MODULES:
            patch.setattr(module, "PIECE_BYTES", piece_bytes)
        try:
            return decode(body, content_type, 3)
        except (PayloadInvalid, FeatureMismatch) as error:
            return str(error)


WORDS = st.sampled_from(["x", "y", 'a"b', "a,b", "]", "\\"])
CELLS = st.sampled_from([1, 2.5, None, -3e4, True, 0.1])
TABLES = st.tuples(st.integers(1, 3), st.booleans(), st.integers(1, 9)).flatmap(
    lambda shape: st.lists(
        st.tuples(*[WORDS if shape[1] and at == 0 else CELLS for at in range(shape[0])]),
        min_size=shape[2],
        max_size=shape[2],
    )
)
SHAPES: list[Callable[[tuple[Any, ...]], Any]] = [
    list,
    lambda row: {"features": row},
    lambda row: {"data": {"features": {"values": row}}},
    lambda row: {"data": {"features": {"values": row[:1], "keys": [1], "shape": [3]}}},
    lambda row: dict(zip("abc", row, strict=False)),
]


@given(TABLES, st.sampled_from(SHAPES), st.sampled_from(["array", "envelope", "lines"]), st.integers(1, 80), st.data())
def test_json_in_pieces_is_json_in_one(
    table: list[tuple[Any, ...]],
    shape: Callable[[tuple[Any, ...]], Any],
    form: str,
    piece_bytes: int,
    data: st.DataObject,
) -> None:
    items = [shape(row) for row in table]
    content_type = LINES if form == "lines" else JSON
    text = json.dumps({"instances": items} if form == "envelope" else items)
    body = ("\n".join(map(json.dumps, items)) if form == "lines" else text).encode()
    assert read(body, content_type, piece_bytes) == read(body, content_type, 1 << 20)
    at = data.draw(st.integers(0, len(body)))
    changed = (
        body[:at]
        + data.draw(st.sampled_from([b"", b",", b"]", b"[", b"}", b'"', b"1", b" ", b"null"]))
        + body[at + 1 :]
    )
    # Which of two faults is named may differ, but not whether there is one.
    whole, pieces = read(changed, content_type, 1 << 20), read(changed, content_type, piece_bytes)
    assert whole == pieces or (isinstance(whole, str) and isinstance(pieces, str))


@given(st.text(alphabet='019:. -e#nqidx,\n\r\t;"', max_size=60), st.sampled_from([CSV, LIBSVM]), st.integers(1, 30))
def test_text_in_pieces_is_text_in_one(text: str, content_type: str, piece_bytes: int) -> None:
    body = (text + "\n1,2,3" * (content_type == CSV)).encode()
    whole, pieces = read(body, content_type, 1 << 20), read(body, content_type, piece_bytes)
    # A cell in quotes may hold a line's end, which a piece that ends there does not know.
    assert whole == pieces or isinstance(pieces, str)


def test_a_fault_is_named_by_its_place_in_the_body() -> None:
    rows = [[1, 2, 3]] * 20_000
    for fault, place in ((None, "instances[15000]: null"), ([1, "x", 3], "instances[15000][1]: the string 'x'")):
        body = json.dumps({"instances": [*rows[:15_000], fault, *rows[15_001:]]}).encode()
        assert str(read(body, JSON, jsonbody.PIECE_BYTES)).startswith(place)
    body = json.dumps(rows, indent=1).replace("2,", "2", 15_001).replace("2", "2,", 15_000).encode()
    found, wanted = read(body, JSON, jsonbody.PIECE_BYTES), read(body, JSON, 1 << 30)
    assert found == wanted
    assert str(found).startswith("line 75005, column 3: not JSON")


@pytest.mark.skipif(letting_go is None, reason="there was no C compiler at setup")
@pytest.mark.parametrize("text", ["[1]", "[[1],[2]]", '{"instances":[[1],[2]]}'])
def test_what_closes_an_array_is_its_own_bracket_and_nothing_stands_behind_it(text: str) -> None:
    assert isinstance(read(text.encode(), JSON, 1), Rows)
    for end in ("}", "]", ",1", "x", " ]"):
        assert isinstance(read((text + end).encode(), JSON, 1), str)
    last = text.rindex("]")
    assert isinstance(read((text[:last] + "}" + text[last + 1 :]).encode(), JSON, 1), str)


def body_of(head: bytes, unit: bytes, tail: bytes) -> bytes:
    return head + unit * ((MEGABYTES << 20) // len(unit)) + tail


BODIES: dict[str, tuple[str, bytes]] = {
    "csv": (CSV, body_of(b"", ROW + b"\n", b"")),
    "csv between semicolons, with carriage returns": (CSV, body_of(b" ", ROW.replace(b",", b";") + b"\r\n", b"\n\n")),
    "csv between spaces": (CSV, body_of(b"", ROW.replace(b",", b"  ") + b"\n", b"")),
    "csv in a rare spelling": (CSV, body_of(b"", ROW.replace(b",", b", ") + b"\n", b"")),
    "csv in quotes": (CSV, body_of(b"", b'"0.1",' + ROW + b"\n", b"")),
    "one line": (CSV, body_of(b"", b"11,", b"1")),
    "a second line": (CSV, body_of(ROW + b"\n", b"11,", b"1")),
    "a second line without end": (CSV, body_of(ROW + b"\n", b"1", b"")),
    "libsvm": (LIBSVM, body_of(b"", b"0 0:0.1 1:0.2 2:0.3 # one\r\n", b"")),
    "libsvm, a line": (LIBSVM, body_of(b"", b"1:1 ", b"")),
    "libsvm, a comment": (LIBSVM, body_of(b"#", b"1 ", b"\n0 1:1")),
    "json": (JSON, body_of(b"[", b"[" + ROW + b"],", b"[" + ROW + b"]]")),
    "json in an envelope": (JSON, body_of(b'{"instances":[', b'{"features":[' + ROW + b"]},", b"[]]}")),
    "json, objects": (JSON, body_of(b"[", b'{"aaaaaaaaaa":0.11111111111111,"b":"x"},', b'{"aaaaaaaaaa":0,"b":"y"}]')),
    "json, one row": (JSON, body_of(b"[", b"1,", b"1]")),
    "json, a wide row": (JSON, body_of(b"[[1],[", b"1,", b"1]]")),
    "json, not closed": (JSON, body_of(b"[", b"[" + ROW + b"],", b"")),
    "json, one object": (JSON, body_of(b'{"features":[', b"1,", b"1]}")),
    "json lines": (LINES, body_of(b"", b'{"aaaaaaaaaaaaaaa":0.1,"b":0.2,"c":null}\n', b"")),
    "json lines, a long one": (LINES, body_of(b"[1,2]\n[", b"1,", b"1]")),
}


class Watched:
    """A function that notes the largest argument it is given, by its length."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self.largest = 0

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        self.largest = max(self.largest, len(arguments[0]))
        return self._function(*arguments, **named)


@pytest.mark.skipif(letting_go is None, reason="there was no C compiler at setup")
@pytest.mark.parametrize("name", BODIES)
def test_nothing_that_holds_the_interpreter_lock_is_given_more_than_a_piece(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = {}
    for module, function in (
        (delimited, "_read_block"),
        (delimited, "_text_lines"),
        (delimited, "_spaces_to_commas"),
        (libsvm, "_convert"),
        (jsonbody, "_parse"),
        (jsonbody, "_all_at_once"),
    ):
        watched[function] = Watched(getattr(module, function))
        monkeypatch.setattr(module, function, watched[function])
    loads = Watched(orjson.loads)
    monkeypatch.setattr(jsonbody, "orjson", SimpleNamespace(loads=loads, JSONDecodeError=orjson.JSONDecodeError))
    content_type, body = BODIES[name]
    with contextlib.suppress(PayloadInvalid, FeatureMismatch):
        decode(body, content_type, 6)
    most = 3 * max(module.PIECE_BYTES for module in MODULES)
    assert {name: one.largest for name, one in watched.items() if one.largest > most} == {}
    assert loads.largest <= most


@pytest.mark.parametrize("step_bytes", [1, 3, 1 << 20])
@given(text=st.text(alphabet="ab ", max_size=20), start=st.integers(0, 20))
def test_steps_give_what_the_methods_of_bytes_give(step_bytes: int, text: str, start: int) -> None:
    body = text.encode()
    start = min(start, len(body))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(steps, "STEP_BYTES", step_bytes)
        assert steps.count(body, b"a", start) == body.count(b"a", start)
        found = body.find(b"a", start)
        assert steps.find(body, b"a", start, len(body)) == (len(body) if found < 0 else found)
        first, last = steps.trimmed(body, b" ", start)
        assert body[first:last] == body[start:].strip(b" ")


@pytest.mark.parametrize("step_bytes", [1, 2, 3, 1 << 20])
@given(text=st.text(alphabet='\\"a', max_size=20))
def test_what_is_escaped_is_found_wherever_the_steps_fall(step_bytes: int, text: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(steps, "STEP_BYTES", step_bytes)
        found = steps.escaped(text.encode(), b'"', 0, len(text))
    assert found == sum(one == '\\"' for one in re.findall(r"\\.|[^\\]", text))
