"""How far a long command is: one line that is written over where a person waits, a line every so often where nobody does."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from typing import TypeVar

from handler.throttle import Throttle

SHOWN_EVERY_S = 0.2
SAID_EVERY_S = 10.0

Given = TypeVar("Given")
Came = TypeVar("Came")


class Progress:
    def __init__(self, what: str, total: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._what = what
        self._total = total
        self._is_person = sys.stderr.isatty()
        self._due = Throttle(SHOWN_EVERY_S if self._is_person else SAID_EVERY_S, clock)
        self._due.is_due()  # what is done at once needs no line
        self._lock = threading.Lock()
        self._n_done = 0
        self._is_shown = False

    def step(self) -> None:
        with self._lock:
            self._n_done += 1
            if not self._due.is_due():
                return
            said = f"{self._what} {self._n_done:,} of {self._total:,}"
            self._is_shown = True
            print(f"\r\x1b[K{said}" if self._is_person else said, end="" if self._is_person else "\n",
                  file=sys.stderr, flush=True)  # fmt: skip

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_shown and self._is_person:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def each(what: str, do: Callable[[Given], Came], given: Iterable[Given], total: int, n_at_once: int) -> Iterator[Came]:
    """What comes of each, as it comes; a few more are begun than are under way, however many there are. The first error
    ends it, once those begun are over."""
    with Progress(what, total) as progress, ThreadPoolExecutor(n_at_once) as threads:
        left = iter(given)
        begun = {threads.submit(do, one) for _, one in zip(range(2 * n_at_once), left, strict=False)}
        try:
            while begun:
                done, begun = wait(begun, return_when=FIRST_COMPLETED)
                for one in done:
                    came = one.result()
                    progress.step()
                    yield came
                begun |= {threads.submit(do, one) for _, one in zip(done, left, strict=False)}
        finally:
            for one in begun:
                one.cancel()
