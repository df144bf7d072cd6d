"""Drain: after SIGTERM the runtime answers what is in flight, and says when nothing is any more.

The supervisor sends `drain` and ends the processes on `drained`, or when its time for that is over.

Rule: quiet is a span and no moment. MMS passes a request on the instant a worker is free, so after QUIET_S without one there
is none in its queue either.
"""

from __future__ import annotations

import time
from collections.abc import Callable

QUIET_S = 0.25


class Drain:
    """Looked at on the runtime's main thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._quiet_since: float | None = None
        self._n_served = 0
        self.has_begun = False

    def begin(self) -> None:
        self.has_begun = True

    def is_done(self, n_served: int, *, is_busy: bool) -> bool:
        """Whether nothing has been under way for long enough. n_served: requests answered since the start, in all."""
        now = self._clock()
        if is_busy or n_served != self._n_served:
            self._n_served, self._quiet_since = n_served, None
        elif self._quiet_since is None:
            self._quiet_since = now
        return self._quiet_since is not None and now - self._quiet_since >= QUIET_S
