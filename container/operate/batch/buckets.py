"""Which bucket a segment's rows go to, where models do not fit into memory together: a bucket's do.

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

if TYPE_CHECKING:
    from container.operate.tables.spill import Extent

# Of a bucket's room, what guesses may fill.
FILLED = 0.9
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
    """values: of each segment, by its code in this bucket, what the template's fields are filled with."""

    values: list[Values] = field(default_factory=list)
    blocks: list[Block] = field(default_factory=list)
    n_bytes: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Sorted:
    """Of each row: its bucket, or AT_ONCE; the code of its segment there. met: segments, by their codes in the run."""

    buckets: NDArray[np.int32]
    codes: NDArray[np.uint16]
    met: NDArray[np.int32]


class Buckets:
    """models: those that are loaded answer at once. n_bytes: a bucket's room. Safe to use from many threads."""

    def __init__(self, models: RunModels, n_bytes: int) -> None:
        self._models = models
        self._n_bytes = n_bytes
        self._lock = threading.Lock()  # guards what follows; read without it for segments that are known
        # By the segment's code in the run.
        self._bucket_of = np.empty(0, np.int32)
        self._code_of = np.empty(0, np.uint16)
        self.targets: dict[int, str | None] = {}
        self.buckets: list[Bucket] = []

    def sorted(self, segments: Segments) -> Sorted:
        """A window's rows; all windows' segments have their codes from one `Met`. Raises FileUnusable when a model cannot be
        had just now."""
        met = np.flatnonzero(np.bincount(segments.codes)).astype(np.int32)
        self._have_places(len(segments.values))
        for code in met[self._bucket_of[met] == _UNDECIDED].tolist():
            self._decide(code, segments)
        bucket_of, code_of = self._bucket_of, self._code_of
        return Sorted(bucket_of[segments.codes], code_of[segments.codes], met)

    def _have_places(self, n_segments: int) -> None:
        with self._lock:
            n_more = n_segments - len(self._bucket_of)
            if n_more > 0:
                self._code_of = np.append(self._code_of, np.zeros(n_more, np.uint16))
                self._bucket_of = np.append(self._bucket_of, np.full(n_more, _UNDECIDED, np.int32))

    def _decide(self, code: int, segments: Segments) -> None:
        target = segments.named(code).target
        is_spilled = target is not None and isinstance(self._models.model(target), NoRoom)
        with self._lock:
            if self._bucket_of[code] != _UNDECIDED:
                return
            self.targets[code] = target
            if not is_spilled:
                self._bucket_of[code] = AT_ONCE
                return
            assert target is not None
            bucket = self._open_bucket(self._models.guessed_bytes(target))
            self._code_of[code] = len(bucket.values)
            bucket.values.append(segments.values[code])
            self._bucket_of[code] = len(self.buckets) - 1  # last: from now on it is read without the lock

    def _open_bucket(self, n_bytes: float) -> Bucket:
        """The last one, if so much goes into it, or a new one."""
        last = self.buckets[-1] if self.buckets else None
        is_full = last is None or len(last.values) == MAX_SEGMENTS or last.n_bytes + n_bytes > FILLED * self._n_bytes
        if last is None or is_full:
            last = Bucket()
            self.buckets.append(last)
        last.n_bytes += n_bytes
        return last
