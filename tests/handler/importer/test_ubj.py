from __future__ import annotations

import contextlib
import struct
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handler.importer import ubj
from handler.importer.broken import Damaged


def length(n: int) -> bytes:
    return b"L" + struct.pack(">q", n)


def test_scalars_and_containers_are_read():
    data = b"{" + ubj.key("a") + b"[#" + length(4) + b"i\xff" + b"TFZ" + ubj.key("b") + b"[I\x01\x02U\xc8]" + b"}"
    assert ubj.read(data) == {"a": [-1, True, False, None], "b": [258, 200]}


def test_a_typed_array_is_a_slice_of_the_file():
    value = ubj.read(b"[$l#" + length(2) + struct.pack(">ii", 7, -1))
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
    together = ubj.read(b"[#" + length(len(items) + has_another) + values)
    one_by_one = ubj.read(b"[" + values + b"]")
    if has_another or len(items) < ubj._SEVERAL:
        assert repr(together) == repr(one_by_one)
    else:
        assert repr(together.values().tolist()) == repr(one_by_one)
    for cut in range(1, form.size + 1 + has_another):
        with pytest.raises(Damaged):
            ubj.read(b"[#" + length(len(items) + has_another) + values[:-cut])


@pytest.mark.parametrize("claim", [1 << 60, 1 << 62, -1, -(1 << 63), 1 << 31, 3])
@pytest.mark.parametrize("head", [b"[$l#", b"[$D#", b"[#", b"{", b"S"])
def test_a_claim_of_more_than_is_there_is_damage_at_once(head, claim):
    begun = time.perf_counter()
    for data in (head + length(claim) + b"\0\0", b"{" + ubj.key("k") + head + length(claim) + b"\0\0"):
        with pytest.raises(Damaged):
            ubj.read(data)
    assert time.perf_counter() - begun < 30


@pytest.mark.parametrize("opening", [b"[", b"[#" + length(1), b"{" + ubj.key("")])
def test_a_million_levels_are_refused_not_recursed_into(opening):
    with pytest.raises(Damaged, match="deeper"):
        ubj.read(opening * 1_000_000)


def test_millions_of_empty_objects_are_refused_before_they_fill_memory():
    with pytest.raises(Damaged, match="more objects"):
        ubj.read(b"[" + b"{}" * 3_000_000 + b"]")


@pytest.mark.parametrize("code", [b"Z", b"T", b"N", b"S", b"[", b"{", b"C"])
def test_typed_arrays_of_other_types_are_refused(code):
    with pytest.raises(Damaged):
        ubj.read(b"[$" + code + b"#" + length(1 << 50))


def test_a_key_given_twice_is_refused():
    with pytest.raises(Damaged, match="twice"):
        ubj.read(b"{" + ubj.key("a") + b"T" + ubj.key("a") + b"F}")


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_value_or_damage(data):
    with contextlib.suppress(Damaged):
        ubj.read(data)


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_a_changed_document_is_a_value_or_damage(ubj_bytes, data):
    changed = bytearray(ubj_bytes)
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(Damaged):
        ubj.read(bytes(changed))
