"""Keeps the container below its memory limit, whichever process is growing.

The cache counts its own models to the byte, and its budget leaves room for all else that was foreseen. This looks at what
is really used, and what was not foreseen (a JVM that grows, a leak, another process in the container) makes the budget
smaller while it lasts: models leave, least recently used first, before the kernel ends a process.

    used above the danger line     models leave until it is SLACK below
    used within SLACK below it     nobody leaves, and the book may not grow
    used below that                the book may grow by what is left to there, never over the budget

The nearer the line, the sooner the next look. When the kernel says that processes stand still for want of memory, what is
used looks well and is not: pages of programs are dropped and read again. The line is then lowered for a while.

Rule: a freed model is trimmed away before the next look. Otherwise no eviction would be seen to help, and all would go.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from container.limits.memory import Limit, process_resident_bytes, used_bytes
from container.limits.pressure import Pressure
from handler.cache.model_cache import ModelCache
from handler.telemetry.recorder import CONTAINER_MEMORY_UTILIZATION, MEMORY_SHORTAGES, Recorder
from handler.throttle import Throttle

log = logging.getLogger("mme.memory")

# What one thread that touches new pages takes in a second at the very most.
GROWTH_BYTES_PER_S = 1 << 30
# Time between two looks, which take 0.1 ms each.
LOOK_S = 0.5
MIN_LOOK_S = 0.02
# The danger line lies so far below the limit: what can be taken between two looks, and what the kernel needs itself.
RESERVE_BYTES = 24 << 20
RESERVE_SHARE = 0.03
# Models leave in steps of this share of the limit: to trim after each of them would cost more than it gives.
SLACK_SHARE = 0.01
# By how much the line is lowered when the kernel speaks up, and how long it must be silent until that is taken back.
STALL_SHARE = 0.02
MOST_STALL_SHARE = 0.10
CALM_S = 10.0
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
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cache = cache
        self._limit = limit
        self._trim = trim
        self._recorder = recorder
        self._used = used
        self._clock = clock
        self._most = cache.budget_bytes
        self._least = int(self._most * FLOOR_SHARE)
        self._line = limit.n_bytes - max(RESERVE_BYTES, int(limit.n_bytes * RESERVE_SHARE))
        self._slack = int(limit.n_bytes * SLACK_SHARE)
        self._lowered_bytes = 0
        self._stalled_at = -float("inf")
        self._said = Throttle(SAY_S, clock)
        self._pause_s = LOOK_S
        self._is_closed = False
        self._pressure = Pressure(limit)
        self._thread = threading.Thread(target=self._run, name="memory-guard", daemon=True)

    def start(self) -> None:
        self._recorder.gauge(CONTAINER_MEMORY_UTILIZATION, lambda: 100 * self._used(self._limit) / self._limit.n_bytes)
        log.debug("memory is looked after with the help of %s", self._pressure.source or "the clock alone")
        self._thread.start()

    def close(self) -> None:
        self._is_closed = True
        self._pressure.wake()
        if self._thread.ident is not None:
            self._thread.join()
        self._pressure.close()

    def _run(self) -> None:
        while True:
            is_stalled = self._pressure.wait(self._pause_s)
            if self._is_closed:
                return
            try:
                if is_stalled:
                    self.stalled()
                self.look()
            except (OSError, KeyError, ValueError) as error:
                log.warning("memory is not looked after any more: %s says %r", self._limit.source, error)
                return

    def stalled(self) -> None:
        """The kernel has said that processes stand still for want of memory."""
        self._stalled_at = self._clock()
        step = int(self._limit.n_bytes * STALL_SHARE)
        self._lowered_bytes = min(self._lowered_bytes + step, int(self._limit.n_bytes * MOST_STALL_SHARE))

    def look(self) -> int:
        """One look, and what follows from it. Returns the bytes evicted."""
        now = self._clock()
        if self._lowered_bytes and now - self._stalled_at >= CALM_S:
            self._lowered_bytes = 0
        used = self._used(self._limit)
        booked = self._cache.resident_bytes
        left = self._line - self._lowered_bytes - used
        allowed = booked + left - self._slack
        if left >= 0:  # near the line or below it: nobody leaves
            allowed = max(booked, allowed)
        allowed = max(self._least, min(self._most, allowed))
        self._pause_s = min(LOOK_S, max(MIN_LOOK_S, left / GROWTH_BYTES_PER_S))
        evicted = self._cache.resize(allowed)
        if evicted:
            self._trim()
            self._recorder.count(MEMORY_SHORTAGES)
            if self._said.is_due():
                log.warning(
                    "memory runs short: %d bytes of the %d that %s allows are used, %d by this process, %d of these by "
                    "models%s; models of %d bytes were evicted and may have %d of their %d for now",
                    used, self._limit.n_bytes, self._limit.source, process_resident_bytes(), booked,
                    ", and the kernel reports stalls" if self._lowered_bytes else "", evicted, allowed, self._most,
                )  # fmt: skip
        return evicted
