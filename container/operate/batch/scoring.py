"""One window scored: rows grouped by segment, each group walked by its model, answers put back into the rows' places.

Rule: a row's answer is a function of the row and its model, as at the endpoint; which rows stand beside it is no matter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from container.operate.batch.asked import Asked
from container.operate.batch.columns import Block, Features
from container.operate.batch.layout import PLAIN, Column, Layout, as_lists, layout_of, named
from container.operate.batch.models import NoRoom, RunModels
from container.operate.tables.files import DataFile
from container.operate.tables.segments import Named, Segments, segments_of
from handler.errors import ArtifactError, ArtifactMissing, RequestError, ServingError
from handler.forest import walker
from handler.forest.groups import in_groups
from handler.forest.model import Forest
from handler.outputs import MAX_NUMBERS
from handler.payload.rows import Floats
from handler.predictor import Scorer
from handler.scoring import predict

if TYPE_CHECKING:
    import pyarrow as pa

    from container.operate.tables.windows import Window


MAX_PIECE_ROWS = 4096


@dataclass(slots=True)
class Faults:
    """Rows that have no answer: numbers in the file, the segment's target, the reason. Runs of rows share the last two."""

    runs: list[tuple[NDArray[np.int64], str | None, str]] = field(default_factory=list)

    def add(self, numbers: NDArray[np.int64], target: str | None, why: str) -> None:
        self.runs.append((numbers, target, why))

    @property
    def n_rows(self) -> int:
        return sum(len(numbers) for numbers, _, _ in self.runs)


@dataclass(frozen=True, slots=True, eq=False)
class ScoredWindow:
    """answers: a column for each of the layout, in the rows' order, null where there is none."""

    answers: list[pa.Array]
    faults: Faults
    n_rows: int
    targets: frozenset[str]
    missing: frozenset[str]


@dataclass(frozen=True, slots=True, eq=False)
class Groups:
    """A window's rows by segment.

    order   of the rows, group by group
    sizes   of the groups
    found   of each, its segment and what it is scored with
    left    rows whose models find no room, in no group
    """

    order: NDArray[np.intp]
    sizes: NDArray[np.intp]
    found: list[tuple[Named, Scorer | ServingError | None]]
    left: NDArray[np.intp]


class DoesNotFit(Exception):
    """Its models and those that are loaded do not fit into memory together: see spilled.py."""


def groups_of(segments: Segments, models: RunModels, *, all_fit: bool = False) -> Groups:
    """Raises FileUnusable when a model cannot be had just now, and where all are to fit and one finds no room DoesNotFit."""
    order, ends = in_groups(segments.codes, len(segments.values))
    sizes = np.diff(ends, prepend=0)
    codes = np.flatnonzero(sizes)  # a dictionary may have words that no row here says
    sizes = sizes[codes]
    named = [segments.named(code) for code in codes.tolist()]
    models.request(one.target for one in named if one.target is not None)
    found: list[tuple[Named, Scorer | ServingError | None]] = []
    is_here = np.ones(len(named), np.bool_)
    for at, one in enumerate(named):
        model = None if one.target is None else models.model(one.target)
        if isinstance(model, NoRoom):
            if all_fit:  # of thousands that find none the first says it
                raise DoesNotFit
            is_here[at] = False
        else:
            found.append((one, model))
    if len(found) == len(named):
        return Groups(order, sizes, found, np.empty(0, np.intp))
    of_rows = np.repeat(is_here, sizes)
    return Groups(order[of_rows], sizes[is_here], found, np.sort(order[~of_rows]))


def score_groups(
    window: Window, groups: Groups, asked: Asked, layout: Layout, check: Callable[[], None]
) -> ScoredWindow:
    """Rows in no group are not answered. check: called between pieces of long work; what it raises ends that."""
    n_rows = len(window.table)
    order, sizes = groups.order, groups.sizes
    ends = np.cumsum(sizes)
    features = Features(window, order, asked)
    faults = Faults()
    gathered = [_Gathered(column, len(order)) for column in layout]
    together = _Together(gathered[0]) if layout == PLAIN and not asked.outputs and asked.rounds is None else None
    scored: set[str] = set()
    missing: set[str] = set()
    for (one, model), start, end in zip(groups.found, (ends - sizes).tolist(), ends.tolist(), strict=True):
        target = one.target
        if target is None or model is None:
            faults.add(window.numbers[order[start:end]], None, one.why)
            continue
        if isinstance(model, ServingError):
            faults.add(window.numbers[order[start:end]], target, _why(model))
            missing.add(target)
            continue
        scored.add(target)
        try:
            names = features.names_for(model.facts)
        except RequestError as error:
            faults.add(window.numbers[order[start:end]], target, str(error))
            continue
        block = features.block(names, model.facts)
        if together is not None and together.takes(model, block, start, end):
            continue
        rows = block.rows(start, end)
        at: NDArray[np.intp] | slice = slice(start, end)
        if block.unfit is not None and block.unfit[start:end].any():
            unfit = block.unfit[start:end]
            for place in order[start:end][unfit]:
                faults.add(
                    window.numbers[place : place + 1], target, features.why_unfit(names, model.facts, int(place))
                )
            rows = rows[~unfit]
            at = start + np.flatnonzero(~unfit)
            if not len(rows):
                continue
        if model.facts.categories:
            odd = features.odd_codes(rows, model.facts)
            if odd.any():
                of_rows = order[at]
                faults.add(
                    window.numbers[of_rows[odd]], target, "a number in a column of categories is the code of none"
                )
                rows, at = rows[~odd], np.arange(len(order))[at][~odd]
                if not len(rows):
                    continue
        objection = _score_group(model, rows, asked, gathered, at, check)
        if objection is not None:
            faults.add(window.numbers[order[at]], target, objection)
    if together is not None:
        together.score()
    answers = [column.scattered(order, n_rows) for column in gathered]
    return ScoredWindow(answers, faults, n_rows, frozenset(scored), frozenset(missing))


class _Together:
    """Groups that one call scores at the end: those of ordinary models, asked for nothing but their plain score. Otherwise a
    group costs 15 us of Python, which at ten rows a group is twenty times as much as to score it."""

    def __init__(self, gathered: _Gathered) -> None:
        self._gathered = gathered
        self._blocks: dict[int, tuple[Block, list[bytes], list[int]]] = {}

    def takes(self, model: Scorer, block: Block, start: int, end: int) -> bool:
        forest = model.alone if isinstance(model, Forest) else None
        if (
            forest is None
            or model.facts.categories
            or not model.facts.n_features == len(block.columns) <= walker.MOST_COLUMNS
        ):
            return False
        if block.unfit is not None and block.unfit[start:end].any():
            return False
        _, forests, borders = self._blocks.setdefault(id(block), (block, [], []))
        forests.append(forest)
        borders += (start, end)
        return True

    def score(self) -> None:
        for block, forests, borders in self._blocks.values():
            walker.predict_groups(forests, borders, block.columns, self._gathered.together(borders))


def _why(error: ServingError) -> str:
    if isinstance(error, ArtifactMissing):
        return "the segment has no model"
    return f"the model is refused: {error.why}" if isinstance(error, ArtifactError) else str(error)


def _score_group(
    model: Scorer,
    rows: Floats,
    asked: Asked,
    gathered: list[_Gathered],
    at: NDArray[np.intp] | slice,
    check: Callable[[], None],
) -> str | None:
    """Why these rows have no answer, or None when they have."""
    answers = []
    try:
        for piece in _pieces(model, rows, asked.outputs):
            check()
            answers.append(named(predict(model, piece, asked.outputs, asked.rounds)))
    except ServingError as error:
        return str(error)
    for one in gathered:
        array = answers[0].get(one.column.name)
        if array is None or not one.column.fits(array):
            return f"the model answers {one.column.name} in another shape or type than the run's first model"
    for one in gathered:
        arrays = [answer[one.column.name] for answer in answers]
        one.put(at, arrays[0] if len(arrays) == 1 else np.concatenate(arrays))
    return None


def _pieces(model: Scorer, rows: Floats, outputs: tuple[str, ...]) -> list[Floats]:
    """Rows as many at once as the answers' size allows: contributions of many are refused, at the endpoint too. And as few
    that a signal is heard in time: those of a row take up to 10 ms."""
    if not outputs:
        return [rows]
    per_row = model.facts.n_outputs * (len(outputs) + 2 * (model.facts.n_features + 1))
    if "interactions" in outputs:
        per_row += model.facts.n_outputs * (model.facts.n_features + 1) ** 2
    n_at_once = min(MAX_PIECE_ROWS, max(1, MAX_NUMBERS // per_row))
    return [rows[start : start + n_at_once] for start in range(0, len(rows), n_at_once)]


class _Gathered:
    """One column of answers, filled group by group, in the order of groups. n_rows: of those groups."""

    def __init__(self, column: Column, n_rows: int) -> None:
        self.column = column
        self._n_rows = n_rows
        self._is_answered = np.zeros(n_rows, np.bool_)
        self._numbers = np.zeros(n_rows, column.cells) if column.depth == 0 else None
        self._lists: list[tuple[Any, NDArray[Any]]] = []

    def put(self, at: NDArray[np.intp] | slice, array: NDArray[Any]) -> None:
        self._is_answered[at] = True
        if self._numbers is not None:
            self._numbers[at] = array
        else:
            self._lists.append((at, array))

    def together(self, borders: list[int]) -> Floats:
        """All rows' numbers, for whoever fills in those between borders, in pairs."""
        assert self._numbers is not None
        starts, ends = np.array(borders, np.int64).reshape(-1, 2).T
        if (ends - starts).sum() == self._n_rows:  # as mostly: they are all rows
            self._is_answered[:] = True
            return self._numbers
        steps = np.zeros(self._n_rows + 1, np.int8)
        steps[starts] += 1
        steps[ends] -= 1
        self._is_answered |= np.cumsum(steps[:-1], dtype=np.int8).astype(np.bool_)
        return self._numbers

    def scattered(self, order: NDArray[np.intp], n_rows: int) -> pa.Array:
        """In the rows' own order. n_rows: of the window."""
        import pyarrow as pa

        if self._numbers is not None:
            numbers = np.zeros(n_rows, self._numbers.dtype)
            numbers[order] = self._numbers
            if len(order) == n_rows and self._is_answered.all():
                return pa.array(numbers, self.column.type)
            is_answered = np.zeros(n_rows, np.bool_)
            is_answered[order] = self._is_answered
            return pa.array(numbers, self.column.type, mask=~is_answered)
        if not self._lists:
            return pa.nulls(n_rows, self.column.type)
        together = pa.concat_arrays([as_lists(array, self.column) for _, array in self._lists])
        rows = np.concatenate([order[at] for at, _ in self._lists])
        taken = np.zeros(n_rows, np.int64)
        taken[rows] = np.arange(len(rows))
        is_absent = np.ones(n_rows, np.bool_)
        is_absent[rows] = False
        return together.take(pa.array(taken, mask=is_absent))


def layout_of_first(window: Window, file: DataFile, asked: Asked, models: RunModels) -> Layout | None:
    """The layout of the first model that a window names and that answers; None when none does."""
    segments = segments_of(window, file, asked, models.met)
    for code in _each_once(segments.codes):
        target = segments.named(code).target
        if target is None:
            continue
        model = models.model(target)
        if isinstance(model, ServingError | NoRoom):
            continue
        try:
            return layout_of(
                predict(model, np.zeros((1, model.facts.n_features), np.float32), asked.outputs, asked.rounds)
            )
        except ServingError:
            continue
    return None


def _each_once(codes: NDArray[np.int32]) -> Iterator[int]:
    """In their order. Mostly the first is all that anybody asks for."""
    seen: set[int] = set()
    for start in range(0, len(codes), MAX_PIECE_ROWS):
        for code in dict.fromkeys(codes[start : start + MAX_PIECE_ROWS].tolist()):
            if code not in seen:
                seen.add(code)
                yield code
