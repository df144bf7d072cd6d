"""Spreading loads out while models in memory are asked for.

Loads that begin together end together: the store takes about as long for each. Four artifacts that arrive at once are
20 ms of work for two cores, and calls for models in memory wait that long; the same four, one every 20 ms, they hardly
notice. The price: beside many such calls two cores begin 50 loads a second at most. With 0.1 s from S3 that costs nothing,
as four loaders begin 40; from a faster store they would begin more.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable

# Between two beginnings, on one core; with more cores there is that much less to wait for. A small booster takes 5 ms of
# processor time from its request to its place in memory.
SPACING_S = 0.04
# Calls for models in memory that come for each load before loads are spread out. Below that most of the work is loading,
# and callers wait for it.
HITS_PER_LOAD = 20
MEMORY_S = 1.0  # what came longer ago counts for less than 1/e


class Pacer:
    """Says when a load may begin; any number of threads may ask.

    n_hits   how many calls have found their model in memory so far
    n_cores  that may be kept busy; need not be whole
    """

    def __init__(
        self,
        n_hits: Callable[[], int],
        n_cores: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._n_hits = n_hits
        self._spacing_s = SPACING_S / n_cores
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()  # guards the lines below
        self._looked_at = clock()
        self._seen = 0
        self._hits = 0.0  # of late
        self._begun = 0.0  # loads, of late
        self._next_at = 0.0

    def wait(self) -> None:
        """Return when the load may begin: at once, unless there is much else to do and another has just begun."""
        with self._lock:
            now = self._clock()
            is_hot = self._look(now)
            begins_at = max(now, self._next_at) if is_hot else now
            self._next_at = begins_at + self._spacing_s
        if begins_at > now:
            self._sleep(begins_at - now)

    def _look(self, now: float) -> bool:
        """Whether calls for models in memory far outnumber loads, this one included."""
        n_hits = self._n_hits()
        kept = math.exp((self._looked_at - now) / MEMORY_S)
        self._hits = self._hits * kept + n_hits - self._seen
        self._begun = self._begun * kept + 1
        self._looked_at, self._seen = now, n_hits
        return self._hits >= HITS_PER_LOAD * self._begun
