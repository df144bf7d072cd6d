"""Rows as Parquet or Arrow IPC, read through pyarrow when it is installed.

Rule: a few compressed bytes may claim billions of rows, so the claimed cells are counted before any is decoded, and
again as they come. pyarrow is imported by the first such body and by nothing else: it costs 40 MB and 0.2 s.
"""

from __future__ import annotations

import io
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

# Cells of one body. 4 bytes each as float32; a 25 MB body of incompressible float32 has 6.5 million.
MAX_CELLS = 32_000_000

# The same as float64.
MAX_DECODED_BYTES = 8 * MAX_CELLS


def read_parquet(body: bytes, n_features: int) -> Rows:  # noqa: ARG001 - every reader is called alike
    """The rows of a Parquet file; column names travel with them. raises: see `_table_rows`."""
    _import_pyarrow(media.PARQUET)
    import pyarrow.parquet as pq

    with _foreign_errors("Parquet"):
        file = pq.ParquetFile(io.BytesIO(body))
        _bound(file.metadata.num_rows, file.metadata.num_columns)
        n_bytes = sum(file.metadata.row_group(at).total_byte_size for at in range(file.metadata.num_row_groups))
        if n_bytes > MAX_DECODED_BYTES:
            raise PayloadInvalid("", f"{n_bytes} bytes uncompressed, more than {MAX_DECODED_BYTES}")
        return _table_rows(file.schema_arrow, file.iter_batches())


def read_arrow_stream(body: bytes, n_features: int) -> Rows:  # noqa: ARG001 - every reader is called alike
    """The rows of an Arrow IPC stream; column names travel with them. raises: see `_table_rows`."""
    pyarrow = _import_pyarrow(media.ARROW_STREAM)
    with _foreign_errors("an Arrow stream"), pyarrow.ipc.open_stream(body) as stream:
        return _table_rows(stream.schema, stream)


def read_arrow_file(body: bytes, n_features: int) -> Rows:  # noqa: ARG001 - every reader is called alike
    """The rows of an Arrow IPC file (Feather 2); column names travel with them. raises: see `_table_rows`."""
    pyarrow = _import_pyarrow(media.ARROW_FILE)
    with _foreign_errors("an Arrow file"), pyarrow.ipc.open_file(body) as file:
        batches = (file.get_batch(at) for at in range(file.num_record_batches))
        return _table_rows(file.schema, batches)


def _import_pyarrow(media_type: str) -> Any:
    try:
        import pyarrow
        import pyarrow.ipc
    except ImportError as error:
        others = (*media.ACCEPTED, media.LIBSVM)
        raise ContentTypeUnsupported(f"{media_type} (pyarrow is not installed here)", others) from error
    return pyarrow


@contextmanager
def _foreign_errors(what: str) -> Iterator[None]:
    import pyarrow

    try:
        yield
    except (pyarrow.ArrowException, OSError, ValueError, NotImplementedError) as error:
        first_line = str(error).partition("\n")[0]
        raise PayloadInvalid("", f"not {what}: {first_line}") from error


def _table_rows(schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> Rows:
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
        _bound(n_rows, n_columns)
        batch.validate()  # a column's claimed length against its buffers: IPC readers trust both
        blocks.append(_block(batch))
    if not n_rows or not n_columns:
        raise PayloadInvalid("", "the body holds no rows")
    return Rows(finite(np.concatenate(blocks)), tuple(schema.names))


def _bound(n_rows: int, n_columns: int) -> None:
    if n_rows * max(n_columns, 1) > MAX_CELLS:
        raise PayloadInvalid("", f"{n_rows} rows of {n_columns} columns, more than {MAX_CELLS} cells")


def _check_type(field: pa.Field) -> None:
    import pyarrow.types as types

    kind = field.type
    if not (types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind) or types.is_null(kind)):
        raise PayloadInvalid(f"column {field.name!r}", f"type {kind} is not a number")


def _block(batch: pa.RecordBatch) -> Floats:
    block = np.empty((batch.num_rows, batch.num_columns), dtype=np.float32)
    with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinite, and is found by that
        for at, column in enumerate(batch.columns):
            block[:, at] = column.cast("float64").to_numpy(zero_copy_only=False)
    return block
