"""Models that are too large for the memory, remembered by version.

A client that keeps naming one would otherwise have hundreds of megabytes fetched and examined once per call, and an update
that does not fit would be fetched once per check.

Rule: what does not fit is neither fetched again nor evicted for until the artifact has changed or there is more room.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from handler.bounded_table import BoundedTable
from handler.cache.entry import Prepared
from handler.errors import NoRoom

P = TypeVar("P", bound=Prepared)

ASK_S = 10.0  # for so long the store is not even asked whether it has changed
MAX_REMEMBERED = 1_000


@dataclass(frozen=True, slots=True)
class _Known:
    version: str
    n_bytes: int
    until: float


class Admission(Generic[P]):
    """Stands before a loader; safe to use from many threads.

    prepare, prepare_if_changed   the loader's
    room_bytes                    the most that a target's model could ever be given as things are
    """

    def __init__(
        self,
        prepare: Callable[[str], P],
        prepare_if_changed: Callable[[str, str], P | None],
        room_bytes: Callable[[str], int],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._prepare = prepare
        self._prepare_if_changed = prepare_if_changed
        self._room_bytes = room_bytes
        self._clock = clock
        self._lock = threading.Lock()
        self._known: BoundedTable[str, _Known] = BoundedTable(MAX_REMEMBERED)

    def refused(self, target: str) -> NoRoom | None:
        """What `prepare` would raise at once. Takes no time."""
        known = self._known.get(target)
        if known is None or self._clock() >= known.until or known.n_bytes <= self._room_bytes(target):
            return None
        return self._no_room(target, known.n_bytes)

    def prepare(self, target: str) -> P:
        """As the loader does. Raises NoRoom besides, at once for what was found too large and has not changed."""
        refusal = self.refused(target)
        if refusal is not None:
            raise refusal
        known = self._still_too_large(target)
        if known is None:
            return self._fitting(target, self._prepare(target))
        return self._fitting(target, self._newer(target, known))

    def prepare_if_changed(self, target: str, version: str) -> P | None:
        """As the loader does. Raises NoRoom while the newest version is one that was found too large."""
        known = self._still_too_large(target)
        if known is not None:
            newer = self._newer(target, known)
            if newer.version == version:  # the one before it has come back
                self._forget(target)
                return None
            return self._fitting(target, newer)
        newest = self._prepare_if_changed(target, version)
        return None if newest is None else self._fitting(target, newest)

    def _still_too_large(self, target: str) -> _Known | None:
        known = self._known.get(target)
        if known is not None and known.n_bytes <= self._room_bytes(target):
            self._forget(target)
            return None
        return known

    def _newer(self, target: str, known: _Known) -> P:
        """What came after the version that did not fit. Raises NoRoom when nothing did."""
        newer = self._prepare_if_changed(target, known.version)
        if newer is None:
            self._remember(target, known.version, known.n_bytes)
            raise self._no_room(target, known.n_bytes)
        return newer

    def _fitting(self, target: str, prepared: P) -> P:
        if prepared.n_bytes > self._room_bytes(target):
            self._remember(target, prepared.version, prepared.n_bytes)
            raise self._no_room(target, prepared.n_bytes)
        self._forget(target)
        return prepared

    def _no_room(self, target: str, n_bytes: int) -> NoRoom:
        return NoRoom(f"model {target}", n_bytes, self._room_bytes(target))

    def _remember(self, target: str, version: str, n_bytes: int) -> None:
        with self._lock:
            self._known.put(target, _Known(version, n_bytes, self._clock() + ASK_S))

    def _forget(self, target: str) -> None:
        if target in self._known:
            with self._lock:
                self._known.pop(target, None)
