"""Tables that come back from the disk as they were put there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from container.operate.tables.spill import MOST_PIECES, Spill

pa = pytest.importorskip("pyarrow")


def tables() -> list[Any]:
    texts = pa.array(["a", None, "", "long enough to lie elsewhere"] * 50)
    lists = pa.array([[1.0, 2.0], None, [], [3.0]] * 50)
    mixed = pa.table({"number": np.arange(200), "text": texts, "list": lists, "bit": np.arange(200) % 3 == 0})
    wide = pa.table({f"c{at}": np.arange(3) + at for at in range(MOST_PIECES)})
    return [mixed, mixed.slice(3, 101), mixed.slice(0, 0), wide, pa.concat_tables([mixed, mixed.slice(7)])]


@pytest.mark.parametrize("most_bytes", [1 << 30, 999])
def test_tables_come_back_as_they_were_however_little_the_kernel_takes_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most_bytes: int
) -> None:
    monkeypatch.setattr(os, "pwritev", lambda file, pieces, at: os.pwrite(file, b"".join(pieces)[:most_bytes], at))
    spill = Spill(tmp_path)
    extents = [spill.put(table) for table in tables()]
    for table, extent in zip(tables(), extents, strict=True):
        assert spill.get(extent).equals(table)
    spill.close()


def test_what_is_written_is_what_arrow_writes_and_the_kernel_takes_it_in_any_number_of_pieces(tmp_path: Path) -> None:
    spill = Spill(tmp_path)
    for table in tables():
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as stream:
            stream.write(table)
        extent = spill.put(table)
        assert os.pread(spill._file.fileno(), extent.n_bytes + 1, extent.at) == sink.getvalue().to_pybytes()
    spill.close()
