"""Targets that were found to have nothing to serve, remembered for a moment.

A client that keeps naming a broken archive would otherwise have it downloaded and examined once per call, and one that
keeps naming a missing object would have S3 asked once per call, on threads that other models' loads need.

Rule: what is remembered here is forgotten within seconds, and the table never grows past its bound. Nothing is evicted,
fetched or examined for what is remembered.

    broken, refused     BROKEN_S; then only a changed object is downloaded again
    missing, forbidden  not at all, until one target is asked for more than ASKS_PER_S times in a second; then for the
                        rest of that second. A caller that drops an object and then calls is served, unless it hammered.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from handler.bounded_table import BoundedTable
from handler.errors import ArtifactError, ArtifactForbidden, ArtifactMissing

BROKEN_S = 10.0
MISSING_S = 1.0
ASKS_PER_S = 5
MAX_REMEMBERED = 1_000


@dataclass(frozen=True, slots=True)
class Refusal:
    """error: what to raise, as a copy. version: of the artifact it was found in; None when there is none."""

    error: ArtifactError
    version: str | None
    until: float


@dataclass(slots=True)
class _Asked:
    """How often a target was found missing in the second that began at `since`."""

    since: float
    n_times: int


class NegativeCache:
    """The table; safe to use from many threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._refusals: BoundedTable[str, Refusal] = BoundedTable(MAX_REMEMBERED)
        self._asked: BoundedTable[str, _Asked] = BoundedTable(MAX_REMEMBERED)

    def __len__(self) -> int:
        return len(self._refusals) + len(self._asked)

    def now(self, target: str) -> ArtifactError | None:
        """The error to give for this target without looking, if it was found out a moment ago."""
        with self._lock:
            refusal = self._refusals.get(target)
        return refusal.error if refusal is not None and self._clock() < refusal.until else None

    def last(self, target: str) -> Refusal | None:
        """What was last found broken or refused under this target, however long ago; its version may still be there."""
        with self._lock:
            refusal = self._refusals.get(target)
        return refusal if refusal is not None and refusal.version is not None else None

    def broken(self, target: str, version: str | None, error: ArtifactError) -> None:
        """The target's artifact, of this version, is not one to serve."""
        self._remember(target, Refusal(error, version, self._clock() + BROKEN_S))

    def absent(self, target: str, error: ArtifactMissing | ArtifactForbidden) -> None:
        """There is no artifact, or none that may be read."""
        now = self._clock()
        with self._lock:
            asked = self._asked.get(target)
            if asked is None or now - asked.since >= MISSING_S:
                asked = _Asked(now, 0)
            asked.n_times += 1
            self._asked.put(target, asked)
        if asked.n_times >= ASKS_PER_S:
            self._remember(target, Refusal(error, None, asked.since + MISSING_S))

    def forget(self, target: str) -> None:
        """The target has an artifact to serve."""
        if target in self._refusals or target in self._asked:
            with self._lock:
                self._refusals.pop(target, None)
                self._asked.pop(target, None)

    def _remember(self, target: str, refusal: Refusal) -> None:
        with self._lock:
            self._refusals.put(target, refusal)
