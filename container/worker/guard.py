"""Keeps the container below its memory limit, whoever is growing.

The cache counts its own models to the byte, and its budget leaves room for all else that was foreseen. This looks at what
is really used, and what was not foreseen (a JVM that grows, a leak, another process in the container) makes the budget
smaller while it lasts: models leave, least recently used first, before the kernel ends a process.

    allowed = what models have by the book + what is left until the danger line      never more than the budget

Rule: a freed model is trimmed away before the next look. Otherwise no eviction would be seen to help, and all would go.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from container.worker.memory import Limit, process_resident_bytes, used_bytes
from handler.cache import ModelCache
from handler.telemetry import CONTAINER_MEMORY_UTILIZATION, MEMORY_SHORTAGES, Recorder

log = logging.getLogger("mme.memory")

# Memory grows by hundreds of MB a second at the very most; a look takes 0.1 ms.
LOOK_S = 0.5
# The danger line lies so far below the limit: what can be taken between two looks, and what the kernel needs itself.
RESERVE_BYTES = 24 << 20
RESERVE_SHARE = 0.03
# Of the budget, what models keep whatever happens: an endpoint that has evicted everything serves nobody.
FLOOR_SHARE = 1 / 8
SAY_S = 10.0


class MemoryGuard:
    """A thread that looks; owned by the runtime's main, ended by `close`.

    limit   the one to stay below
    trim    gives freed memory back to the system before it returns
    used    what is used of the limit; raises OSError, KeyError when it cannot be told
    """

    def __init__(
        self,
        cache: ModelCache,
        limit: Limit,
        *,
        trim: Callable[[], None],
        recorder: Recorder,
        used: Callable[[Limit], int] = used_bytes,
    ) -> None:
        self._cache = cache
        self._limit = limit
        self._trim = trim
        self._recorder = recorder
        self._used = used
        self._most = cache.budget_bytes
        self._least = int(self._most * FLOOR_SHARE)
        self._line = limit.n_bytes - max(RESERVE_BYTES, int(limit.n_bytes * RESERVE_SHARE))
        self._looks_since_said = SAY_S / LOOK_S
        self._is_closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="memory-guard", daemon=True)

    def start(self) -> None:
        self._recorder.gauge(CONTAINER_MEMORY_UTILIZATION, lambda: 100 * self._used(self._limit) / self._limit.n_bytes)
        self._thread.start()

    def close(self) -> None:
        self._is_closed.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._is_closed.wait(LOOK_S):
            try:
                self.look()
            except (OSError, KeyError, ValueError) as error:
                log.warning("memory is not looked after any more: %s says %r", self._limit.source, error)
                return

    def look(self) -> int:
        """One look, and what follows from it. Returns the bytes evicted."""
        used = self._used(self._limit)
        booked = self._cache.resident_bytes
        allowed = max(self._least, min(self._most, booked + self._line - used))
        self._looks_since_said += 1
        evicted = self._cache.resize(allowed)
        if evicted:
            self._trim()
            self._recorder.count(MEMORY_SHORTAGES)
            if self._looks_since_said * LOOK_S >= SAY_S:
                self._looks_since_said = 0
                log.warning(
                    "memory runs short: %d bytes of the %d that %s allows are used, %d by this process, %d of these by "
                    "models; models of %d bytes were evicted and may have %d of their %d for now",
                    used, self._limit.n_bytes, self._limit.source, process_resident_bytes(), booked, evicted, allowed,
                    self._most,
                )  # fmt: skip
        return evicted
