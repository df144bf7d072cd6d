"""Rows as Parquet or Arrow IPC, read through pyarrow when it is installed.

Rule: a few compressed bytes may claim billions of rows, so the claimed cells are counted before any is decoded, and
again as they come. pyarrow is imported by the first such body and by nothing else: 36 MB and 0.14 s.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from handler.errors import ContentTypeUnsupported, PayloadInvalid
from handler.payload import media
from handler.payload.numbers import finite
from handler.payload.rows import Floats, Rows

if TYPE_CHECKING:
    import pyarrow as pa

_FILE_MAGIC = b"ARROW1\0\0"
_U16, _I32, _U32, _I64 = (struct.Struct(code) for code in ("<H", "<i", "<I", "<q"))
_BUFFER = struct.Struct("<qq")  # offset in the message's body, length

# Cells of one body. 4 bytes each as float32; a 25 MB body of incompressible float32 has 6.5 million.
MAX_CELLS = 32_000_000

# A column that says the same over and over takes next to nothing, so that 100 KB could become gigabytes: so many for each
# byte of the body, and some for nothing. Numbers that differ take a byte or more.
CELLS_PER_BYTE, CELLS_AT_LEAST = 10, 250_000

# The same as float64.
MAX_DECODED_BYTES = 8 * MAX_CELLS


def most_cells(body: bytes) -> int:
    return min(MAX_CELLS, CELLS_AT_LEAST + CELLS_PER_BYTE * len(body))


def read_parquet(body: bytes, n_features: int) -> Rows:  # noqa: ARG001 - every reader is called alike
    """The rows of a Parquet file; column names travel with them. raises: see `_table_rows`."""
    _import_pyarrow(media.PARQUET)
    import pyarrow.parquet as pq

    with _foreign_errors("Parquet"):
        file = pq.ParquetFile(io.BytesIO(body))
        _bound(file.metadata.num_rows, file.metadata.num_columns, most_cells(body))
        n_bytes = sum(file.metadata.row_group(at).total_byte_size for at in range(file.metadata.num_row_groups))
        if n_bytes > MAX_DECODED_BYTES:
            raise PayloadInvalid("", f"{n_bytes} bytes uncompressed, more than {MAX_DECODED_BYTES}")
        return _table_rows(file.schema_arrow, file.iter_batches(), most_cells(body))


def read_arrow_stream(body: bytes, n_features: int) -> Rows:  # noqa: ARG001 - every reader is called alike
    """The rows of an Arrow IPC stream; column names travel with them. raises: see `_table_rows`."""
    _import_pyarrow(media.ARROW_STREAM)
    return _read_stream(body, "an Arrow stream")


def read_arrow_file(body: bytes, n_features: int) -> Rows:  # noqa: ARG001 - every reader is called alike
    """The rows of an Arrow IPC file (Feather 2); column names travel with them. raises: see `_table_rows`.

    A file is a stream between a magic string and an index. The index is not read: it is one thing less to distrust.
    """
    _import_pyarrow(media.ARROW_FILE)
    if not body.startswith(_FILE_MAGIC):
        raise PayloadInvalid("", "not an Arrow file: no magic string")
    return _read_stream(body[len(_FILE_MAGIC) :], "an Arrow file")


def _read_stream(stream: bytes, what: str) -> Rows:
    import pyarrow.ipc as ipc

    with _foreign_errors(what):
        _weigh(ipc.MessageReader.open_stream(stream))
        # Not message by message: read_schema() of a message that is no schema crashes the process.
        with ipc.open_stream(stream) as reader:
            return _table_rows(reader.schema, reader, most_cells(stream))


def _weigh(messages: Iterable[Any]) -> None:
    """Refuse a stream that would unpack to more than MAX_DECODED_BYTES."""
    n_bytes = 0
    for message in messages:
        if message.type == "record batch":
            n_bytes += _unpacked_bytes(message.metadata.to_pybytes(), memoryview(message.body or b""))
        elif message.type != "schema":
            raise PayloadInvalid("", f"a message of type {message.type}, where rows were expected")
    if n_bytes > MAX_DECODED_BYTES:
        raise PayloadInvalid("", f"{n_bytes} bytes uncompressed, more than {MAX_DECODED_BYTES}")


def _unpacked_bytes(metadata: bytes, body: memoryview) -> int:
    """What the buffers of a record batch say they become; 0 when they are not compressed.

    source   Arrow columnar format, "Compression": eight bytes before each buffer, -1 for one left as it is;
             Message.fbs: Message.header is field 2, RecordBatch.buffers field 2 and .compression field 3
    """
    (root,) = _U32.unpack_from(metadata)
    batch = _follow(metadata, root, 2)
    if not _slot(metadata, batch, 3):
        return 0
    buffers = _follow(metadata, batch, 2)
    (count,) = _U32.unpack_from(metadata, buffers)
    n_bytes = 0
    for at in range(count):
        offset, length = _BUFFER.unpack_from(metadata, buffers + 4 + at * _BUFFER.size)
        if length >= _I64.size:
            (unpacked,) = _I64.unpack_from(body, offset)
            n_bytes += max(unpacked, 0)
    return n_bytes


def _slot(metadata: bytes, table: int, field: int) -> int:
    """Where in a flatbuffer's table a field is, from the table's start; 0 when it is left out."""
    (back,) = _I32.unpack_from(metadata, table)
    (n_bytes,) = _U16.unpack_from(metadata, table - back)
    at = 4 + 2 * field
    return int(_U16.unpack_from(metadata, table - back + at)[0]) if at < n_bytes else 0


def _follow(metadata: bytes, table: int, field: int) -> int:
    """Where the table or vector is that a field points to."""
    at = table + _slot(metadata, table, field)
    return at + int(_U32.unpack_from(metadata, at)[0])


def _import_pyarrow(media_type: str) -> None:
    try:
        import pyarrow  # noqa: F401 - to see whether it is there
    except ImportError as error:
        others = (*media.ACCEPTED, media.LIBSVM)
        raise ContentTypeUnsupported(f"{media_type} (pyarrow is not installed here)", others) from error


@contextmanager
def _foreign_errors(what: str) -> Iterator[None]:
    import pyarrow

    try:
        yield
    except (
        pyarrow.ArrowException,
        OSError,
        ValueError,
        NotImplementedError,
        EOFError,
        StopIteration,
        struct.error,
    ) as error:
        first_line = str(error).partition("\n")[0]
        raise PayloadInvalid("", f"not {what}: {first_line}") from error


def _table_rows(schema: pa.Schema, batches: Iterable[pa.RecordBatch], most: int) -> Rows:
    """The batches' numbers, null as missing.

    raises   PayloadInvalid for a column that is no number, for no rows, or for more than MAX_CELLS
    """
    n_columns = len(schema)
    for field in schema:
        _check_type(field)
    blocks: list[Floats] = []
    n_rows = 0
    for batch in batches:
        n_rows += batch.num_rows
        _bound(n_rows, n_columns, most)
        batch.validate()  # a column's claimed length against its buffers: IPC readers trust both
        blocks.append(_block(batch))
    if not n_rows or not n_columns:
        raise PayloadInvalid("", "the body holds no rows")
    return Rows(finite(np.concatenate(blocks)), tuple(schema.names))


def _bound(n_rows: int, n_columns: int, most: int) -> None:
    if n_rows * max(n_columns, 1) > most:
        raise PayloadInvalid("", f"{n_rows} rows of {n_columns} columns, more than {most} cells")


def _check_type(field: pa.Field) -> None:
    import pyarrow.types as types

    kind = field.type
    if not (types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind) or types.is_null(kind)):
        raise PayloadInvalid(f"column {field.name!r}", f"type {kind} is not a number")


def _block(batch: pa.RecordBatch) -> Floats:
    block = np.empty((batch.num_rows, batch.num_columns), dtype=np.float32)
    with np.errstate(
        over="ignore", invalid="ignore"
    ):  # a float64 beyond float32 becomes infinite, and is found by that
        for at, column in enumerate(batch.columns):
            block[:, at] = column.cast("float64").to_numpy(zero_copy_only=False)
    return block
