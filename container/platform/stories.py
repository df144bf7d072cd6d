"""What takes time, told straight: a generator that yields what it waits for and goes on when that has come.

    yield 60.0              until so many platform seconds have passed
    instance = yield future until a thread is done; its result, or its error raised here

Rule: between two waits a story runs on the clock's thread, so it is over at once and never blocks.
"""

from __future__ import annotations

import logging
from collections.abc import Generator
from concurrent.futures import Future
from typing import Any

from container.platform.clock import Clock, Timer

log = logging.getLogger(__name__)

Tale = Generator["float | Future[Any]", Any, None]


class Story:
    """One that is being told. It begins when the clock comes to it."""

    def __init__(self, clock: Clock, tale: Tale) -> None:
        self._clock = clock
        self._tale = tale
        self._timer: Timer = clock.call_later(0.0, lambda: self._go_on(None))
        self.is_over = False

    def end(self) -> None:
        """Tell no more of it. To be called on the clock's thread, or where the clock has stopped."""
        self.is_over = True
        self._timer.cancel()
        self._tale.close()

    def _go_on(self, done: Future[Any] | None) -> None:
        if self.is_over:
            return
        try:
            if done is None:
                wait = next(self._tale)
            elif (error := done.exception()) is not None:
                wait = self._tale.throw(error)
            else:
                wait = self._tale.send(done.result())
        except StopIteration:
            self.is_over = True
        except Exception:
            self.is_over = True
            log.exception("a story broke off")
        else:
            self._wait(wait)

    def _wait(self, wait: float | Future[Any]) -> None:
        if isinstance(wait, Future):
            # A thread that has finished says so to the clock, so that all of the story runs in one place.
            wait.add_done_callback(lambda done: self._clock.call_later(0.0, lambda: self._go_on(done)))
        else:
            self._timer = self._clock.call_later(wait, lambda: self._go_on(None))
