"""The rows of all segments, read once and grouped once.

    files -> windows -> one block of numbers for each window: segment, label, ..., features
          -> in memory, or beyond the budget to files by segment
          -> one stable sort -> views, a segment at a time

Rule: a segment's rows come in the order of files and rows, wherever they lay meanwhile, so that how much memory there was
changes no model.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from container.operate.tables.files import DataFile, FileUnusable, on_disk
from container.operate.tables.floats import floats_of
from container.operate.tables.names import NOBODY, Names
from container.operate.tables.segments import Texts, text_of, texts_of
from container.operate.tables.spill import full_is_said
from container.operate.tables.windows import Unread, Window, windows
from container.operate.train.asked import Asked
from container.operate.troubles import NotNow, Refused
from handler.payload.numbers import TOO_LARGE
from handler.payload.rows import Floats

# Rows in memory before they go to disk. A run takes some 200 MB besides.
BUDGET_BYTES = 256 << 20
N_SPILLS = 64
# Of float64 cells, at a time: rows are put together afterwards whatever came with what. In windows as large as those of
# `mme score` reading took 150 MB more beside the rows, and no less of a core.
WINDOW_BYTES = 4 << 20
# Rows that a model over all segments is trained on, at most.
MAX_SAMPLED = 500_000
N_REASONS = 20
# Cells by which a column of text is judged, and the share of numbers from which on it is one of numbers.
N_JUDGED = 2_000
SHARE_OF_NUMBERS = 0.5

# In a feature's name. Source: xgboost 3.2.0, DMatrix.feature_names.
_FORBIDDEN = frozenset("[]<")

# Of a block, columns before the features. Whole numbers lie there as their bits.
_SEGMENT, _LABEL, _WEIGHT, _GROUP, _IS_HELD = range(5)
N_BEFORE = 5


@dataclass(frozen=True, slots=True)
class Columns:
    """names: of the features, in the model's order; empty where the data has none. categories: by feature, the words of it in
    the order of their codes."""

    n_features: int
    names: tuple[str, ...]
    categories: dict[int, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class SegmentRows:
    """One segment's. features: float32, (n_rows, n_features). groups: codes of queries. is_held: kept from training; None
    where nobody but we say which."""

    key: str
    features: Floats
    labels: Floats
    weights: Floats | None
    groups: NDArray[np.int32] | None
    is_held: NDArray[np.bool_] | None


@dataclass(frozen=True, slots=True)
class Span:
    """What is known of a segment's data. dropped: rows that could not be used."""

    n_rows: int = 0
    first: str = ""
    last: str = ""
    dropped: int = 0


class Rows:
    """All rows of a run. mine: whether a segment is trained here; of others only the keys are kept. A segment has a number,
    and what is kept of thousands lies in arrays: an object for each takes more than its rows."""

    def __init__(
        self,
        asked: Asked,
        scratch: Path,
        mine: Callable[[str], bool] = lambda _: True,
        *,
        budget_bytes: int = BUDGET_BYTES,
    ) -> None:
        self._asked = asked
        self._scratch = scratch
        self._is_mine = mine
        self._budget_bytes = budget_bytes
        self._columns: _Layout | None = None
        self.keys = Names()  # of all segments, here or elsewhere
        self._values = Names()  # what tells them in the data, and of each the segment's number
        self._of_values = np.empty(0, np.int32)
        self._mine = np.empty(0, np.bool_)
        self._spans = _Spans()
        self._groups: dict[str, int] = {}
        self._blocks: list[Floats] = []
        self._n_bytes = 0
        self._spills: list[BinaryIO] = []
        self._sample = _Sample() if asked.fallback_below is not None else None
        self.reasons: Counter[str] = Counter()  # of rows that are of no segment, or cannot be used
        self.n_rows = 0

    def read(
        self,
        files: Sequence[DataFile],
        endpoint_url: str | None,
        check: Callable[[], None] = lambda: None,
        *,
        is_held: bool = False,
    ) -> None:
        """Take in the rows of files. Raises Refused for one that cannot be read: nobody wants models of half the data."""
        for file in files:
            try:
                with on_disk(file, self._scratch, endpoint_url) as path:
                    for window in windows(path, file, self._asked, WINDOW_BYTES):
                        check()
                        if isinstance(window, Unread):
                            self._leave_out(window.why, 1)
                        elif len(window.table):
                            self._add(window, file, is_held=is_held)
            except FileUnusable as error:
                kind = NotNow if error.is_passing else Refused
                raise kind(f"{file.name}: {error.why}") from error

    @property
    def columns(self) -> Columns:
        """Raises Refused when there are no rows."""
        if self._columns is None:
            raise Refused("the data has no rows")
        return self._columns.sorted()

    @property
    def is_mine(self) -> NDArray[np.bool_]:
        """By number, whether it is trained here."""
        return self._mine

    def span(self, key: str) -> Span | None:
        number = self.keys.find(key)
        return None if number == NOBODY else self._spans.of(number)

    @property
    def unused(self) -> tuple[str, ...]:
        """Columns that are neither a feature nor anything else, because they hold words."""
        return self._columns.unused if self._columns is not None else ()

    def segments(self, is_wanted: NDArray[np.bool_]) -> Iterator[SegmentRows]:
        """Those of this host that are wanted, by number, each once, larger ones of a block first, and at the end those of
        which no row can be used. The rows are gone afterwards."""
        if self._spills:
            for spill in self._spills:
                with full_is_said(self._scratch):
                    spill.flush()
                spill.seek(0)
                block = np.fromfile(spill, np.float32).reshape(-1, self._width)
                spill.close()
                yield from self._grouped([block], is_wanted)
        elif self._blocks:
            blocks, self._blocks = self._blocks, []
            yield from self._grouped(blocks, is_wanted)
        for number in np.flatnonzero(self._mine & is_wanted & (self._spans.n_rows == 0)).tolist():
            yield self._rows_of(self.keys[number], np.empty((0, self._width), np.float32))

    def sample(self, key: str) -> SegmentRows:
        """Rows of all segments together, every so many-th."""
        assert self._sample is not None
        return self._rows_of(key, self._sample.block(self._width))

    def close(self) -> None:
        self._blocks.clear()
        for spill in self._spills:
            with contextlib.suppress(OSError):  # of a full disk, which has ended the run and been said
                spill.close()

    @property
    def _width(self) -> int:
        assert self._columns is not None
        return N_BEFORE + len(self._columns.names)

    def _grouped(self, blocks: Sequence[Floats], is_wanted: NDArray[np.bool_]) -> Iterator[SegmentRows]:
        """Blocks stay where they are: put together first, rows would be there twice."""
        numbers = np.concatenate([block[:, _SEGMENT] for block in blocks]).view(np.int32)
        ends_of_blocks = np.cumsum([len(block) for block in blocks])
        # NumPy sorts 16 bits by radix, ten times as fast as more.
        small = np.uint16 if len(self.keys) <= 1 << 16 else np.int32
        order = np.argsort(numbers.astype(small), kind="stable")
        in_order = numbers[order]
        starts = np.flatnonzero(np.diff(in_order, prepend=-1))
        ends = np.append(starts[1:], len(in_order))
        for at in np.argsort(starts - ends, kind="stable").tolist():
            number = int(in_order[starts[at]])
            if is_wanted[number]:
                rows = order[starts[at] : ends[at]]
                yield self._rows_of(self.keys[number], _gathered(blocks, ends_of_blocks, rows))

    def _rows_of(self, key: str, rows: Floats) -> SegmentRows:
        asked = self._asked
        features = rows[:, N_BEFORE:]
        assert self._columns is not None
        for at, of_code in self._columns.codes_in_order().items():
            codes = features[:, at]
            is_there = ~np.isnan(codes)
            codes[is_there] = of_code[codes[is_there].astype(np.int64)]
        is_said = asked.has_validation or asked.holdout_column is not None
        return SegmentRows(
            key,
            features,
            rows[:, _LABEL].copy(),
            rows[:, _WEIGHT].copy() if asked.weight is not None else None,
            np.ascontiguousarray(rows[:, _GROUP]).view(np.int32) if asked.group is not None else None,
            rows[:, _IS_HELD] != 0 if is_said else None,
        )

    def _add(self, window: Window, file: DataFile, *, is_held: bool) -> None:
        if self._columns is None:
            self._columns = _layout_of(window, self._asked)
        block, is_usable = self._block(window, is_held=is_held)
        of_rows = self._numbers_in(texts_of(window, file, self._asked))
        block[:, _SEGMENT] = of_rows.view(np.float32)
        self._span(of_rows, is_usable, window)
        is_known = of_rows >= 0
        if self._sample is not None:
            self._sample.add(block, is_known & is_usable)
        wanted = is_known & is_usable & np.append(self._mine, False)[of_rows]
        self._keep(block if wanted.all() else block[wanted])
        self.n_rows += len(block)

    def _numbers_in(self, segments: Texts) -> NDArray[np.int32]:
        """Of each row its segment's; NOBODY where it is of none, which is counted."""
        by_value = self._values.known(segments.texts)
        n_rows = np.bincount(segments.codes, minlength=len(by_value))
        targets: dict[int, str] = {}  # of values that were not seen before
        for code in np.flatnonzero((by_value == NOBODY) & (n_rows > 0)).tolist():
            named = segments.named(code)
            if named.target is None:
                self._leave_out(named.why, int(n_rows[code]))
            else:
                targets[code] = named.target
        if targets:
            self._values.number([segments.texts[code].as_py() for code in targets])
            self._of_values = np.append(self._of_values, self.keys.number(list(targets.values())))
            by_value = self._values.known(segments.texts)
            fresh = [self.keys[number] for number in range(len(self._mine), len(self.keys))]
            self._mine = np.append(self._mine, np.array([self._is_mine(key) for key in fresh], np.bool_))
            self._spans.grow(len(self.keys))
        numbers: NDArray[np.int32] = np.append(self._of_values, np.int32(NOBODY))[by_value][segments.codes]
        return numbers

    def _block(self, window: Window, *, is_held: bool) -> tuple[Floats, NDArray[np.bool_]]:
        """The window's numbers, and of each row whether every one can be used."""
        asked, layout = self._asked, self._columns
        assert layout is not None
        block = np.zeros((len(window.table), self._width), np.float32)
        is_usable = np.ones(len(block), np.bool_)
        block[:, _LABEL], _ = _numbers_of(window, asked.label)  # what is no number is missing, which fails its segment
        if asked.weight is not None:
            block[:, _WEIGHT], _ = _numbers_of(window, asked.weight)
        if asked.group is not None:
            block[:, _GROUP] = self._group_codes(window).view(np.float32)
        block[:, _IS_HELD] = is_held
        if asked.holdout_column is not None:
            flags, faults = _numbers_of(window, asked.holdout_column)
            block[:, _IS_HELD] = np.nan_to_num(flags) != 0
            self._refuse_rows(is_usable, faults, asked.holdout_column)
        for at, name in enumerate(layout.names, N_BEFORE):
            if name in layout.codes:
                block[:, at] = _codes_of(window, name, layout.codes[name])
                continue
            column, faults = _numbers_of(window, name)
            block[:, at] = column
            self._refuse_rows(is_usable, faults, name)
            if not np.isfinite(column.sum()):  # something in it is not, or the sum is too large
                infinite = np.flatnonzero(np.isinf(column)).tolist()
                self._refuse_rows(is_usable, dict.fromkeys(infinite, TOO_LARGE), name, " is ")
        return block, is_usable

    def _refuse_rows(
        self, is_usable: NDArray[np.bool_], faults: dict[int, str], name: str, says: str = " is no number: "
    ) -> None:
        for row, why in faults.items():
            if is_usable[row]:
                is_usable[row] = False
                self._leave_out(f"column {name!r}{says}{why}", 1)

    def _leave_out(self, reason: str, n_rows: int) -> None:
        is_told = reason in self.reasons or len(self.reasons) < N_REASONS
        self.reasons[reason if is_told else "other reasons"] += n_rows

    def _group_codes(self, window: Window) -> NDArray[np.int32]:
        import pyarrow.compute as pc

        assert self._asked.group is not None
        coded = pc.dictionary_encode(_column(window, self._asked.group).combine_chunks())
        coded = coded.chunk(0) if hasattr(coded, "chunks") else coded
        of_code = [
            self._groups.setdefault(str(text_of(one)), len(self._groups)) for one in coded.dictionary.to_pylist()
        ]
        nobody = self._groups.setdefault("\x00", len(self._groups))
        codes = coded.indices.fill_null(len(of_code)).to_numpy(zero_copy_only=False)
        of_rows: NDArray[np.int32] = np.array([*of_code, nobody], np.int32)[codes]
        return of_rows

    def _span(self, of_rows: NDArray[np.int32], is_usable: NDArray[np.bool_], window: Window) -> None:
        is_known = of_rows >= 0
        self._spans.n_rows += np.bincount(of_rows[is_known & is_usable], minlength=len(self.keys))
        self._spans.dropped += np.bincount(of_rows[is_known & ~is_usable], minlength=len(self.keys))
        if self._asked.date is not None:
            self._dates(of_rows, window)

    def _dates(self, of_rows: NDArray[np.int32], window: Window) -> None:
        import pyarrow as pa

        assert self._asked.date is not None
        texts = _column(window, self._asked.date).cast(pa.string()).combine_chunks()
        coded = texts.dictionary_encode()
        coded = coded.chunk(0) if hasattr(coded, "chunks") else coded
        values = np.array(coded.dictionary.to_pylist(), object)
        is_there = (of_rows >= 0) & coded.is_valid().to_numpy(zero_copy_only=False)
        if not is_there.any():
            return
        by_value = np.argsort(values)
        rank = np.empty(len(values), np.int64)
        rank[by_value] = np.arange(len(values))
        ranks = rank[coded.indices.fill_null(0).to_numpy(zero_copy_only=False)[is_there]]
        numbers = of_rows[is_there]
        low, high = np.full(len(self.keys), len(values)), np.full(len(self.keys), -1)
        np.minimum.at(low, numbers, ranks)
        np.maximum.at(high, numbers, ranks)
        for number in np.unique(numbers).tolist():
            self._spans.widen(number, str(values[by_value[low[number]]]), str(values[by_value[high[number]]]))

    def _keep(self, block: Floats) -> None:
        if self._spills:
            self._spill(block)
            return
        self._blocks.append(block)
        self._n_bytes += block.nbytes
        if self._n_bytes > self._budget_bytes:
            # Without a name: gone with the process, however it ends.
            self._spills = [tempfile.TemporaryFile(dir=self._scratch) for _ in range(N_SPILLS)]  # noqa: SIM115
            for one in self._blocks:
                self._spill(one)
            self._blocks.clear()

    def _spill(self, block: Floats) -> None:
        which = (block[:, _SEGMENT].view(np.int32) % N_SPILLS).astype(np.uint16)
        order = np.argsort(which, kind="stable")
        ends = np.cumsum(np.bincount(which, minlength=N_SPILLS))
        in_order = block[order]
        with full_is_said(self._scratch):
            for number, (start, end) in enumerate(zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True)):
                if end > start:
                    self._spills[number].write(in_order[start:end].data)


class _Spans:
    """Of all segments, by number. Dates are few, and held once each."""

    def __init__(self) -> None:
        self.n_rows = np.empty(0, np.int64)
        self.dropped = np.empty(0, np.int64)
        self._dates: list[str] = [""]
        self._of_date: dict[str, int] = {}
        self._first = np.empty(0, np.int32)
        self._last = np.empty(0, np.int32)

    def grow(self, n_segments: int) -> None:
        def longer(values: NDArray[Any]) -> NDArray[Any]:
            return np.append(values, np.zeros(n_segments - len(values), values.dtype))

        self.n_rows, self.dropped = longer(self.n_rows), longer(self.dropped)
        self._first, self._last = longer(self._first), longer(self._last)

    def widen(self, number: int, first: str, last: str) -> None:
        """There are rows of these dates and some between."""
        before = self.of(number)
        self._first[number] = self._date(min(before.first or first, first))
        self._last[number] = self._date(max(before.last, last))

    def of(self, number: int) -> Span:
        first, last = self._dates[self._first[number]], self._dates[self._last[number]]
        return Span(int(self.n_rows[number]), first, last, int(self.dropped[number]))

    def _date(self, text: str) -> int:
        at = self._of_date.setdefault(text, len(self._dates))
        if at == len(self._dates):
            self._dates.append(text)
        return at


def _gathered(blocks: Sequence[Floats], ends: NDArray[np.int64], rows: NDArray[np.int64]) -> Floats:
    """Rows of blocks that are thought one behind the other; in order, so a block's are together."""
    parts = []
    cuts = np.searchsorted(rows, ends).tolist()
    for block, start, before, end in zip(blocks, [0, *ends.tolist()], [0, *cuts], cuts, strict=False):
        if end > before:
            parts.append(block.take(rows[before:end] - start, axis=0))  # a third of what block[...] takes
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


@dataclass(slots=True)
class _Layout:
    """names: of feature columns in the data. codes: by column of words, the code of each, in the order in which they came."""

    names: tuple[str, ...]
    is_named: bool
    codes: dict[str, dict[str, int]]
    unused: tuple[str, ...] = ()

    def sorted(self) -> Columns:
        categories = {self.names.index(name): tuple(sorted(codes)) for name, codes in self.codes.items()}
        return Columns(len(self.names), self.names if self.is_named else (), categories)

    def codes_in_order(self) -> dict[int, Floats]:
        """By feature, of each code as it came the one that it has among the sorted words."""
        made = {}
        for name, codes in self.codes.items():
            of_word = {word: at for at, word in enumerate(sorted(codes))}
            made[self.names.index(name)] = np.array([of_word[word] for word in codes], np.float32)
        return made


class _Sample:
    """Every row at first, then every second, every fourth, ...: the same ones, however the rows came in."""

    def __init__(self) -> None:
        self._blocks: list[tuple[NDArray[np.int64], Floats]] = []
        self._n_seen = 0
        self._n_kept = 0
        self._step = 1

    def add(self, block: Floats, is_wanted: NDArray[np.bool_]) -> None:
        rows = block[is_wanted]
        at = np.arange(self._n_seen, self._n_seen + len(rows))
        self._n_seen += len(rows)
        self._take(at, rows)
        while self._n_kept > MAX_SAMPLED:
            self._step *= 2
            held, self._blocks, self._n_kept = self._blocks, [], 0
            for numbers, kept in held:
                self._take(numbers, kept)

    def _take(self, at: NDArray[np.int64], rows: Floats) -> None:
        is_taken = at % self._step == 0
        self._blocks.append((at[is_taken], rows[is_taken]))
        self._n_kept += int(np.count_nonzero(is_taken))

    def block(self, width: int) -> Floats:
        return np.concatenate([np.empty((0, width), np.float32), *(rows for _, rows in self._blocks)])


def _layout_of(window: Window, asked: Asked) -> _Layout:
    """Which columns are features, by the first rows there are. Raises FileUnusable when one is missing."""
    schema = window.table.schema
    if asked.features:
        names = asked.features
    else:
        names = tuple(
            name
            for name in schema.names
            if name in asked.categories or (name not in asked.other_columns and _is_of_numbers(window, name))
        )
    for name in (*names, *asked.categories, *asked.drop, asked.label):
        _column(window, name)
    if not names:
        raise FileUnusable("no column of it holds numbers to learn from")
    if window.is_named:
        odd = [name for name in names if not _FORBIDDEN.isdisjoint(name)]
        if odd:
            raise FileUnusable(
                f"XGBoost takes no feature called {odd[0]!r}, with one of [ ] < in it: --drop or rename it"
            )
    missing = [name for name in asked.categories if name not in names]
    if missing:
        raise FileUnusable(f"--categories {missing[0]}: it is not among --features")
    rest = tuple(name for name in schema.names if name not in {*names, *asked.other_columns})
    unused = () if asked.features else rest  # who names the features has left out the rest himself
    return _Layout(tuple(names), window.is_named, {name: {} for name in asked.categories}, unused)


def _is_of_numbers(window: Window, name: str) -> bool:
    """One bad row makes text of a CSV's columns of numbers, and one bad cell of a column in JSON lines: there the cells say
    what the column is, every so many-th of them."""
    import pyarrow.types as types

    column = _column(window, name)
    kind = column.type
    if window.is_typed or not types.is_string(kind):
        return bool(types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind) or types.is_null(kind))
    there = column.drop_null()
    judged = there.take(np.arange(0, len(there), max(1, len(there) // N_JUDGED)))
    _, faults = floats_of(judged, is_typed=False)
    return len(judged) - len(faults) >= SHARE_OF_NUMBERS * len(judged)


def _column(window: Window, name: str) -> Any:
    if name not in window.table.column_names:
        has = ", ".join(map(repr, window.table.column_names[:8]))
        raise FileUnusable(f"it has no column {name!r}; it has {has}")
    return window.table.column(name)


def _numbers_of(window: Window, name: str) -> tuple[Floats, dict[int, str]]:
    return floats_of(_column(window, name), is_typed=window.is_typed)


def _codes_of(window: Window, name: str, codes: dict[str, int]) -> Floats:
    """Codes of words as they came; NaN for null."""
    column = _column(window, name).combine_chunks()
    coded = column.dictionary_encode()
    coded = coded.chunk(0) if hasattr(coded, "chunks") else coded
    of_code = [codes.setdefault(str(text_of(one)), len(codes)) for one in coded.dictionary.to_pylist()]
    taken = coded.indices.fill_null(len(of_code)).to_numpy(zero_copy_only=False)
    of_rows: Floats = np.array([*of_code, np.nan], np.float32)[taken]
    return of_rows
