"""UBJSON as XGBoost writes it: read into Python values, and the few pieces needed to write it.

Rule: a typed array stays the bytes it came as, so a model of ten thousand nodes costs a slice per array, not a Python
object per number. Lengths are believed only after they have been compared with what is left of the file.

Source: XGBoost src/common/json.cc (UBJReader, UBJWriter). XGBoost reads 64-bit lengths only, and so do we.
"""

from __future__ import annotations

import struct
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from handler.compiled import ubjson
from handler.importer import trees
from handler.importer.broken import Damaged

MAX_DEPTH = 24  # a serialized dart model is 9 deep
DTYPES: dict[int, np.dtype[Any]] = {
    0x64: np.dtype(">f4"),  # d
    0x44: np.dtype(">f8"),  # D
    0x69: np.dtype("i1"),  # i
    0x55: np.dtype("u1"),  # U
    0x49: np.dtype(">i2"),  # I
    0x6C: np.dtype(">i4"),  # l
    0x4C: np.dtype(">i8"),  # L
}
_SEVERAL = 8  # values in a row that are looked at together
_TREES_DEPTH = 3  # a list of trees, a tree, its parameters
_TOO_MANY = "UBJSON has more objects and arrays than a booster of its size"
_ITEM_BYTES = {code: dtype.itemsize for code, dtype in DTYPES.items()}
_SCALARS = {
    code: struct.Struct(fmt) for code, fmt in ((0x64, ">f"), (0x44, ">d"), (0x49, ">h"), (0x6C, ">i"), (0x4C, ">q"))
}
_length = struct.Struct(">q").unpack_from


class Typed(NamedTuple):
    """A typed array as it stands in the file: `code` is a key of DTYPES, `raw` the big-endian items."""

    code: int
    raw: bytes

    def values(self) -> np.ndarray[Any, Any]:
        return np.frombuffer(self.raw, DTYPES[self.code])


_new_typed = partial(tuple.__new__, Typed)  # Typed(...) by itself costs three times as much


def read(data: bytes) -> Any:
    """The value in `data`: dict, list, str, int, float, bool, None; Typed for numbers of one type, TreeColumns for a list
    of ordinary trees.

    raises   Damaged where the bytes do not follow the format, nest too deep, repeat a key or go on behind the value
    """
    if ubjson is not None and type(data) is bytes:
        # In C, where it was compiled: the same values, or None, and then Python finds out why.
        found = ubjson.read(data, _new_typed, trees.read)
        if found is not None:
            return found
    return _read(data)


def _read(data: bytes) -> Any:
    reader = _Reader(data)
    try:
        value = reader.value(0)
    except (IndexError, struct.error) as error:
        raise Damaged(f"UBJSON ends in the middle of a value, after {len(data)} bytes") from error
    except UnicodeDecodeError as error:
        raise Damaged("UBJSON holds a string that is not UTF-8") from error
    if reader.at != len(data):
        raise Damaged(f"{len(data) - reader.at} bytes follow the end of the UBJSON document")
    return value


class _Reader:
    __slots__ = ("at", "containers_left", "data", "keys")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0
        self.keys: dict[bytes, str] = {}
        # "{}" costs two bytes here and 64 as a dict; a real file has an object per several hundred bytes.
        self.containers_left = 1000 + len(data) // 32

    def value(self, depth: int) -> Any:
        data, at = self.data, self.at
        marker = data[at]
        self.at = at + 1
        if marker == 0x7B:  # {
            return self.mapping(depth + 1)
        if marker == 0x5B:  # [
            return self.array(depth + 1)
        if marker == 0x53:  # S
            return self.text()
        if marker == 0x69:  # i
            self.at = at + 2
            byte = data[at + 1]
            return byte - 256 if byte > 127 else byte
        if marker in _SCALARS:
            scalar = _SCALARS[marker]
            self.at = at + 1 + scalar.size
            return scalar.unpack_from(data, at + 1)[0]
        if marker in (0x55, 0x43):  # U, C
            self.at = at + 2
            return data[at + 1]
        if marker == 0x5A:  # Z
            return None
        if marker in (0x54, 0x46):  # T, F
            return marker == 0x54
        raise Damaged(f"byte {at} of the UBJSON is {marker:#04x}, which begins no value")

    def text(self) -> str:
        data, at = self.data, self.at
        size = self.length()
        end = at + 9 + size
        self.at = end
        return data[at + 9 : end].decode()

    def length(self) -> int:
        """The 64-bit length at the cursor, which stays where it is; never more than the bytes that are left."""
        data, at = self.data, self.at
        if data[at] != 0x4C:
            raise Damaged(f"byte {at} of the UBJSON is {data[at]:#04x} where a 64-bit length must be")
        size: int = _length(data, at + 1)[0]
        if not 0 <= size <= len(data) - at - 9:
            raise Damaged(f"UBJSON claims {size} at byte {at}, with {len(data) - at - 9} bytes left")
        return size

    def enter(self, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise Damaged(f"UBJSON nests deeper than {MAX_DEPTH} levels")
        self.containers_left -= 1
        if self.containers_left < 0:
            raise Damaged(_TOO_MANY)

    def mapping(self, depth: int) -> dict[str, Any]:
        self.enter(depth)
        data, keys = self.data, self.keys
        size_of, new_tuple = len(data), tuple.__new__  # Typed(...) by itself costs three times as much
        found: dict[str, Any] = {}
        at = self.at
        while True:
            marker = data[at]
            if marker == 0x7D:  # }
                self.at = at + 1
                return found
            # The rest of this loop is `length`, `text` and the typed case of `array` written out: it runs for each of
            # the twenty fields of every tree, and calls are what reading a document costs.
            if marker != 0x4C:
                raise Damaged(f"byte {at} of the UBJSON is {marker:#04x} where a key must begin")
            start = at + 9
            at = start + _length(data, at + 1)[0]
            if not start <= at < size_of:
                raise Damaged(f"UBJSON claims a key of {at - start} bytes at byte {start}, with {size_of - start} left")
            raw = data[start:at]
            key = keys.get(raw)
            if key is None:
                key = keys[raw] = raw.decode()
            if key in found:
                raise Damaged(f"UBJSON has the key {key!r} twice in one object")
            marker = data[at]
            if marker == 0x5B and data[at + 1] == 0x24:  # [$
                code = data[at + 2]
                if code not in _ITEM_BYTES or data[at + 3 : at + 5] != b"#L":
                    raise Damaged(f"typed array at byte {at} of the UBJSON has no type or length XGBoost writes")
                start = at + 13
                n_items: int = _length(data, at + 5)[0]
                at = start + n_items * _ITEM_BYTES[code]
                if not start <= at <= size_of:
                    raise Damaged(f"UBJSON claims {n_items} items at byte {start}, with {size_of - start} bytes left")
                found[key] = new_tuple(Typed, (code, data[start:at]))
            elif marker == 0x53:  # S
                if data[at + 1] != 0x4C:
                    raise Damaged(f"byte {at + 1} of the UBJSON is no 64-bit length")
                start = at + 10
                at = start + _length(data, at + 2)[0]
                if not start <= at <= size_of:
                    raise Damaged(f"UBJSON claims a string of {at - start} bytes, with {size_of - start} left")
                found[key] = data[start:at].decode()
            else:
                self.at = at
                columns = self.trees(depth) if key == "trees" else None
                found[key] = self.value(depth) if columns is None else columns
                at = self.at

    def trees(self, depth: int) -> trees.TreeColumns | None:
        """The trees at the cursor, if all of them are ordinary; else the cursor stays where it is."""
        data, at = self.data, self.at
        if data[at : at + 2] != b"[#" or depth + _TREES_DEPTH > MAX_DEPTH:
            return None
        self.at = at + 2
        n_trees = self.length()
        read = trees.read(data, at + 11, n_trees)
        if read is None:
            self.at = at
            return None
        columns, self.at = read
        self.containers_left -= 1 + 2 * n_trees  # the list; each tree and its parameters
        if self.containers_left < 0:
            raise Damaged(_TOO_MANY)
        return columns

    def array(self, depth: int) -> Any:
        data = self.data
        if data[self.at] == 0x24:  # $
            at = self.at
            code = data[at + 1]
            if code not in _ITEM_BYTES or data[at + 2] != 0x23:
                raise Damaged(f"typed array at byte {at} of the UBJSON has no type XGBoost writes")
            self.at = at + 3
            n_items = self.length()
            start = at + 12
            end = start + n_items * _ITEM_BYTES[code]
            if end > len(data):
                raise Damaged(f"UBJSON claims {n_items} items at byte {start}, with {len(data) - start} bytes left")
            self.at = end
            return Typed(code, data[start:end])
        self.enter(depth)
        found: list[Any] = []
        if data[self.at] == 0x23:  # "#": a counted array has no closing bracket
            self.at += 1
            n_items = self.length()
            self.at += 9
            numbers = self.numbers(n_items) if n_items >= _SEVERAL else None
            if numbers is not None:
                return numbers
            for _ in range(n_items):
                found.append(self.value(depth))  # noqa: PERF401  a comprehension would hide that the cursor moves
            return found
        while data[self.at] != 0x5D:  # ]
            found.append(self.value(depth))
        self.at += 1
        return found

    def numbers(self, n_items: int) -> Typed | None:
        """The values at the cursor as an array of one type, where each is a number of it behind the same marker; else the
        cursor stays where it is."""
        data, at = self.data, self.at
        code = data[at]
        step = 1 + _ITEM_BYTES.get(code, 0)
        end = at + n_items * step
        if step == 1 or end > len(data) or data[at:end:step] != data[at : at + 1] * n_items:
            return None
        self.at = end
        items = np.frombuffer(data, np.uint8, n_items * step, at).reshape(n_items, step)
        return Typed(code, items[:, 1:].tobytes())


_write_length = struct.Struct(">q").pack


def key(name: str) -> bytes:
    raw = name.encode()
    return b"L" + _write_length(len(raw)) + raw


def text(value: str) -> bytes:
    return b"S" + key(value)


def integer(value: int) -> bytes:
    return b"l" + struct.pack(">i", value) if -(1 << 31) <= value < 1 << 31 else b"L" + _write_length(value)


def typed_head(code: str, n_items: int) -> bytes:
    """What stands before the items of a typed array; `code` is the type's letter."""
    return b"[$" + code.encode() + b"#L" + _write_length(n_items)


def array_head(n_items: int) -> bytes:
    """What stands before the values of a counted array, which has no closing bracket."""
    return b"[#L" + _write_length(n_items)


def mapping(fields: dict[str, bytes]) -> bytes:
    """An object of values that are already written."""
    return b"{" + b"".join(key(name) + value for name, value in fields.items()) + b"}"


def text_mapping(fields: dict[str, str]) -> bytes:
    return mapping({name: text(value) for name, value in fields.items()})
