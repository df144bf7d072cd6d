"""The platform's time, which may run faster than everyone else's: waits, alarms and cooldowns are counted in it.

Rule: a callback runs on the clock's one thread and is over at once; whoever has long work hands it to a thread of his own.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

log = logging.getLogger(__name__)


class Timer:
    """One call that is to come."""

    def __init__(self, due_s: float, what: Callable[[], object]) -> None:
        self.due_s = due_s
        self._what: Callable[[], object] | None = what

    def cancel(self) -> None:
        """It will not be made, unless it is being made just now."""
        self._what = None

    def fire(self) -> None:
        what, self._what = self._what, None
        if what is None:
            return
        try:
            what()
        except Exception:
            log.exception("a call that was due failed")


class Clock:
    """Any thread may ask it.

    speed   platform seconds in one real second
    start   what `now` says at the beginning; else this machine's time
    """

    def __init__(self, speed: float = 1.0, start: datetime | None = None) -> None:
        self.speed = speed
        self._start = start or datetime.now(UTC)
        self._began_s = time.monotonic()
        self._order = itertools.count()
        self._changed = threading.Condition()
        self._due: list[tuple[float, int, Timer]] = []
        self._is_closed = False
        self._thread = self._started_thread()

    def monotonic(self) -> float:
        """Platform seconds since the clock was made."""
        return (time.monotonic() - self._began_s) * self.speed

    def now(self) -> datetime:
        """Platform time, UTC."""
        return self._start + timedelta(seconds=self.monotonic())

    def call_later(self, seconds: float, what: Callable[[], object]) -> Timer:
        """Have `what` called when so many platform seconds have passed; of what is due at once, the first asked is first."""
        with self._changed:
            timer = Timer(self.monotonic() + seconds, what)
            heapq.heappush(self._due, (timer.due_s, next(self._order), timer))
            self._changed.notify_all()
        return timer

    def wait(self, seconds: float) -> bool:
        """Let platform seconds pass in the caller's thread. False when the clock was closed before they had."""
        until_s = self.monotonic() + seconds
        with self._changed:
            while not self._is_closed and (left_s := until_s - self.monotonic()) > 0:
                self._changed.wait(self._real(left_s))
            return not self._is_closed

    def close(self) -> None:
        """Nothing is called any more, and nobody waits."""
        with self._changed:
            self._is_closed = True
            self._due.clear()
            self._changed.notify_all()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _real(self, seconds: float) -> float | None:
        return seconds / self.speed

    def _started_thread(self) -> threading.Thread | None:
        thread = threading.Thread(target=self._run, name="clock", daemon=True)
        thread.start()
        return thread

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._is_closed and (not self._due or self._due[0][0] > self.monotonic()):
                    self._changed.wait(self._real(self._due[0][0] - self.monotonic()) if self._due else None)
                if self._is_closed:
                    return
                timer = heapq.heappop(self._due)[2]
            timer.fire()


class ManualClock(Clock):
    """Stands still until it is told to go on: for tests."""

    def __init__(self, start: datetime | None = None) -> None:
        self._at_s = 0.0
        super().__init__(1.0, start or datetime(2026, 1, 1, tzinfo=UTC))

    def monotonic(self) -> float:
        return self._at_s

    def advance(self, seconds: float = 0.0) -> None:
        """Go on, and run in this thread what becomes due, in its order, each at its own time."""
        until_s = self._at_s + seconds
        while True:
            with self._changed:
                if not self._due or self._due[0][0] > until_s:
                    self._at_s = max(self._at_s, until_s)
                    self._changed.notify_all()
                    return
                timer = heapq.heappop(self._due)[2]
                self._at_s = max(self._at_s, timer.due_s)
                self._changed.notify_all()
            timer.fire()

    def _real(self, seconds: float) -> float | None:  # noqa: ARG002
        return None  # only `advance` ends a wait

    def _started_thread(self) -> threading.Thread | None:
        return None
