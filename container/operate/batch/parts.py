"""One data file scored: a part beside it, row for row in the same order, and its errors.

Rule: `score_part` is the whole of the work and the same wherever it runs: here, in a job, on another host. It is a function
of the file, the models and what was asked, so the same part has the same bytes however often and wherever it is made.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from container.operate.batch.asked import Asked
from container.operate.batch.layout import Layout
from container.operate.batch.models import RunModels
from container.operate.batch.scoring import Faults, ScoredWindow, groups_of, score_groups
from container.operate.batch.writing import PartWriter, plain
from container.operate.tables.files import DataFile, FileUnusable, on_disk
from container.operate.tables.segments import segments_of
from container.operate.tables.windows import Unread, Window, windows

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(slots=True)
class Counts:
    """What a part came to. missing: rows of segments whose model cannot be had, by target."""

    n_rows: int = 0
    n_errors: int = 0
    targets: set[str] = field(default_factory=set)
    missing: dict[str, int] = field(default_factory=dict)

    def add(self, scored: ScoredWindow) -> None:
        """All but its rows."""
        self.n_errors += scored.faults.n_rows
        self.targets |= scored.targets
        for numbers, target, _ in scored.faults.runs:
            if target in scored.missing and target is not None:
                self.missing[target] = self.missing.get(target, 0) + len(numbers)


def score_part(
    file: DataFile,
    asked: Asked,
    layout: Layout,
    models: RunModels,
    scratch: Path,
    *,
    part: Path,
    errors: Path,
    endpoint_url: str | None,
    on_rows: Callable[[int], None],
) -> Counts:
    """Score a file and write its part and its errors, which are there only if there are any.

    on_rows  told how many rows more are done; what it raises ends the work
    raises   FileUnusable, DoesNotFit
    """
    with on_disk(file, scratch, endpoint_url) as path, Part(file, asked, layout, part, errors) as made:
        for one in windows(path, file, asked):
            if isinstance(one, Unread):
                made.leave_out(one)
                on_rows(1)
                continue
            groups = groups_of(segments_of(one, file, asked, models.met), models, all_fit=True)
            scored = score_groups(one, groups, asked, layout, models.check)
            made.write(one, scored.answers, error_table(file.name, scored.faults))
            made.counts.add(scored)
            on_rows(scored.n_rows)
        made.finish()
    return made.counts


class Part:
    """A part in the making, window by window, and its errors. counts: its rows, and rows in no window, which are errors; the
    rest is for others to count."""

    def __init__(self, file: DataFile, asked: Asked, layout: Layout, part: Path, errors: Path) -> None:
        self.counts = Counts()
        self._file = file
        self._asked = asked
        self._layout = layout
        self._path = part
        self._rows: PartWriter | None = None
        self._refused = ErrorWriter(errors, asked)

    def __enter__(self) -> Part:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if self._rows is not None:
                self._rows.close()
        finally:
            self._refused.close()

    def write(self, window: Window, answers: list[pa.Array], errors: pa.Table) -> None:
        """errors: as `error_table` makes it."""
        table = part_table(window, answers, self._asked, self._layout)
        if self._rows is None:
            self._rows = PartWriter(self._path, self._asked.out_format, table.schema)
        self._rows.write(table)
        self._refused.write(errors)
        self.counts.n_rows += len(table)

    def leave_out(self, one: Unread) -> None:
        """A row that is in no window."""
        faults = Faults()
        faults.add(np.array([one.number]), None, one.why)
        self._refused.write(error_table(self._file.name, faults))
        self.counts.n_rows += 1
        self.counts.n_errors += 1

    def finish(self) -> None:
        """That it is whole. Raises FileUnusable when there is nothing of it."""
        if self._rows is None:
            raise FileUnusable("no row of it can be read")


def part_table(window: Window, answers: list[pa.Array], asked: Asked, layout: Layout) -> pa.Table:
    import pyarrow as pa

    kept = kept_columns(window, asked)
    return pa.table([*kept.columns, *answers], names=[*asked.keep, *(column.name for column in layout)])


def kept_columns(window: Window, asked: Asked) -> pa.Table:
    """Those to carry along. Raises FileUnusable when one is not there."""
    import pyarrow as pa

    missing = [name for name in asked.keep if name not in window.table.column_names]
    if missing:
        raise FileUnusable(f"it has no column {missing[0]!r} to keep")
    return pa.table([plain(window.table.column(name)) for name in asked.keep], names=list(asked.keep))


class ErrorWriter:
    """Rows without an answer, with the reason: file, row, segment, reason."""

    def __init__(self, path: Path, asked: Asked) -> None:
        self._path = path
        self._format = asked.out_format
        self._writer: PartWriter | None = None

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()

    def write(self, table: pa.Table) -> None:
        """table: as `error_table` makes it."""
        if not len(table):
            return
        if self._writer is None:
            self._writer = PartWriter(self._path, self._format, table.schema)
        self._writer.write(table)


def error_table(name: str, faults: Faults) -> pa.Table:
    """In the order of rows."""
    import pyarrow as pa

    numbers = np.concatenate([np.empty(0, np.int64), *(run for run, _, _ in faults.runs)])
    of_run = np.repeat(np.arange(len(faults.runs)), [len(run) for run, _, _ in faults.runs])
    order = np.argsort(numbers, kind="stable")
    taken = pa.array(of_run[order])
    return pa.table(
        {
            "file": pa.array([name], pa.string()).take(pa.array(np.zeros(len(numbers), np.int64))),
            "row": pa.array(numbers[order], pa.int64()),
            "segment": pa.array([target for _, target, _ in faults.runs], pa.string()).take(taken),
            "reason": pa.array([why for _, _, why in faults.runs], pa.string()).take(taken),
        }
    )
