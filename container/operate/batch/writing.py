"""Parts written from tables: Parquet, CSV, JSON lines.

Rule: the same tables make the same bytes.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from container.operate.tables.files import FileUnusable

if TYPE_CHECKING:
    import pyarrow as pa


# Of a part's first rows, which say whether a column of text repeats itself.
_LOOKED_AT_ROWS = 4096


class PartWriter:
    """Writes tables of one schema to a file, as one of the formats. The same tables make the same bytes."""

    def __init__(self, path: Path, format: str, schema: pa.Schema) -> None:
        self._format = format
        self._schema = schema
        self._path = path
        self._parquet: Any = None  # once there is a table
        if format != "parquet":
            self._lines = open(path, "wb")  # noqa: SIM115  closed by `close`
            if format == "csv":
                self._csv_header = True

    def write(self, table: pa.Table) -> None:
        if self._format == "parquet":
            if self._parquet is None:
                self._parquet = self._opened(table)
            self._parquet.write_table(_of_schema(table, self._schema))
        elif self._format == "csv":
            self._write_csv(table)
        else:
            self._write_jsonl(table)

    def close(self) -> None:
        """Raises OSError when the disk is full."""
        if self._format == "parquet":
            (self._parquet or self._opened(self._schema.empty_table())).close()
        else:
            if self._format == "csv" and self._csv_header:
                self._write_csv(self._schema.empty_table())
            self._lines.close()

    def _opened(self, first: pa.Table) -> Any:
        """Dictionaries of cells that are all different took half of a run's time to write."""
        import pyarrow.compute as pc
        import pyarrow.parquet as pq
        import pyarrow.types as types

        texts = [field.name for field in self._schema if types.is_string(field.type)]
        heads = {name: first.column(name).slice(0, _LOOKED_AT_ROWS) for name in texts}
        repeated = [name for name, head in heads.items() if 2 * pc.count_distinct(head).as_py() <= len(head)]
        return pq.ParquetWriter(self._path, self._schema, use_dictionary=repeated or False)

    def _write_csv(self, table: pa.Table) -> None:
        import pyarrow as pa
        import pyarrow.csv as csv

        columns = [pa.array(json_texts(column)) if _is_list(column.type) else column for column in table.columns]
        plain = pa.table(columns, names=table.column_names)
        csv.write_csv(plain, self._lines, csv.WriteOptions(include_header=self._csv_header, quoting_style="needed"))
        self._csv_header = False

    def _write_jsonl(self, table: pa.Table) -> None:
        names = [orjson.dumps(name).decode() for name in table.column_names]
        columns = [json_texts(column) for column in table.columns]
        lines = [
            "{" + ",".join(f"{name}:{cell or 'null'}" for name, cell in zip(names, cells, strict=True)) + "}\n"
            for cells in zip(*columns, strict=True)
        ]
        self._lines.write("".join(lines).encode())


def _of_schema(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """As the first table was. JSON lines alone say no type, and may change theirs. Raises FileUnusable."""
    import pyarrow as pa

    if table.schema.equals(schema):
        return table
    try:
        return table.cast(schema)
    except pa.ArrowInvalid as error:
        raise FileUnusable(f"a column to keep changes its type: {error}") from error


def _is_list(kind: Any) -> bool:
    import pyarrow.types as types

    return bool(types.is_list(kind))


def plain(column: Any) -> Any:
    """Values themselves, where they were codes of a dictionary."""
    import pyarrow as pa

    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column


def json_texts(column: Any) -> list[str | None]:
    """Each cell as JSON; None for null. A float32 is the shortest text that reads back as the same float32."""
    import pyarrow as pa

    kind = column.type
    if pa.types.is_list(kind):
        array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
        if isinstance(array, pa.ChunkedArray):
            array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], kind)
        cells = json_texts(array.flatten())
        ends = np.concatenate(([0], np.cumsum(array.value_lengths().fill_null(0).to_numpy(zero_copy_only=False))))
        return [
            None if is_null else "[" + ",".join(cell or "null" for cell in cells[start:end]) + "]"
            for is_null, start, end in zip(array.is_null().to_pylist(), ends[:-1], ends[1:], strict=True)
        ]
    if pa.types.is_floating(kind):
        texts = column.cast(pa.string()).to_pylist()
        return [None if text in (None, "nan", "inf", "-inf") else text for text in texts]
    if pa.types.is_integer(kind):
        whole: list[str | None] = column.cast(pa.string()).to_pylist()
        return whole
    if pa.types.is_boolean(kind):
        return [None if cell is None else "true" if cell else "false" for cell in column.to_pylist()]
    return [None if cell is None else orjson.dumps(cell, default=str).decode() for cell in column.to_pylist()]
