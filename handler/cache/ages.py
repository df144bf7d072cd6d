"""When each model in memory was last known to be its artifact's newest version, and which are due for a check.

Rule: a model is checked by one at a time. The thread that begins a check ends it, with `keep`, or with the cache's `replace`
or `drop`.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping

from handler.cache.entry import Entry
from handler.cache.eviction import Index


class Ages:
    """Part of a ModelCache, under its lock."""

    def __init__(self, lock: threading.Lock, index: Index, clock: Callable[[], float]) -> None:
        self._lock = lock
        self._index = index
        self._clock = clock
        self.max_age_s = math.inf
        self.on_old: Callable[[str, str], None] = lambda _target, _version: None

    def watch(self, max_age_s: float, on_old: Callable[[str, str], None]) -> None:
        """Tell `on_old(target, version)` of a model that is asked for and was last checked over max_age_s ago.

        It is told once and answers with `keep`, or the cache's `replace` or `drop`. It is called by the thread that asks
        for the model, so it must not wait.
        """
        self.max_age_s = max_age_s
        self.on_old = on_old

    def begin(self, entry: Entry, checked_s_ago: float) -> None:
        """A model has just been loaded."""
        entry.check_at = self._clock() - checked_s_ago + self.max_age_s

    def due(self, within_s: float = math.inf) -> list[tuple[str, str]]:
        """Target and version of each model that is due for a check within so long, most recently used first; none that is
        being checked."""
        with self._lock:
            until = self._clock() + within_s
            return [
                (entry.target, entry.version) for entry in reversed(self._index.values()) if entry.check_at <= until
            ]

    def begin_check(self, target: str, version: str) -> bool:
        """Whether this version is here and nobody checks it; the caller now does."""
        with self._lock:
            entry = self._index.get(target)
            if entry is None or entry.version != version or entry.check_at == math.inf:
                return False
            entry.check_at = math.inf
            return True

    def confirm(self, versions: Mapping[str, str], s_ago: float) -> list[str]:
        """The store has shown these versions, s_ago seconds ago. Returns the targets whose models are of just these."""
        with self._lock:
            entries = [self._index[target] for target in versions.keys() & self._index.keys()]
            current = [entry for entry in entries if entry.version == versions[entry.target]]
            check_at = self._clock() - s_ago + self.max_age_s
            for entry in current:
                entry.check_at = max(entry.check_at, check_at)  # infinite where it is being checked just now
                entry.trouble = ""
            return [entry.target for entry in current]

    def keep(self, target: str, version: str, *, trouble: str = "", again_s: float = math.inf) -> None:
        """The model has been checked and stays; check it again after the usual age, or already after `again_s`."""
        with self._lock:
            entry = self._index.get(target)
            if entry is not None and entry.version == version:
                entry.trouble = trouble
                entry.check_at = self._clock() + min(self.max_age_s, again_s)
