"""Data files as windows of Arrow columns: Parquet, CSV, JSON lines.

Rule: a window has rows of one file in the file's order and each row's number in it. A row that cannot be cut into cells is
told with its number and is in no window; cells are not judged here.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import orjson
from numpy.typing import NDArray

from container.operate.tables.files import DataFile, FileUnusable
from container.operate.tables.reading import Reading
from handler.payload.arrow import written_as_words

if TYPE_CHECKING:
    import pyarrow as pa

# Rows of one window. Groups of a segment are the longer the more there are, and a tree is made ready once a group: 10 M rows
# of a thousand segments take 3.0 CPU s in windows of 256 k rows, 2.7 in twice as many. A window takes 120 bytes a row at six
# columns, for each thread.
MAX_WINDOW_ROWS = 1 << 19
MIN_WINDOW_ROWS = 1 << 12
# Rows of Parquet that are asked for at a time: pyarrow holds twice what it handed out last, which of a window were 43 MB.
READ_ROWS = 1 << 17
WINDOW_BYTES = 64 << 20  # of float64 cells
CSV_BLOCK_BYTES = 8 << 20
SNIFFED_BYTES = 256 << 10


@dataclass(frozen=True, slots=True)
class Window:
    """table: the rows. numbers: of each in its file, from one. is_named: its columns have names that somebody gave.
    is_typed: text in it was written as text; in CSV everything is, numbers too. as_words: columns of numbers that were a
    DataFrame's categories when they were written."""

    table: pa.Table
    numbers: NDArray[np.int64]
    is_named: bool
    is_typed: bool = False
    as_words: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Unread:
    """A row that is in no window, and why."""

    number: int
    why: str


def window_rows(n_columns: int, max_bytes: int = WINDOW_BYTES) -> int:
    return min(MAX_WINDOW_ROWS, max(MIN_WINDOW_ROWS, max_bytes // (8 * max(1, n_columns))))


def windows(path: Path, file: DataFile, asked: Reading, max_bytes: int = WINDOW_BYTES) -> Iterator[Window | Unread]:
    """A file's rows, so many bytes of float64 cells at a time. Raises FileUnusable."""
    if file.size == 0:
        raise FileUnusable("it is empty")
    return _READERS[file.format](path, file, asked, max_bytes)


def _parquet(path: Path, file: DataFile, asked: Reading, max_bytes: int) -> Iterator[Window | Unread]:
    del file
    import pyarrow as pa
    import pyarrow.parquet as pq

    with _foreign_errors("Parquet"):
        # Read ahead, a file would be in memory as a whole, however large.
        parquet = pq.ParquetFile(path, memory_map=False, pre_buffer=False)
        schema = parquet.schema_arrow
        if len(set(schema.names)) < len(schema):
            raise ValueError("a column's name is there twice")
        texts = [field.name for field in schema if field.name in asked.fields and pa.types.is_string(field.type)]
        if texts:  # as codes, which they are in the file already
            parquet = pq.ParquetFile(path, memory_map=False, pre_buffer=False, read_dictionary=texts)
            schema = parquet.schema_arrow
        as_words = written_as_words(parquet.metadata.metadata or {})
        n_rows = window_rows(len(schema), max_bytes)
        batches = parquet.iter_batches(batch_size=min(n_rows, READ_ROWS), use_threads=False)
    if not parquet.metadata.num_rows:
        yield Window(schema.empty_table(), np.arange(0), is_named=True, is_typed=True)
    n_before = 0

    def window(table: pa.Table) -> Window:
        nonlocal n_before
        numbers = np.arange(n_before + 1, n_before + len(table) + 1)
        n_before += len(table)
        return Window(table, numbers, is_named=True, is_typed=True, as_words=as_words)

    yield from map(window, _put_together(_guarded(batches, "Parquet"), n_rows))


def _put_together(batches: Iterator[pa.RecordBatch], n_rows: int) -> Iterator[pa.Table]:
    """Tables of n_rows, the last one shorter: readers stop at row groups and blocks, whatever they are asked for. What was
    handed out is held by whoever asked for it alone."""
    held: list[Any] = []
    n_held = 0
    for batch in batches:
        held.append(batch)
        n_held += len(batch)
        del batch
        while n_held >= n_rows:
            n_left = n_held - n_rows
            last = held.pop()
            held.append(last.slice(0, len(last) - n_left))
            left = [last.slice(len(last) - n_left)] if n_left else []
            del last
            yield _taken(held)
            held, n_held = left, n_left
    if n_held:
        yield _taken(held)


def _taken(held: list[Any]) -> pa.Table:
    """Of batches, which are held no longer."""
    import pyarrow as pa

    table = pa.Table.from_batches(held)
    held.clear()
    return table


def _guarded(batches: Any, what: str) -> Iterator[pa.RecordBatch]:
    iterator = iter(batches)
    while True:
        with _foreign_errors(what):
            try:
                read = [next(iterator)]  # in a list, so that it is not held here once it was handed out
            except StopIteration:
                return
        yield read.pop()


@contextmanager
def _foreign_errors(what: str) -> Iterator[None]:
    import pyarrow

    try:
        yield
    except (pyarrow.ArrowException, OSError, ValueError, NotImplementedError, EOFError) as error:
        raise FileUnusable(f"not {what}: {str(error).partition(chr(10))[0]}") from error


def _csv(path: Path, file: DataFile, asked: Reading, max_bytes: int) -> Iterator[Window | Unread]:
    """Numbers are read as numbers as far as the file lets us, from there on as text, which `columns` makes numbers of: at the
    first cell that is none pyarrow stops, without saying where."""
    with _foreign_errors("CSV"):
        sniffed = _sniff(path, file, asked)
    n_done = 0
    try:
        for window in _csv_windows(path, file, asked, sniffed, max_bytes, is_text=False):
            n_done = int(window.numbers[-1]) if isinstance(window, Window) and len(window.numbers) else n_done
            read = [window]
            del window  # it is whoever asked for it who holds it
            yield read.pop()
        return
    except FileUnusable:
        pass
    # Again from the start, past what has been handed out: a fault is rare and reading is a tenth of the work.
    for window in _csv_windows(path, file, asked, sniffed, max_bytes, is_text=True):
        if isinstance(window, Unread):
            if window.number > n_done:
                yield window
        elif not len(window.numbers) or int(window.numbers[-1]) > n_done:
            skipped = int(np.searchsorted(window.numbers, n_done, side="right"))
            read = [replace(window, table=window.table.slice(skipped), numbers=window.numbers[skipped:])]
            del window
            yield read.pop()


@dataclass(frozen=True, slots=True)
class _Sniffed:
    names: tuple[str, ...]
    numeric: tuple[str, ...]
    delimiter: str


def _sniff(path: Path, file: DataFile, asked: Reading) -> _Sniffed:
    """Names, the separator and the columns of numbers, from the file's first lines."""
    import pyarrow as pa
    import pyarrow.csv as csv

    with _opened(path, file) as stream:
        head = stream.read(SNIFFED_BYTES).removeprefix(b"\xef\xbb\xbf")
    is_cut = len(head) >= SNIFFED_BYTES
    if is_cut:
        head = head[: head.rfind(b"\n") + 1] or head
    first = head.partition(b"\n")[0]
    delimiter = next((one for one in (",", ";", "\t") if one.encode() in first), ",")
    table = csv.read_csv(
        io.BytesIO(head),
        _read_options(csv, asked, first, delimiter),
        csv.ParseOptions(delimiter=delimiter, invalid_row_handler=lambda _: "skip"),
        csv.ConvertOptions(**_NULLS),
    )
    if len(set(table.column_names)) < len(table.column_names):
        raise ValueError("a column's name is there twice")
    numeric = [
        field.name
        for field in table.schema
        if field.name not in asked.text_columns
        and (pa.types.is_integer(field.type) or pa.types.is_floating(field.type) or pa.types.is_null(field.type))
    ]
    return _Sniffed(tuple(table.column_names), tuple(numeric), delimiter)


_NULLS: dict[str, Any] = {"null_values": [""], "strings_can_be_null": True, "quoted_strings_can_be_null": True}


def _read_options(csv: Any, asked: Reading, first_line: bytes, delimiter: str) -> Any:
    if asked.has_header:
        return csv.ReadOptions(use_threads=False, block_size=CSV_BLOCK_BYTES)
    n_columns = first_line.count(delimiter.encode()) + 1
    return csv.ReadOptions(
        use_threads=False, block_size=CSV_BLOCK_BYTES, column_names=[str(number) for number in range(n_columns)]
    )


def _csv_windows(
    path: Path, file: DataFile, asked: Reading, sniffed: _Sniffed, max_bytes: int, *, is_text: bool
) -> Iterator[Window | Unread]:
    import pyarrow as pa
    import pyarrow.csv as csv

    unread: list[Unread] = []

    def refuse(row: Any) -> str:
        if not is_text:
            return "error"
        number = row.number - (1 if asked.has_header else 0)
        unread.append(Unread(number, f"the row has {row.actual_columns} cells, the file {row.expected_columns}"))
        return "skip"

    types = {name: pa.string() for name in sniffed.names}
    if not is_text:
        types.update({name: pa.float64() for name in sniffed.numeric})
    options = (
        csv.ReadOptions(
            use_threads=False,
            block_size=CSV_BLOCK_BYTES,
            column_names=list(sniffed.names),
            skip_rows=1 if asked.has_header else 0,
        ),
        csv.ParseOptions(delimiter=sniffed.delimiter, invalid_row_handler=refuse),
        csv.ConvertOptions(column_types=types, **_NULLS),
    )
    n_rows = window_rows(len(sniffed.names), max_bytes)
    with _opened(path, file) as stream:
        with _foreign_errors("CSV"):
            try:
                reader = csv.open_csv(stream, *options)
            except pa.ArrowInvalid:
                if not _is_only_header(path, file, asked):
                    raise
                empty = pa.table({name: pa.array([], kind) for name, kind in types.items()})
                yield Window(empty, np.arange(0), is_named=asked.has_header)
                return
        next_number, n_told = 1, 0
        for table in _put_together(_guarded(reader, "CSV"), n_rows):
            # Rows that were skipped have numbers too. pyarrow parses ahead, so some may lie behind this window.
            numbers = _numbers(next_number, len(table), {one.number for one in unread})
            next_number = int(numbers[-1]) + 1 if len(numbers) else next_number
            while n_told < len(unread) and unread[n_told].number < next_number:
                yield unread[n_told]
                n_told += 1
            read = [Window(table, numbers, is_named=asked.has_header)]
            del table, numbers
            yield read.pop()
        yield from unread[n_told:]


def _numbers(first: int, n_rows: int, skipped: set[int]) -> NDArray[np.int64]:
    later = sorted(number for number in skipped if number >= first)
    if not later or later[0] >= first + n_rows:
        return np.arange(first, first + n_rows)
    numbers = np.arange(first, first + n_rows + len(later))
    return numbers[~np.isin(numbers, later)][:n_rows]


def _is_only_header(path: Path, file: DataFile, asked: Reading) -> bool:
    with _opened(path, file) as stream:
        return asked.has_header and len(stream.read(SNIFFED_BYTES).strip().splitlines()) == 1


@contextmanager
def _opened(path: Path, file: DataFile) -> Iterator[BinaryIO]:
    import gzip

    with open(path, "rb") as stream:
        if file.name.lower().endswith(".gz"):
            with gzip.open(stream) as unpacked:
                yield unpacked  # type: ignore[misc]
        else:
            yield stream


def _jsonl(path: Path, file: DataFile, asked: Reading, max_bytes: int) -> Iterator[Window | Unread]:
    """Columns are those of the first row; what a later row does not have is missing there."""
    number = 0
    names: tuple[str, ...] = ()
    with _opened(path, file) as lines, _foreign_errors("JSON lines"):
        while taken := list(itertools.islice(lines, window_rows(len(names) or 16, max_bytes))):
            rows: list[dict[str, Any]] = []
            numbers: list[int] = []
            for line in taken:
                number += 1
                if not line.strip():
                    continue
                try:
                    row = orjson.loads(line)
                except orjson.JSONDecodeError as error:
                    yield Unread(number, f"not JSON: {error}")
                    continue
                if not isinstance(row, dict):
                    yield Unread(number, "not a JSON object")
                    continue
                names = names or tuple(row)
                rows.append(row)
                numbers.append(number)
            if rows:
                read = [Window(_table_of(rows, names, asked), np.array(numbers, np.int64), is_named=True)]
                del rows, numbers, taken  # ten times the window
                yield read.pop()


def _table_of(rows: list[dict[str, Any]], names: tuple[str, ...], asked: Reading) -> pa.Table:
    import pyarrow as pa

    return pa.table(
        {name: _column_of([row.get(name) for row in rows], is_feature=name not in asked.text_columns) for name in names}
    )


def _column_of(cells: list[Any], *, is_feature: bool) -> pa.Array:
    """Numbers where all are, else text, from which `columns` reads what numbers there are. Strings keep their quotes
    there, so that "1" is none."""
    import pyarrow as pa

    kinds = {type(cell) for cell in cells} - {type(None)}
    if kinds in ({int, float}, {float}) or (is_feature and bool in kinds and kinds <= {int, float, bool}):
        return pa.array([None if cell is None else float(cell) for cell in cells], pa.float64())
    if kinds == {str} and is_feature:  # words, as a category has them
        return pa.array(cells, pa.string()).dictionary_encode()
    if kinds in ({int}, set()) or (kinds in ({bool}, {str}) and not is_feature):
        try:
            return pa.array(cells, None if kinds else pa.float64())
        except (OverflowError, pa.ArrowInvalid):  # an integer beyond 64 bits
            return pa.array([None if cell is None else float(cell) for cell in cells], pa.float64())
    texts = [
        cell if cell is None or (isinstance(cell, str) and not is_feature) else orjson.dumps(cell).decode()
        for cell in cells
    ]
    return pa.array(texts, pa.string())


_READERS = {"parquet": _parquet, "csv": _csv, "jsonl": _jsonl}
