"""Which bucket a segment's rows go to, where models do not fit into memory together: a bucket's do.

Rows of models that are loaded are scored at once where a window has enough of a segment for that, and else are put by until
all windows have gone by, too: then they are together.

Rule: decided when a segment is met first and never again, so no model is in two buckets. How large a model will be is guessed
from its artifact's size, and from those that were loaded; a guess that was too low costs its bucket another turn.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from container.operate.batch.models import NoRoom, RunModels
from container.operate.tables.segments import Segments, Values
from handler.errors import ServingError

if TYPE_CHECKING:
    from container.operate.tables.spill import Extent

# Of a bucket's room, what guesses may fill.
FILLED = 0.9
# Cells of a segment in the window that names it first, below which its rows are put by though its model is loaded: to call
# for a group takes 8 us, and few rows are walked slowly; to put a row by and read it again takes 15 ns a cell.
FEW_CELLS = 800
# Of loaded models in one bucket, rows in the window that names their segments first. A bucket is for one thread.
MOST_ROWS = 1 << 14
# Codes of 16 bits: they lie on disk, one a row.
MAX_SEGMENTS = 1 << 16
AT_ONCE = -1
_UNDECIDED = -2


@dataclass(frozen=True, slots=True)
class Block:
    """Rows of one bucket, of one window of a file. kind: how its table is to be understood; both are places in the
    run's lists."""

    kind: int
    file: int
    window: int
    n_rows: int
    extent: Extent


@dataclass(slots=True)
class Bucket:
    """A share of the rows that are put by.

    is_loaded  its models are, and stay until it is scored
    values     of each segment, by its code in this bucket, what the template's fields are filled with
    filled     of what may go into it
    """

    is_loaded: bool
    values: list[Values] = field(default_factory=list)
    blocks: list[Block] = field(default_factory=list)
    filled: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Sorted:
    """Of each row: its bucket, or AT_ONCE; the code of its segment there. met: segments, by their codes in the run."""

    buckets: NDArray[np.int32]
    codes: NDArray[np.uint16]
    met: NDArray[np.int32]


class Buckets:
    """models: some are loaded. n_bytes: a bucket's room for others. Safe to use from many threads."""

    def __init__(self, models: RunModels, n_bytes: int) -> None:
        self._models = models
        self._n_bytes = n_bytes
        self._lock = threading.Lock()  # guards what follows; read without it for segments that are known
        # By the segment's code in the run.
        self._bucket_of = np.empty(0, np.int32)
        self._code_of = np.empty(0, np.uint16)
        self.targets: dict[int, str | None] = {}
        self.buckets: list[Bucket] = []
        self._open: dict[bool, int] = {}  # by whether models are loaded, the bucket that may take another segment

    def sorted(self, segments: Segments, n_columns: int) -> Sorted:
        """A window's rows; all windows' segments have their codes from one `Met`. Raises FileUnusable when a model cannot be
        had just now."""
        n_rows = np.bincount(segments.codes)
        met = np.flatnonzero(n_rows).astype(np.int32)
        self._have_places(len(segments.values))
        new = met[self._bucket_of[met] == _UNDECIDED]
        for code, n in zip(new.tolist(), n_rows[new].tolist(), strict=True):
            self._decide(code, segments, n, is_few=n * n_columns < FEW_CELLS)
        bucket_of, code_of = self._bucket_of, self._code_of
        return Sorted(bucket_of[segments.codes], code_of[segments.codes], met)

    def _have_places(self, n_segments: int) -> None:
        with self._lock:
            n_more = n_segments - len(self._bucket_of)
            if n_more > 0:
                self._code_of = np.append(self._code_of, np.zeros(n_more, np.uint16))
                self._bucket_of = np.append(self._bucket_of, np.full(n_more, _UNDECIDED, np.int32))

    def _decide(self, code: int, segments: Segments, n_rows: int, *, is_few: bool) -> None:
        target = segments.named(code).target
        model = None if target is None else self._models.model(target)
        is_loaded = not isinstance(model, NoRoom)
        with self._lock:
            if self._bucket_of[code] != _UNDECIDED:
                return
            self.targets[code] = target
            if target is None or isinstance(model, ServingError) or (is_loaded and not is_few):
                self._bucket_of[code] = AT_ONCE
                return
            n_bytes = self._models.guessed_bytes(target)
            share = n_rows / MOST_ROWS if is_loaded else n_bytes / (FILLED * self._n_bytes)
            number = self._with_room(is_loaded=is_loaded, share=share)
            values = self.buckets[number].values
            self._code_of[code] = len(values)
            values.append(segments.values[code])
            self._bucket_of[code] = number  # last: from now on it is read without the lock

    def _with_room(self, *, is_loaded: bool, share: float) -> int:
        """The bucket that is open, if so much goes into it, or a new one."""
        number = self._open.get(is_loaded)
        if number is not None:
            bucket = self.buckets[number]
            if len(bucket.values) < MAX_SEGMENTS and bucket.filled + share <= 1:
                bucket.filled += share
                return number
        self.buckets.append(Bucket(is_loaded, filled=share))
        self._open[is_loaded] = len(self.buckets) - 1
        return len(self.buckets) - 1
