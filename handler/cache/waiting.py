"""Callers who wait for loads: how many may, and how long one more may stay.

Rule: threads stay free for models in memory. With 0.25 s for each caller too many, a storm of 500 first calls from a slow
S3 kept hot ones waiting for 9 s; so one more is turned away, soon while loads are short and at once while they are not.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from handler.errors import ModelNotReady

# A wait for a load from nearby. While most are no longer, first calls may stay for some of them although too many wait.
SHORT_WAIT_S = 0.05


class Waiting:
    """Places for callers that wait; safe to use from many threads.

    most   that may wait at the same time
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._places = threading.BoundedSemaphore(most)
        self._lock = threading.Lock()  # guards the two lines below
        self.n_waiting = 0
        self._typical_s = 0.0  # of late

    @property
    def is_crowded(self) -> bool:
        """Whether no more callers may wait; `place` then raises at once."""
        return self.n_waiting >= self._most and not self._patience_s

    @property
    def _patience_s(self) -> float:
        """How long a caller may stay for whom there is no place: some loads long while those are short, else not at all."""
        return 0.0 if self._typical_s > SHORT_WAIT_S else max(SHORT_WAIT_S, 4 * self._typical_s)

    def learn(self, waited_s: float) -> None:
        """A caller has waited so long for a load, in vain or not."""
        with self._lock:
            self._typical_s += (waited_s - self._typical_s) / 5

    @contextmanager
    def place(self, target: str, wait_s: float, when_full: Callable[[], object]) -> Iterator[None]:
        """A place among those who wait. Raises ModelNotReady when none is free, or none becomes free soon.

        when_full   called once when none is free, before the caller waits or is turned away
        """
        if not self._places.acquire(blocking=False):
            when_full()
            patience_s = min(wait_s, self._patience_s)
            if not patience_s:
                raise ModelNotReady(target, 0.0)
            if not self._places.acquire(timeout=patience_s):
                self.learn(2 * patience_s)  # at least
                raise ModelNotReady(target, patience_s)
        with self._lock:
            self.n_waiting += 1
        try:
            yield
        finally:
            with self._lock:
                self.n_waiting -= 1
            self._places.release()
