"""Captured calls, read back by segment: a sample of rows and scores each, in bounded memory.

Rule: what cannot be read is counted and never guessed at. A sample is the same however often it is drawn: a row is kept by a
hash of its call's id, not by chance.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np

from container.capture import layout
from container.capture.lines import Captured, NoCapture, parse
from container.operate.release.manifest import Features
from handler.errors import RequestError
from handler.payload import decode, fit_rows
from handler.payload.rows import Floats, Word
from handler.stores import Store

FIRST_ERROR_STATUS = 400


@dataclass(frozen=True, slots=True)
class _Columns:
    """A model's columns, as a release knows them. It does not know categories, so rows with words do not fit."""

    n_features: int
    feature_names: tuple[str, ...]
    feature_types: tuple[str, ...] = ()
    categories: tuple[tuple[int, tuple[Word, ...]], ...] = ()


@dataclass(slots=True)
class Seen:
    """One segment's calls.

    rows, scores   of the sample; calls with several rows bring them all; scores are the first output of each row
    before         scores of the time before, of the same length
    n_rows         of the sample
    n_failed       calls that were answered with an error
    n_unread       answered calls whose rows or scores could not be read
    """

    rows: list[Floats] = field(default_factory=list)
    scores: list[Floats] = field(default_factory=list)
    before: list[Floats] = field(default_factory=list)
    n_kept_before: int = 0
    n_calls: int = 0
    n_rows: int = 0
    n_failed: int = 0
    n_unread: int = 0

    def features(self, n_features: int) -> Floats:
        return np.concatenate(self.rows) if self.rows else np.zeros((0, n_features), np.float32)


@dataclass(frozen=True, slots=True)
class Window:
    """Calls from `since` on, and, for their scores, those from `before` until then."""

    before: datetime
    since: datetime


class Reader:
    """features: by segment. max_rows: of each segment's sample. on_file: called with each file's name."""

    def __init__(
        self,
        features: Mapping[str, Features],
        window: Window,
        max_rows: int,
        on_file: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._features = features
        self._window = window
        self._max_rows = max_rows
        self._on_file = on_file
        self.seen: dict[str, Seen] = {}
        self.n_lines = self.n_broken = self.n_unknown = 0

    def read(self, store: Store) -> None:
        """Raises ArtifactError."""
        for one in layout.files(store, self._window.before):
            self._on_file(one.target)
            for text in store.fetch(one.target).data.splitlines():
                self._take(text)

    def _take(self, text: bytes) -> None:
        self.n_lines += 1
        try:
            call = parse(text)
        except NoCapture:
            self.n_broken += 1
            return
        if call.at < self._window.before:
            return
        if call.target not in self._features:
            self.n_unknown += 1
            return
        seen = self.seen.setdefault(call.target, Seen())
        is_now = call.at >= self._window.since
        if call.status >= FIRST_ERROR_STATUS:
            seen.n_failed += is_now
            return
        seen.n_calls += is_now
        if not self._is_sampled(call, seen.n_rows if is_now else seen.n_kept_before):
            return
        try:
            scores = _scores(call)
            rows = rows_of(call, self._features[call.target]) if is_now else None
        except RequestError:
            seen.n_unread += is_now
            return
        if rows is None:
            seen.before.append(scores)
            seen.n_kept_before += len(scores)
            return
        seen.rows.append(rows)
        seen.scores.append(scores)
        seen.n_rows += len(rows)

    def _is_sampled(self, call: Captured, n_kept: int) -> bool:
        """Each time the sample is full again, half as many of what comes are taken: earlier calls weigh more then."""
        halvings = n_kept // self._max_rows
        return zlib.crc32(call.event_id.encode()) % (1 << min(halvings, 31)) == 0


def rows_of(call: Captured, features: Features) -> Floats:
    """In the model's order. Raises RequestError."""
    columns = _Columns(features.n, features.names)
    return np.array(fit_rows(decode(call.input, call.input_type, features.n), columns), np.float32)


def _scores(call: Captured) -> Floats:
    """Of answers in CSV or JSON lines of numbers, which is what scores come as; of others none."""
    values = decode(call.output, call.output_type or "text/csv", 1).values
    return np.array(values[:, 0], np.float32)
