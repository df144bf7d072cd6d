"""A file scored in several passes, where its models do not fit into memory together.

    pass 1   rows whose models are on the models      -> answers-0, errors-0
    pass 2   rows of those that found no room then   -> answers-1, errors-1
    ...
    last     the file once more, for the columns to keep; answers and errors put together -> its part, its errors

Rule: each model is loaded once, whatever the files are, so all files go through one pass before any goes through the next.
A pass costs reading the data again (0.15 CPU s for a million rows); loading models anew for each window cost a hundred times
as much. Nothing is in the ledger before the last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from container.operate.batch.asked import Asked
from container.operate.batch.layout import Layout
from container.operate.batch.models import RunModels
from container.operate.batch.parts import Counts, ErrorWriter, error_table, part_table
from container.operate.batch.scoring import Faults, score_window
from container.operate.batch.writing import PartWriter
from container.operate.tables.files import DataFile, FileUnusable, on_disk
from container.operate.tables.windows import Unread, windows

if TYPE_CHECKING:
    import pyarrow as pa


class FileInPasses:
    """folder: for what passes leave; the caller's to remove."""

    def __init__(
        self, file: DataFile, asked: Asked, layout: Layout, folder: Path, scratch: Path, endpoint_url: str | None
    ) -> None:
        self.file = file
        self._asked = asked
        self._layout = layout
        self._folder = folder
        self._scratch = scratch
        self._endpoint_url = endpoint_url
        self._n_passes = 0
        self.counts = Counts()
        self.seconds = 0.0

    def go_by(self, models: RunModels, check: Callable[[], None]) -> None:
        """One pass. check: called between windows; what it raises ends the work. Raises FileUnusable."""
        import pyarrow as pa

        answers_schema = pa.schema([(column.name, column.type) for column in self._layout])
        errors_schema = error_table(self.file.name, Faults()).schema
        with (
            on_disk(self.file, self._scratch, self._endpoint_url) as path,
            pa.ipc.new_file(self._folder / f"answers-{self._n_passes}", answers_schema) as answers,
            pa.ipc.new_file(self._folder / f"errors-{self._n_passes}", errors_schema) as errors,
        ):
            for window in windows(path, self.file, self._asked):
                if isinstance(window, Unread):
                    continue
                scored = score_window(window, self.file, self._asked, self._layout, models)
                answers.write_batch(pa.record_batch(scored.answers, schema=answers_schema))
                errors.write_batch(_batch(error_table(self.file.name, scored.faults)))
                self.counts.add(scored)
                check()
        self._n_passes += 1

    def finish(self, part: Path, errors: Path, check: Callable[[], None]) -> Counts:
        """Write the part, and the errors if there are any. Raises FileUnusable."""
        import pyarrow as pa

        of_passes = zip(self._left_by("answers"), self._left_by("errors"), strict=True)
        with (
            on_disk(self.file, self._scratch, self._endpoint_url) as path,
            ErrorWriter(errors, self.file, self._asked) as refused,
        ):
            rows: PartWriter | None = None
            try:
                for window in windows(path, self.file, self._asked):
                    if isinstance(window, Unread):
                        faults = Faults()
                        faults.add(np.array([window.number]), None, window.why)
                        refused.write(error_table(self.file.name, faults))
                        self.counts.n_rows += 1
                        self.counts.n_errors += 1
                        continue
                    answers, faulty = next(of_passes)
                    table = part_table(
                        window,
                        [_first_of(columns) for columns in zip(*answers, strict=True)],
                        self._asked,
                        self._layout,
                    )
                    if rows is None:
                        rows = PartWriter(part, self._asked.out_format, table.schema)
                    rows.write(table)
                    refused.write(pa.Table.from_batches(list(faulty)).sort_by("row"))
                    self.counts.n_rows += len(table)
                    check()
                if rows is None:
                    raise FileUnusable("no row of it can be read")
            finally:
                if rows is not None:
                    rows.close()
        return self.counts

    def _left_by(self, what: str) -> Iterator[tuple[pa.RecordBatch, ...]]:
        """What the passes have left, a window at a time."""
        import pyarrow as pa

        readers = [pa.ipc.open_file(self._folder / f"{what}-{number}") for number in range(self._n_passes)]
        for number in range(readers[0].num_record_batches):
            yield tuple(reader.get_batch(number) for reader in readers)


def _first_of(columns: tuple[Any, ...]) -> Any:
    """Each row's answer, which one pass at most has given."""
    import pyarrow.compute as pc

    return columns[0] if len(columns) == 1 else pc.coalesce(*columns)


def _batch(table: pa.Table) -> pa.RecordBatch:
    import pyarrow as pa

    batches = table.combine_chunks().to_batches()
    return batches[0] if batches else pa.RecordBatch.from_pylist([], schema=table.schema)
