"""What a run has done, put by on disk, and the release that comes of it.

    ledger -> lines by the segments' numbers -> one at a time, in the order of keys -> manifest, profiles

Rule: of a segment, memory holds where its line lies. What the release says of thousands takes more than training them does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from container.operate.release.manifest import Segment
from container.operate.tables.names import NOBODY, Names
from container.operate.tables.pages import Pages
from container.operate.train.ledger import Ledger, Line, came_of, segment_of
from container.operate.train.segment import Came
from container.operate.troubles import Refused


class Done(Mapping[str, Segment]):
    """Segments with a model, as the release has them; those without are asked for by `failed`."""

    def __init__(self, wanted: Names, ledger: Ledger, scratch: Path) -> None:
        """wanted: keys of all segments. Raises Refused where the ledger has others, NotNow where the disk is full."""
        self._keys = wanted
        self._pages = Pages(scratch)
        self._starts = np.full(len(wanted), -1, np.int64)
        self._sizes = np.zeros(len(wanted), np.int64)
        self._has_model = np.zeros(len(wanted), np.bool_)
        self._last: tuple[str, Segment] | None = None  # whoever asks for one often asks again
        for line in ledger.lines():
            came = came_of(line)
            number = wanted.find(came.key)
            if number == NOBODY:
                raise Refused(f"{line.uri} is not as it was written: the data has no rows of {came.key}")
            self._starts[number] = self._pages.add(line.text)
            self._sizes[number] = len(line.text)
            self._has_model[number] = came.segment is not None

    @property
    def is_whole(self) -> bool:
        return bool((self._starts >= 0).all())

    def all(self) -> Iterator[Came]:
        """In the order of keys."""
        for number in self._keys.in_order().tolist():
            yield came_of(self._line(number))

    def failed(self) -> Iterator[Came]:
        """Those without a model, in the order of keys."""
        for number in self._keys.in_order().tolist():
            if not self._has_model[number]:
                yield came_of(self._line(number))

    def __getitem__(self, key: str) -> Segment:
        last = self._last
        if last is None or last[0] != key:
            number = self._keys.find(key)
            if number == NOBODY or not self._has_model[number]:
                raise KeyError(key)
            last = self._last = key, segment_of(self._line(number))
        return last[1]

    def __iter__(self) -> Iterator[str]:
        for number in self._keys.in_order().tolist():
            if self._has_model[number]:
                yield self._keys[number]

    def __len__(self) -> int:
        return int(np.count_nonzero(self._has_model))

    def _line(self, number: int) -> Line:
        return Line(self._pages.get(int(self._starts[number]), int(self._sizes[number])), "what was put by")
