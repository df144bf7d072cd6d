"""Files scored where their models do not fit into memory together: rows put by on disk by segment, scored bucket by bucket.

    1  a file's windows   -> rows of models that are loaded are scored, where they are not few; the others to buckets of
                             segments whose models fit
                          -> columns to keep
    2  a bucket's rows    -> its models loaded, its rows scored, whichever files they are of
    3  a file's windows   -> columns to keep, and answers in the rows' order -> its part, its errors

Rule: each model is loaded once and each file read once, and memory holds a window's rows for each core beside models, however
many rows there are. Nothing is in the ledger before the last step; what was put by is put by again after a kill.

Tried: the data read again for each set of models that fits, which at 20,000 segments took six times as much.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from container.operate.batch.asked import Asked
from container.operate.batch.buckets import AT_ONCE, Block, Bucket, Buckets
from container.operate.batch.layout import Layout
from container.operate.batch.models import RunModels
from container.operate.batch.parts import Counts, Part, error_table, kept_columns
from container.operate.batch.scoring import Faults, Groups, ScoredWindow, groups_of, score_groups
from container.operate.batch.writing import plain
from container.operate.tables.files import DataFile, FileUnusable, on_disk
from container.operate.tables.segments import Segments, segments_of
from container.operate.tables.spill import Extent, Spill
from container.operate.tables.windows import Unread, Window, window_rows, windows
from handler.forest.groups import in_groups

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class _Kind:
    """What a block's window was, besides its rows. schema: of all its columns; those that tell the segment as text are not in
    the block, which has their codes."""

    schema: pa.Schema
    is_named: bool
    is_typed: bool
    as_words: frozenset[str]


@dataclass(slots=True)
class _WindowPutBy:
    """numbers: of its rows in the file, from `first` on where there are none. met: its segments. answers and errors come
    from everybody who scored some of its rows."""

    n_rows: int
    first: int
    numbers: Extent | None
    kept: Extent | None
    met: Extent
    answers: list[Extent] = field(default_factory=list)
    errors: list[Extent] = field(default_factory=list)


@dataclass(slots=True)
class FilePutBy:
    """at: its place in the run. why_not: it cannot be scored, or not now. counts: what was counted of it so far."""

    file: DataFile
    at: int
    windows: list[_WindowPutBy | Unread] = field(default_factory=list)
    counts: Counts = field(default_factory=Counts)
    seconds: float = 0.0
    why_not: FileUnusable | None = None


class SpilledFiles:
    """Files of a run, in three steps that follow each other; in each, many threads may work.

    models    those that are loaded, which find room for no more
    n_at_once threads that will score buckets
    check     called between windows; what it raises ends the work
    """

    def __init__(
        self,
        asked: Asked,
        layout: Layout,
        models: RunModels,
        scratch: Path,
        endpoint_url: str | None,
        *,
        n_at_once: int,
        check: Callable[[], None],
        on_rows: Callable[[int], None],
    ) -> None:
        self._asked = asked
        self._layout = layout
        self._models = models
        self._scratch = scratch
        self._endpoint_url = endpoint_url
        self._check = check
        self._on_rows = on_rows
        # Buckets that are scored at once share the room. One model at least goes into each.
        self.n_at_once = max(1, min(n_at_once, int(models.budget_bytes // models.largest_guessed_bytes())))
        self._budget_bytes = models.budget_bytes // self.n_at_once
        self._buckets = Buckets(models, self._budget_bytes)
        self._rows = Spill(scratch)
        self._answers = Spill(scratch)
        self._lock = threading.Lock()  # guards what follows, and what is counted of files and left by their windows
        self._kinds: list[_Kind] = []
        self._files: list[FilePutBy] = []
        self._scored: set[str] = set()

    def close(self) -> None:
        self._rows.close()
        self._answers.close()

    @property
    def buckets(self) -> list[Bucket]:
        return self._buckets.buckets

    # -- 1: files ------------------------------------------------------------------------------------------------------

    def file(self, file: DataFile) -> FilePutBy:
        with self._lock:
            self._files.append(FilePutBy(file, len(self._files)))
            return self._files[-1]

    def put_by(self, one: FilePutBy) -> None:
        """Raises FileUnusable."""
        try:
            with on_disk(one.file, self._scratch, self._endpoint_url) as path:
                for window in windows(path, one.file, self._asked):
                    now = None
                    if isinstance(window, Unread):
                        one.windows.append(window)
                    else:
                        now = self._put_window_by(one, window)
                    del window  # 20 MB for each thread, which it needs for the rest
                    if now is not None:
                        self._score_now(one, now)
                    del now
                    self._check()
        except FileUnusable as error:
            one.why_not = error
            raise

    def _put_window_by(self, one: FilePutBy, window: Window) -> _Now | None:
        """What is left of it: rows of models that are loaded."""
        import pyarrow as pa

        segments = segments_of(window, one.file, self._asked, self._models.met)
        of_rows = self._buckets.sorted(segments, window.table.num_columns)
        first = int(window.numbers[0]) if len(window.numbers) else 1
        is_running = bool(len(window.numbers)) and int(window.numbers[-1]) - first + 1 == len(window.numbers)
        kept = kept_columns(window, self._asked)
        at = len(one.windows)
        one.windows.append(
            _WindowPutBy(
                len(window.table),
                first,
                None if is_running else self._answers.put(pa.table({"number": window.numbers})),
                self._answers.put(kept) if self._asked.keep else None,
                self._answers.put(pa.table({"segment": of_rows.met})),
            )
        )
        later = np.flatnonzero(of_rows.buckets != AT_ONCE)
        if len(later):
            self._put_rows_by(one.at, at, window, later, of_rows.buckets[later], of_rows.codes[later])
        now = np.flatnonzero(of_rows.buckets == AT_ONCE)
        if len(window.table) and not len(now):
            return None
        table = window.table if not len(later) else _rows_of(window.table, now)
        of_now = Segments(segments.codes[now], segments.values, segments.template)
        return _Now(replace(window, table=table, numbers=np.arange(len(table))), of_now, at, now.astype(np.int32))

    def _score_now(self, one: FilePutBy, now: _Now) -> None:
        groups = groups_of(now.segments, self._models)
        scored = score_groups(now.window, groups, self._asked, self._layout, self._check)
        self._leave(groups, scored, [_Piece(one, now.at, now.places)])

    def _put_rows_by(
        self,
        file: int,
        at: int,
        window: Window,
        rows: NDArray[np.intp],
        buckets: NDArray[np.int32],
        codes: NDArray[np.uint16],
    ) -> None:
        import pyarrow as pa
        import pyarrow.compute as pc

        kind = self._kind_of(window)
        fields = self._texts_of(self._kinds[kind].schema)
        others = [name for name in window.table.column_names if name not in fields]
        order, ends = in_groups(buckets, len(self.buckets))
        rows = rows[order]
        # One after the other: all of them in one piece would lie in memory once more.
        places = pa.array(rows)
        taken = [pc.take(_whole(plain(window.table.column(name))), places, boundscheck=False) for name in others]
        block = pa.table([rows.astype(np.int32), codes[order], *taken], names=["place", "segment", *others])
        for number, (start, end) in enumerate(pairwise([0, *ends.tolist()])):
            if start < end:
                made = Block(kind, file, at, end - start, self._rows.put(block.slice(start, end - start)))
                with self._lock:
                    self.buckets[number].blocks.append(made)

    def _kind_of(self, window: Window) -> int:
        kind = _Kind(window.table.schema.remove_metadata(), window.is_named, window.is_typed, window.as_words)
        with self._lock:
            if kind not in self._kinds:
                self._kinds.append(kind)
            return self._kinds.index(kind)

    def _texts_of(self, schema: pa.Schema) -> dict[str, int]:
        """Columns that are what the segment was told by, letter for letter: their place in a segment's values."""
        fields = () if self._asked.is_from_path else self._asked.fields
        return {name: at for at, name in enumerate(fields) if _is_text(schema.field(name).type)}

    # -- 2: buckets ----------------------------------------------------------------------------------------------------

    def score(self, bucket: Bucket) -> None:
        """All of its rows. Raises CommandFailed."""
        if bucket.is_loaded:
            bucket.blocks = self._score_with(self._models, bucket)
        while bucket.blocks:
            models = self._models.others(self._budget_bytes)
            try:
                # What guesses were too low for finds no room, and is put by for another turn: the first always finds some.
                left = self._score_with(models, bucket)
            finally:
                models.let_go()
                with self._lock:
                    self._models.n_loads += models.n_loads
            bucket.blocks = left

    def _score_with(self, models: RunModels, bucket: Bucket) -> list[Block]:
        """Those whose models find no room."""
        left: list[Block] = []
        for blocks in self._chunks(bucket.blocks):
            self._check()
            left += self._score_blocks(blocks, bucket, models)
        return left

    def _chunks(self, blocks: Sequence[Block]) -> Iterator[list[Block]]:
        """So many at once as are scored together."""
        chunk: list[Block] = []
        n_rows = 0
        for block in sorted(blocks, key=lambda one: (one.kind, one.file, one.window)):
            n_at_once = window_rows(len(self._kinds[block.kind].schema))
            if chunk and (chunk[0].kind != block.kind or n_rows + block.n_rows > n_at_once):
                yield chunk
                chunk, n_rows = [], 0
            chunk.append(block)
            n_rows += block.n_rows
        if chunk:
            yield chunk

    def _score_blocks(self, blocks: Sequence[Block], bucket: Bucket, models: RunModels) -> list[Block]:
        """Those whose models find no room. What cannot be had just now is a fault of the files that need it alone."""
        blocks = [one for one in blocks if self._files[one.file].why_not is None]
        if not blocks:
            return []
        try:
            return self._score_together(blocks, bucket, models)
        except FileUnusable as error:
            files = dict.fromkeys(one.file for one in blocks)
            if len(files) == 1:
                self._files[blocks[0].file].why_not = error
                return []
        left: list[Block] = []
        for file in files:
            left += self._score_blocks([one for one in blocks if one.file == file], bucket, models)
        return left

    def _score_together(self, blocks: Sequence[Block], bucket: Bucket, models: RunModels) -> list[Block]:
        import pyarrow as pa

        began = time.perf_counter()
        table = pa.concat_tables([self._rows.get(one.extent) for one in blocks])
        kind = self._kinds[blocks[0].kind]
        codes = table.column(1).to_numpy().astype(np.int32)
        columns = self._as_it_was(table, kind, codes, bucket)
        window = Window(columns, np.arange(len(columns)), kind.is_named, kind.is_typed, kind.as_words)
        segments = Segments(codes, bucket.values, self._asked.target_template)
        groups = groups_of(segments, models)
        places = np.split(table.column(0).to_numpy(), np.cumsum([one.n_rows for one in blocks])[:-1])
        pieces = [
            _Piece(self._files[one.file], one.window, of_block) for one, of_block in zip(blocks, places, strict=True)
        ]
        self._leave(groups, score_groups(window, groups, self._asked, self._layout, self._check), pieces)
        took_s = time.perf_counter() - began
        with self._lock:
            for piece in pieces:
                piece.file.seconds += took_s * len(piece.places) / len(table)
        return self._put_by_again(blocks, table, groups.left)

    def _as_it_was(self, table: pa.Table, kind: _Kind, codes: NDArray[Any], bucket: Bucket) -> pa.Table:
        """A window's columns, out of those of blocks."""
        import pyarrow as pa
        import pyarrow.types as types

        texts = self._texts_of(kind.schema)
        columns: list[Any] = []
        others = iter(table.columns[2:])
        for one in kind.schema:
            is_coded = types.is_dictionary(one.type)
            if one.name in texts:
                words = [values[texts[one.name]] for values in bucket.values]
                cell = one.type.value_type if is_coded else one.type
                column = pa.DictionaryArray.from_arrays(pa.array(codes), pa.array(words, cell))
                columns.append(column if is_coded else column.cast(cell))
            else:
                column = next(others)
                columns.append(column.dictionary_encode() if is_coded else column)
        return pa.table(columns, names=kind.schema.names)

    def _put_by_again(self, blocks: Sequence[Block], table: pa.Table, left: NDArray[np.intp]) -> list[Block]:
        if not len(left):
            return []
        made = []
        start = 0
        for one in blocks:
            rows = left[(left >= start) & (left < start + one.n_rows)]
            if len(rows):
                extent = self._rows.put(table.take(rows).combine_chunks())
                made.append(Block(one.kind, one.file, one.window, len(rows), extent))
            start += one.n_rows
        return made

    def _leave(self, groups: Groups, scored: ScoredWindow, pieces: Sequence[_Piece]) -> None:
        """What came of rows, with the windows that they are of. pieces: those rows, one after the other."""
        import pyarrow as pa

        names = [column.name for column in self._layout]
        is_left = np.zeros(scored.n_rows, np.bool_)
        is_left[groups.left] = True
        faults = _Faulty(scored.faults)
        start = 0
        for piece in pieces:
            end = start + len(piece.places)
            answers = [column.slice(start, len(piece.places)) for column in scored.answers]
            places = piece.places
            if len(groups.left):
                is_here = ~is_left[start:end]
                answers = [column.filter(pa.array(is_here)) for column in answers]
                places = places[is_here]
            left_here = self._answers.put(pa.table([pa.array(places), *answers], names=["place", *names]))
            errors, missing = faults.between(start, end, piece.places, scored.missing)
            said = None if errors is None else self._answers.put(errors)
            with self._lock:
                window = piece.file.windows[piece.window]
                assert isinstance(window, _WindowPutBy)
                window.answers.append(left_here)
                if errors is not None and said is not None:
                    window.errors.append(said)
                    piece.file.counts.n_errors += len(errors)
                for target, n_rows in missing.items():
                    piece.file.counts.missing[target] = piece.file.counts.missing.get(target, 0) + n_rows
            start = end
        with self._lock:
            self._scored |= scored.targets
        self._on_rows(scored.n_rows - len(groups.left))

    # -- 3: parts ------------------------------------------------------------------------------------------------------

    def finish(self, one: FilePutBy, part: Path, errors: Path) -> Counts:
        """Write the part, and the errors if there are any. Raises FileUnusable."""
        if one.why_not is not None:
            raise one.why_not
        is_met = np.zeros(len(self._scored_by_code), np.bool_)
        with Part(one.file, self._asked, self._layout, part, errors) as made:
            for window in one.windows:
                if isinstance(window, Unread):
                    made.leave_out(window)
                    self._on_rows(1)
                else:
                    is_met[self._answers.get(window.met).column(0).to_numpy()] = True
                    made.write(*self._put_together(one.file, window))
                self._check()
            made.finish()
        made.counts.targets = set(self._scored_by_code[is_met].tolist()) - {None}
        made.counts.n_errors += one.counts.n_errors
        made.counts.missing = one.counts.missing
        return made.counts

    @cached_property
    def _scored_by_code(self) -> NDArray[np.object_]:
        """Of each segment's code in the run its target, where that has scored rows. Not before all buckets are done."""
        targets = self._buckets.targets
        found = np.full(max(targets, default=-1) + 1, None, np.object_)
        for code, target in targets.items():
            if target in self._scored:
                found[code] = target
        return found

    def _put_together(self, file: DataFile, window: _WindowPutBy) -> tuple[Window, list[pa.Array], pa.Table]:
        """The window as far as its part needs it, its answers in the rows' order, its errors."""
        import pyarrow as pa

        if window.numbers is not None:
            numbers = self._answers.get(window.numbers).column(0).to_numpy()
        else:
            numbers = np.arange(window.first, window.first + window.n_rows)
        kept = self._answers.get(window.kept) if window.kept is not None else pa.table({})
        found = pa.concat_tables([self._answers.get(one) for one in window.answers]).combine_chunks()
        at = np.empty(window.n_rows, np.int64)
        at[found.column(0).to_numpy()] = np.arange(len(found))
        answers = [_whole(column.take(pa.array(at))) for column in found.columns[1:]]
        if not window.errors:
            return Window(kept, numbers, is_named=True), answers, error_table(file.name, Faults())
        errors = pa.concat_tables([self._answers.get(one) for one in window.errors])
        rows = numbers[errors.column(0).to_numpy()]
        names = pa.array([file.name]).take(pa.array(np.zeros(len(rows), np.int64)))
        told = pa.table({"file": names, "row": rows, **{name: errors.column(name) for name in ("segment", "reason")}})
        return Window(kept, numbers, is_named=True), answers, told.sort_by("row")


@dataclass(frozen=True, slots=True, eq=False)
class _Piece:
    """Rows of one window, by their places in it."""

    file: FilePutBy
    window: int
    places: NDArray[np.int32]


@dataclass(frozen=True, slots=True, eq=False)
class _Now:
    """Rows of a window that are scored at once. window: they alone. at: the window among its file's. places: theirs in it."""

    window: Window
    segments: Segments
    at: int
    places: NDArray[np.int32]


class _Faulty:
    """Faults by the place of their rows, which are those of several windows."""

    def __init__(self, faults: Faults) -> None:
        self._runs = faults.runs
        places = np.concatenate([np.empty(0, np.int64), *(run for run, _, _ in faults.runs)])
        order = np.argsort(places, kind="stable")
        self._places = places[order]
        self._of_run = np.repeat(np.arange(len(faults.runs)), [len(run) for run, _, _ in faults.runs])[order]

    def between(
        self, start: int, end: int, places: NDArray[np.int32], missing: frozenset[str]
    ) -> tuple[pa.Table | None, dict[str, int]]:
        """Errors of rows from start to end by their places in their window; rows of each target whose model is missing."""
        import pyarrow as pa

        low, high = np.searchsorted(self._places, (start, end)).tolist()
        if low == high:
            return None, {}
        runs = self._of_run[low:high]
        used, of_used, n_rows = np.unique(runs, return_inverse=True, return_counts=True)
        said = [self._runs[run][1:] for run in used.tolist()]
        by_target: dict[str, int] = {}
        for (target, _), n in zip(said, n_rows.tolist(), strict=True):
            if target in missing and target is not None:
                by_target[target] = by_target.get(target, 0) + n
        errors = {
            "place": places[self._places[low:high] - start],
            "segment": pa.array([target for target, _ in said], pa.string()).take(pa.array(of_used)),
            "reason": pa.array([why for _, why in said], pa.string()).take(pa.array(of_used)),
        }
        return pa.table(errors), by_target


def _rows_of(table: pa.Table, rows: NDArray[np.intp]) -> pa.Table:
    """As table.take of rows that are there, in ascending order. Batch by batch: else each column is made one piece first."""
    import pyarrow as pa
    import pyarrow.compute as pc

    taken = []
    start = 0
    for batch in table.to_batches():
        low, high = np.searchsorted(rows, (start, start + len(batch)))
        taken.append(pc.take(batch, pa.array(rows[low:high] - start), boundscheck=False))
        start += len(batch)
    return pa.Table.from_batches(taken, table.schema)


def _whole(column: Any) -> Any:
    """A column of one chunk, or of none, as an array."""
    return column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)


def _is_text(kind: Any) -> bool:
    import pyarrow.types as types

    cell = kind.value_type if types.is_dictionary(kind) else kind
    return bool(types.is_string(cell) or types.is_large_string(cell))
