"""Rows as Parquet or Arrow IPC, read through pyarrow when it is installed.

Rule: a few compressed bytes may claim billions of rows, so the claimed cells are counted before any is decoded, and
again as they come. pyarrow is imported by the first such body and by nothing else: 36 MB and 0.14 s.
"""

from __future__ import annotations

import base64
import io
import math
import struct
from collections.abc import Iterable, Iterator, Set
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from handler.errors import ContentTypeUnsupported, PayloadInvalid
from handler.payload import media
from handler.payload.numbers import finite
from handler.payload.rows import MAX_WORDS, Floats, Rows, Word

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

# MAX_CELLS as float64.
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
        as_words = written_as_words(file.metadata.metadata or {})
        return _table_rows(file.schema_arrow, file.iter_batches(), most_cells(body), as_words)


def written_as_words(metadata: dict[bytes, bytes]) -> frozenset[str]:
    """Columns that were dictionaries when the file was written: of numbers, Parquet itself keeps only the numbers.

    source   Arrow's C++ writer keeps its schema under ARROW:schema; pandas marks a column of categories in its own metadata
    """
    import pyarrow.ipc as ipc
    import pyarrow.types as types

    names: set[str] = set()
    if b"ARROW:schema" in metadata:
        schema = base64.b64decode(metadata[b"ARROW:schema"])
        # As in _read_stream: what is no schema is not given to a reader of schemas.
        if [message.type for message in ipc.MessageReader.open_stream(schema)] == ["schema"]:
            with ipc.open_stream(schema) as reader:
                names.update(field.name for field in reader.schema if types.is_dictionary(field.type))
    if b"pandas" in metadata:
        told = orjson.loads(metadata[b"pandas"])
        columns = told.get("columns") if isinstance(told, dict) else None
        for column in columns if isinstance(columns, list) else ():
            if isinstance(column, dict) and column.get("pandas_type") == "categorical":
                names.add(str(column.get("field_name", column.get("name"))))
    return frozenset(names)


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
        if message.type in {"record batch", "dictionary"}:
            is_dictionary = message.type == "dictionary"
            n_bytes += _unpacked_bytes(message.metadata.to_pybytes(), memoryview(message.body or b""), is_dictionary)
        elif message.type != "schema":
            raise PayloadInvalid("", f"a message of type {message.type}, where rows were expected")
    if n_bytes > MAX_DECODED_BYTES:
        raise PayloadInvalid("", f"{n_bytes} bytes uncompressed, more than {MAX_DECODED_BYTES}")


def _unpacked_bytes(metadata: bytes, body: memoryview, is_dictionary: bool) -> int:
    """What the buffers of a record batch say they become; 0 when they are not compressed.

    source   Arrow columnar format, "Compression": eight bytes before each buffer, -1 for one left as it is;
             Message.fbs: Message.header is field 2, DictionaryBatch.data field 1, RecordBatch.buffers field 2 and
             .compression field 3
    """
    (root,) = _U32.unpack_from(metadata)
    batch = _follow(metadata, root, 2)
    if is_dictionary:
        batch = _follow(metadata, batch, 1)
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


def _table_rows(
    schema: pa.Schema, batches: Iterable[pa.RecordBatch], most: int, as_words: Set[str] = frozenset()
) -> Rows:
    """The batches' numbers, null as missing; of columns of words, numbers of our own and what each stands for.

    most      cells, at most
    as_words  names of columns whose numbers are words
    raises    PayloadInvalid for a column of neither, for no rows, or for more than `most` cells
    """
    n_columns = len(schema)
    words: dict[int, dict[Word, int]] = {at: {} for at, field in enumerate(schema) if _holds_words(field, as_words)}
    blocks: list[Floats] = []
    n_rows = 0
    for batch in batches:
        n_rows += batch.num_rows
        _bound(n_rows, n_columns, most)
        batch.validate()  # a column's claimed length against its buffers: IPC readers trust both
        blocks.append(_block(batch, words))
    if not n_rows or not n_columns:
        raise PayloadInvalid("", "the body holds no rows")
    told = tuple((at, tuple(seen)) for at, seen in words.items())
    return Rows(finite(np.concatenate(blocks)), tuple(schema.names), told)


def _bound(n_rows: int, n_columns: int, most: int) -> None:
    if n_rows * max(n_columns, 1) > most:
        raise PayloadInvalid("", f"{n_rows} rows of {n_columns} columns, more than {most} cells")


def _holds_words(field: pa.Field, as_words: Set[str]) -> bool:
    """Whether a column holds words: a dictionary, as a DataFrame's categories travel, or text. Raises PayloadInvalid."""
    import pyarrow.types as types

    kind = field.type
    is_words: bool = types.is_dictionary(kind)
    if is_words:
        kind = kind.value_type
    is_text: bool = types.is_string(kind) or types.is_large_string(kind)
    is_number: bool = types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind) or types.is_null(kind)
    if not is_number and not is_text:
        raise PayloadInvalid(f"column {field.name!r}", f"type {kind} is neither a number nor text")
    return is_words or is_text or field.name in as_words


def _block(batch: pa.RecordBatch, words: dict[int, dict[Word, int]]) -> Floats:
    block = np.empty((batch.num_rows, batch.num_columns), dtype=np.float32)
    with np.errstate(
        over="ignore", invalid="ignore"
    ):  # a float64 beyond float32 becomes infinite, and is found by that
        for at, column in enumerate(batch.columns):
            if at in words:
                block[:, at] = _numbered(column, words[at], f"column {batch.schema.names[at]!r}")
            else:
                block[:, at] = column.cast("float64").to_numpy(zero_copy_only=False)
    return block


def _numbered(column: pa.Array, seen: dict[Word, int], where: str) -> Floats:
    """A number for each word, NaN for none. A batch may have a dictionary of its own; `seen` is that of the whole body."""
    import pyarrow.types as types

    column.validate(full=True)  # that its indices lie within its dictionary
    encoded = column if types.is_dictionary(column.type) else column.dictionary_encode()
    if len(encoded.dictionary) > MAX_WORDS:
        raise PayloadInvalid(where, f"{len(encoded.dictionary)} different words, more than {MAX_WORDS}")
    numbers = [
        math.nan if word is None or word != word else seen.setdefault(word, len(seen))
        for word in encoded.dictionary.to_pylist()
    ]
    if len(seen) > MAX_WORDS:
        raise PayloadInvalid(where, f"more than {MAX_WORDS} different words")
    indices = encoded.indices.cast("int64").fill_null(len(numbers)).to_numpy(zero_copy_only=False)
    found: Floats = np.array([*numbers, math.nan], np.float32)[indices]
    return found
