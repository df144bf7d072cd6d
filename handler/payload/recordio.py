"""Rows as application/x-recordio-protobuf, read and written.

A body is frames, one row each: a magic number, the length, a protobuf message `Record`, padding to four bytes. Of the
message only `features["values"]` is read (a dense or sparse tensor), and `label` is written, as AWS's image does.

    Record         features = 1, label = 2: map<string, Value>; the rest is not ours
    Value          float32_tensor = 2, float64_tensor = 3, int32_tensor = 7
    *Tensor        values = 1, keys = 2, shape = 3, packed

Rule: a length is checked against the bytes that are there before anything is made of it, and nothing recurses.
source   SageMaker developer guide, "Common data formats for training" (schema); protobuf.dev, "Encoding"
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handler.errors import FeatureMismatch, PayloadInvalid
from handler.payload.numbers import finite
from handler.payload.rows import Rows, refuse_too_wide, sparse_rows

_MAGIC = 0xCED7230A
_FRAME = struct.Struct("<II")

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FEATURES, _LABEL = 1, 2
_VALUES, _KEYS, _SHAPE = 1, 2, 3
_TENSORS: dict[int, np.dtype[Any]] = {2: np.dtype("<f4"), 3: np.dtype("<f8"), 7: np.dtype("<i4")}

# Records read one by one, 20 us each. Dense rows of floats that differ in nothing else are read all at once, unlimited.
MAX_RECORDS = 250_000

# Fields of one message. A record has five and a tensor three, unless its values are not packed.
MAX_FIELDS = 10_000

# A 64-bit varint has at most this many bytes of seven bits.
_VARINT_BYTES = 10
_64_BITS = (1 << 64) - 1

# Up to here Python reads varints faster than numpy.
FEW_BYTES = 64

_NONE = np.empty(0, np.uint64)


@dataclass(frozen=True, slots=True, eq=False)
class _Tensor:
    """One row's features.

    values   dense: (n_columns,); sparse: as many as keys
    keys     None when dense
    start    where in the body a packed dense float row lies; -1 elsewhere
    shape    empty when nothing was said
    """

    values: NDArray[Any]
    keys: NDArray[np.uint64] | None
    start: int
    shape: NDArray[np.uint64]


def read_recordio(body: bytes, n_features: int, *, may_be_short: bool = False) -> Rows:
    """The rows of a RecordIO-protobuf body, dense or sparse.

    n_features     the model's: the width of a sparse row; what a sparse row leaves out is missing
    may_be_short   the shape of a sparse row may be smaller
    raises         PayloadInvalid naming the record; FeatureMismatch for a sparse row of another width
    """
    alike = _read_alike(body, n_features)
    if alike is not None:
        return Rows(finite(alike, "record {row}, value {column}"))
    tensors = []
    for at, (start, end) in enumerate(_frames(body), 1):
        if at > MAX_RECORDS:
            raise PayloadInvalid("", f"more than {MAX_RECORDS} records; send so many rows as CSV or npy")
        tensor = _read_record(body, start, end, n_features, f"record {at}")
        if tensor.keys is not None:
            _check_shape(tensor.shape, n_features, may_be_short, f"record {at}")
        tensors.append(tensor)
    is_sparse = any(tensor.keys is not None for tensor in tensors)
    n_columns = n_features if is_sparse else len(tensors[0].values)
    for at, tensor in enumerate(tensors, 1):
        if tensor.keys is None and len(tensor.values) != n_columns:
            raise PayloadInvalid(f"record {at}", f"{len(tensor.values)} values, where others have {n_columns}")
    values = sparse_rows(len(tensors), n_columns) if is_sparse else np.empty((len(tensors), n_columns), np.float32)
    with np.errstate(
        over="ignore", invalid="ignore"
    ):  # a float64 beyond float32 becomes infinite, and is found by that
        for row, tensor in zip(values, tensors, strict=True):
            row[slice(None) if tensor.keys is None else tensor.keys] = tensor.values
    return Rows(finite(values, "record {row}, value {column}"))


def _frames(body: bytes) -> Iterator[tuple[int, int]]:
    """Start and end of each message."""
    at, record = 0, 1
    while at < len(body):
        where = f"record {record}"
        if len(body) - at < _FRAME.size:
            raise PayloadInvalid(where, f"{len(body) - at} bytes, too few for a frame")
        magic, length = _FRAME.unpack_from(body, at)
        if magic != _MAGIC:
            raise PayloadInvalid(where, f"not RecordIO: magic number 0x{magic:08x} at byte {at}")
        start = at + _FRAME.size
        # The upper three bits of a length mark a record in several parts, which SageMaker never writes: too long.
        if length > len(body) - start:
            raise PayloadInvalid(where, f"{length} bytes announced, {len(body) - start} there")
        yield start, start + length
        at = start + length + -length % 4
        record += 1


def _read_alike(body: bytes, n_features: int) -> NDArray[np.float32] | None:
    """All rows at once, when every frame has the bytes of the first but for its packed floats; None otherwise."""
    start, end = next(_frames(body))
    first = _read_record(body, start, end, n_features, "record 1")
    n_bytes = end + -(end - start) % 4
    if first.start < 0 or not len(first.values) or len(body) % n_bytes:
        return None
    grid = np.frombuffer(body, np.uint8).reshape(-1, n_bytes)
    values = slice(first.start, first.start + first.values.nbytes)
    # The padding is not compared: it is nothing a reader looks at.
    for frame in (slice(values.start), slice(values.stop, end)):
        if (grid[:, frame] != grid[0, frame]).any():
            return None
    floats = np.ascontiguousarray(grid[:, values]).view(first.values.dtype)
    with np.errstate(over="ignore", invalid="ignore"):  # as above
        return floats.astype(np.float32)


def _read_record(body: bytes, start: int, end: int, n_features: int, where: str) -> _Tensor:
    tensor: tuple[int, int, int] | None = None
    for number, wire, at, stop in _fields(body, start, end, where):
        if number != _FEATURES or wire != _BYTES:
            continue
        name, value = b"", None
        for entry, entry_wire, a, b in _fields(body, at, stop, where):
            if entry_wire == _BYTES and entry == 1:
                name = body[a:b]
            elif entry_wire == _BYTES and entry == 2:
                value = (a, b)
        if name == b"values" and value is not None:
            for kind, kind_wire, a, b in _fields(body, *value, where):
                if kind in _TENSORS and kind_wire == _BYTES:
                    tensor = (kind, a, b)
    if tensor is None:
        raise PayloadInvalid(where, "no tensor of numbers in features['values']")
    return _read_tensor(body, *tensor, n_features, where)


def _read_tensor(body: bytes, kind: int, start: int, end: int, n_features: int, where: str) -> _Tensor:
    dtype = _TENSORS[kind]
    values: list[NDArray[Any]] = []
    keys: list[NDArray[Any]] = []
    shape: list[NDArray[Any]] = []
    dense_at = -1
    for number, wire, at, stop in _fields(body, start, end, where):
        if number == _VALUES and dtype.kind == "f":
            if wire not in {_BYTES, _FIXED32, _FIXED64} or (stop - at) % dtype.itemsize:
                raise PayloadInvalid(where, f"values are not whole numbers of {dtype.itemsize} bytes")
            refuse_too_wide((stop - at) // dtype.itemsize, n_features)
            values.append(np.frombuffer(body, dtype, (stop - at) // dtype.itemsize, at))
            dense_at = at if len(values) == 1 else -1
        elif number in {_VALUES, _KEYS, _SHAPE}:
            if wire not in {_BYTES, _VARINT}:
                raise PayloadInvalid(where, f"field {number} of a tensor has wire type {wire}")
            numbers = _varints(body, at, stop, n_features, where)
            {_VALUES: values, _KEYS: keys, _SHAPE: shape}[number].append(numbers)
    all_values, all_keys, sides = _joined(values), _joined(keys), _joined(shape)
    if dtype.kind == "i":
        all_values = all_values.astype(np.uint64).view(np.int64)  # a negative one travels as 64 bits
    if not len(all_keys) and len(all_values):
        return _Tensor(all_values, None, dense_at, sides)
    if not len(sides) and not len(all_keys):
        raise PayloadInvalid(where, "no values")
    _check_sparse(len(all_values), all_keys, n_features, where)
    return _Tensor(all_values, all_keys, -1, sides)


def _joined(parts: list[NDArray[Any]]) -> NDArray[Any]:
    """A repeated field may come in several pieces; it never does."""
    return parts[0] if len(parts) == 1 else np.concatenate([_NONE, *parts])


def _check_shape(sides: NDArray[np.uint64], n_features: int, may_be_short: bool, where: str) -> None:
    if not len(sides):
        return
    is_width = sides[-1] <= n_features if may_be_short else sides[-1] == n_features
    if not is_width or (sides[:-1] != 1).any():
        raise FeatureMismatch(f"the model has {n_features} features, {where} has shape {sides.tolist()}")


def _check_sparse(n_values: int, keys: NDArray[np.uint64], n_features: int, where: str) -> None:
    if len(keys) != n_values:
        raise PayloadInvalid(where, f"{len(keys)} keys for {n_values} values")
    if len(keys) and keys.max() >= n_features:
        raise FeatureMismatch(f"the model has {n_features} features, {where} has key {keys.max()}, counted from 0")
    if len(set(keys.tolist())) != len(keys):
        raise PayloadInvalid(where, "a key appears twice")


def _fields(body: bytes, start: int, end: int, where: str) -> Iterator[tuple[int, int, int, int]]:
    """Number, wire type, start and end of each field's content in a message."""
    at, n_fields = start, 0
    while at < end:
        n_fields += 1
        if n_fields > MAX_FIELDS:
            raise PayloadInvalid(where, f"a message of more than {MAX_FIELDS} fields")
        tag, at = _varint(body, at, end, where)
        wire = tag & 7
        if wire == _BYTES:
            length, at = _varint(body, at, end, where)
            stop = at + length
        elif wire == _VARINT:
            stop = _varint(body, at, end, where)[1]
        elif wire in {_FIXED32, _FIXED64}:
            stop = at + (4 if wire == _FIXED32 else 8)
        else:
            raise PayloadInvalid(where, f"not a protobuf Record: wire type {wire} at byte {at}")
        if stop > end:
            raise PayloadInvalid(where, f"not a protobuf Record: a field at byte {at} ends beyond its message")
        yield tag >> 3, wire, at, stop
        at = stop


def _varint(body: bytes, at: int, end: int, where: str) -> tuple[int, int]:
    """A number, and where it ends."""
    number = 0
    for place, byte in enumerate(body[at : min(end, at + _VARINT_BYTES)]):
        number |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            return number, at + place + 1
    raise PayloadInvalid(where, f"not a protobuf Record: a number at byte {at} does not end")


def _varints(body: bytes, start: int, end: int, n_features: int, where: str) -> NDArray[np.uint64]:
    """Numbers written one behind the other."""
    if end - start <= FEW_BYTES:
        numbers, at = [], start
        while at < end:
            number, at = _varint(body, at, end, where)
            numbers.append(number & _64_BITS)
        return np.array(numbers, np.uint64)
    data = np.frombuffer(body, np.uint8, end - start, start)
    ends = np.flatnonzero(data < 0x80)
    refuse_too_wide(len(ends), n_features)
    starts = np.concatenate([[0], ends + 1])
    lengths = np.diff(starts)
    if starts[-1] != len(data) or lengths.max() > _VARINT_BYTES:
        raise PayloadInvalid(where, f"not a protobuf Record: a number near byte {start} does not end")
    place = np.arange(len(data)) - np.repeat(starts[:-1], lengths)
    bits = (data & 0x7F).astype(np.uint64) << (7 * place).astype(np.uint64)
    return np.bitwise_or.reduceat(bits, starts[:-1])


def write_recordio(columns: Mapping[str, NDArray[Any]]) -> bytes:
    """One frame per row; each output is a float32 tensor in `label` under its name.

    columns   named outputs, rows along the first axis; a tensor of several axes is written flat
    """
    names = [name.encode() for name in columns]
    tables = [column.reshape(len(column), -1).astype("<f4") for column in columns.values()]
    body = bytearray()
    for rows in zip(*tables, strict=True):
        record = b"".join(_label(name, row.tobytes()) for name, row in zip(names, rows, strict=True))
        body += _FRAME.pack(_MAGIC, len(record)) + record + bytes(-len(record) % 4)
    return bytes(body)


def _label(name: bytes, floats: bytes) -> bytes:
    value = _field(2, _field(_VALUES, floats))  # Value.float32_tensor
    return _field(_LABEL, _field(1, name) + _field(2, value))


def _field(number: int, content: bytes) -> bytes:
    length = len(content)
    prefix = bytearray([number << 3 | _BYTES])
    while length >= 0x80:
        prefix.append(length & 0x7F | 0x80)
        length >>= 7
    prefix.append(length)
    return bytes(prefix) + content
