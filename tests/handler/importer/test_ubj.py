from __future__ import annotations

import contextlib
import random
import struct
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handler.compiled import ubjson
from handler.importer import trees, ubj
from handler.importer.broken import Damaged
from handler.importer.trees import TreeColumns

BOOSTERS = Path(__file__).resolve().parents[2] / "fixtures" / "boosters.tar.gz"
N_CHANGED = 4_000


def length(n: int) -> bytes:
    return b"L" + struct.pack(">q", n)


# Of what a document is made, and of what it is not.
PIECES = (
    *(b"{", b"}", b"[", b"]", b"[#", b"[$l#", b"[$d#", b"[$U#", b"#", b"$", b"Z", b"T", b"F", b"N", b"S"),
    *(b"i\x05", b"U\xff", b"Cx", b"I\x80\x01", b"l\xff\xff\xff\xfe", b"L" + bytes(8)),
    *(b"d\x7f\x80\0\0", b"D\xc0" + bytes(7)),
    *map(length, (0, 1, 2, 3, 8, 9, -1)),
    *(length(len(key)) + key for key in (b"", b"a", b"trees", "\u00e9".encode(), b"\xff", b"\xed\xa0\x80")),
)


def shown(value: object) -> object:
    """All there is of a value, so that what is not of the same type or bits is not the same."""
    if isinstance(value, TreeColumns):
        columns = [(name, str(one.dtype), one.tobytes()) for name, one in value.columns.items()]
        return "trees", value.starts.tobytes(), columns
    if isinstance(value, dict):
        return [(key, shown(one)) for key, one in value.items()]
    if isinstance(value, list):
        return "list", [shown(one) for one in value]
    return type(value), struct.pack(">d", value) if isinstance(value, float) else repr(value)


def read(data: bytes) -> Any:
    """What Python reads, or how it refuses; C must read the same, and decline the same."""
    by_c = None if ubjson is None else ubjson.read(data, ubj._new_typed, trees.read)
    try:
        value = ubj._read(data)
    except Damaged:
        assert by_c is None
        with pytest.raises(Damaged):
            ubj.read(data)
        raise
    if ubjson is not None:
        assert shown(by_c) == shown(value)
    assert shown(ubj.read(data)) == shown(value)
    return value


def test_scalars_and_containers_are_read():
    data = b"{" + ubj.key("a") + b"[#" + length(4) + b"i\xff" + b"TFZ" + ubj.key("b") + b"[I\x01\x02U\xc8]" + b"}"
    assert read(data) == {"a": [-1, True, False, None], "b": [258, 200]}


def test_a_typed_array_is_a_slice_of_the_file():
    value = read(b"[$l#" + length(2) + struct.pack(">ii", 7, -1))
    assert value == ubj.Typed(ord("l"), struct.pack(">ii", 7, -1))
    assert value.values().tolist() == [7, -1]


@given(
    st.sampled_from([("i", "b"), ("U", "B"), ("I", "h"), ("l", "i"), ("L", "q"), ("d", "f"), ("D", "d")]),
    st.binary(min_size=64, max_size=320),
    st.booleans(),
)
@settings(max_examples=200, deadline=None)
def test_numbers_behind_the_same_marker_are_those_that_are_read_one_by_one(kind, raw, has_another):
    code, form = kind[0].encode(), struct.Struct(">" + kind[1])
    items = [raw[at : at + form.size] for at in range(0, len(raw) - form.size + 1, form.size)]
    values = b"".join(code + item for item in items) + (b"T" if has_another else b"")
    together = read(b"[#" + length(len(items) + has_another) + values)
    one_by_one = read(b"[" + values + b"]")
    if has_another or len(items) < ubj._SEVERAL:
        assert repr(together) == repr(one_by_one)
    else:
        assert repr(together.values().tolist()) == repr(one_by_one)
    for cut in range(1, form.size + 1 + has_another):
        with pytest.raises(Damaged):
            read(b"[#" + length(len(items) + has_another) + values[:-cut])


@pytest.mark.parametrize("claim", [1 << 60, 1 << 62, -1, -(1 << 63), 1 << 31, 3])
@pytest.mark.parametrize("head", [b"[$l#", b"[$D#", b"[#", b"{", b"S"])
def test_a_claim_of_more_than_is_there_is_damage_at_once(head, claim):
    begun = time.perf_counter()
    for data in (head + length(claim) + b"\0\0", b"{" + ubj.key("k") + head + length(claim) + b"\0\0"):
        with pytest.raises(Damaged):
            read(data)
    assert time.perf_counter() - begun < 30


@pytest.mark.parametrize("opening", [b"[", b"[#" + length(1), b"{" + ubj.key("")])
def test_a_million_levels_are_refused_not_recursed_into(opening):
    with pytest.raises(Damaged, match="deeper"):
        read(opening * 1_000_000)


def test_millions_of_empty_objects_are_refused_before_they_fill_memory():
    with pytest.raises(Damaged, match="more objects"):
        read(b"[" + b"{}" * 3_000_000 + b"]")


@pytest.mark.parametrize("code", [b"Z", b"T", b"N", b"S", b"[", b"{", b"C"])
def test_typed_arrays_of_other_types_are_refused(code):
    with pytest.raises(Damaged):
        read(b"[$" + code + b"#" + length(1 << 50))


def test_a_key_given_twice_is_refused():
    with pytest.raises(Damaged, match="twice"):
        read(b"{" + ubj.key("a") + b"T" + ubj.key("a") + b"F}")


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_value_or_damage(data):
    with contextlib.suppress(Damaged):
        read(data)


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_a_changed_document_is_a_value_or_damage(ubj_bytes, data):
    changed = bytearray(ubj_bytes)
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(Damaged):
        read(bytes(changed))


def test_every_document_of_every_release_is_read_by_c(ubj_bytes):
    with tarfile.open(BOOSTERS) as tar:
        files = {one.name: tar.extractfile(one).read() for one in tar if one.name.endswith(".ubj")}  # type: ignore[union-attr]
    assert len(files) > 100
    for data in (*files.values(), ubj_bytes):
        read(data)


@settings(max_examples=1000, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=30).map(b"".join))
def test_pieces_of_documents_in_any_order_are_read_by_c_as_by_python(data):
    for whole in (data, b"[" + data + b"]", b"{" + data + b"}"):
        with contextlib.suppress(Damaged):
            read(whole)


def test_nests_to_the_same_depth_and_no_deeper_by_c():
    for opening, closing in ((b"[", b"]"), (b"{" + ubj.key("a"), b"}"), (b"[#" + length(1), b"")):
        read(opening * (ubj.MAX_DEPTH - 1) + b"[]" + closing * (ubj.MAX_DEPTH - 1))
        with pytest.raises(Damaged, match="deeper"):
            read(opening * ubj.MAX_DEPTH + b"[]" + closing * ubj.MAX_DEPTH)


@pytest.mark.parametrize("container", [b"{}", b"[]", b"[#" + length(0)])
def test_as_many_containers_and_no_more_by_c(container):
    most = 1000
    while 1 + most + 1 <= 1000 + (2 + (most + 1) * len(container)) // 32:
        most += 1
    read(b"[" + container * most + b"]")
    with pytest.raises(Damaged, match="more objects"):
        read(b"[" + container * (most + 40) + b"]")


def test_changed_documents_are_read_or_declined_by_c_as_by_python(ubj_bytes):
    with tarfile.open(BOOSTERS) as tar:
        stock = [tar.extractfile(one).read() for one in tar if one.name.endswith(".ubj") and one.size < 30_000]  # type: ignore[union-attr]
    draw = random.Random(6)
    n_read = 0
    for _ in range(N_CHANGED):
        data = bytearray(draw.choice(stock))
        for _ in range(draw.randint(1, 3)):
            at = draw.choice((draw.randrange(len(data)), draw.randrange(400), len(data) - draw.randrange(1, 600)))
            at = max(0, min(at, len(data) - 1))
            piece = draw.choice(PIECES)
            kind = draw.randrange(4)
            if kind == 0:
                data[at] = draw.randrange(256)
            elif kind == 1:
                data[at : at + len(piece)] = piece
            elif kind == 2:
                data[at:at] = piece
            else:
                del data[at : at + draw.randint(1, 20)]
            data = data or bytearray(b"{")
        with contextlib.suppress(Damaged):
            read(bytes(data))
            n_read += 1
    assert N_CHANGED // 50 < n_read < N_CHANGED - N_CHANGED // 20


def test_the_cursor_stays_in_the_document_whatever_the_reader_of_trees_answers():
    if ubjson is None:
        pytest.skip("there was no C compiler")
    data = b"{" + ubj.key("trees") + b"[#" + length(0) + b"}"
    for end in (-(1 << 62), -1, 0, 5, len(data) + 1, 1 << 62):
        assert ubjson.read(data, ubj._new_typed, lambda *_, end=end: (None, end)) is None
    with pytest.raises(ValueError, match="theirs"):
        ubjson.read(data, ubj._new_typed, lambda *_: _raise(ValueError("theirs")))


def _raise(error: Exception) -> Any:
    raise error
