"""Parts as files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from container.operate.batch.writing import PartWriter

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


def test_only_text_that_repeats_itself_has_a_dictionary(tmp_path: Path) -> None:
    numbers = np.arange(100)
    table = pa.table({"city": numbers.astype(str).repeat(2)[:100], "id": numbers.astype(str), "score": numbers % 2})
    for name in ("a", "b"):
        writer = PartWriter(tmp_path / name, "parquet", table.schema)
        writer.write(table)
        writer.write(table.slice(7))
        writer.close()
    columns = pq.read_metadata(tmp_path / "a").row_group(0)
    assert [columns.column(at).has_dictionary_page for at in range(3)] == [True, False, False]
    assert pq.read_table(tmp_path / "a").equals(pa.concat_tables([table, table.slice(7)]))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("format", ["parquet", "csv", "jsonl"])
def test_a_part_without_rows_is_a_file_all_the_same(tmp_path: Path, format: str) -> None:
    table = pa.table({"id": pa.array([], pa.string()), "score": pa.array([], pa.float32())})
    for tables in ([], [table]):
        writer = PartWriter(tmp_path / "part", format, table.schema)
        for one in tables:
            writer.write(one)
        writer.close()
        if format == "parquet":
            assert pq.read_table(tmp_path / "part").equals(table)
        else:
            assert (tmp_path / "part").read_bytes() == (b'"id","score"\n' if format == "csv" else b"")
