"""How far a long command is: one line that is written over where a person waits, a line every so often where nobody does."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from typing import TextIO, TypeVar

from handler.throttle import Throttle

SHOWN_EVERY_S = 0.2
SAID_EVERY_S = 10.0

Given = TypeVar("Given")
Came = TypeVar("Came")


class Line:
    """Where progress is told. Not safe for many threads: whoever counts has a lock already."""

    def __init__(self, *, file: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._file = sys.stderr if file is None else file
        self._is_person = self._file.isatty()
        self._due = Throttle(SHOWN_EVERY_S if self._is_person else SAID_EVERY_S, clock)
        self._due.is_due()  # what is done at once needs no line
        self._is_shown = False

    def tell(self, text: Callable[[], str]) -> None:
        """Show it, when a line is due."""
        if self._due.is_due():
            self._is_shown = True
            self._write(f"\r\x1b[K{text()}" if self._is_person else f"{text()}\n")

    def close(self) -> None:
        """Take it away again."""
        if self._is_shown and self._is_person:
            self._write("\r\x1b[K")

    def _write(self, text: str) -> None:
        print(text, end="", file=self._file, flush=True)


class Progress:
    """Of steps that are all alike."""

    def __init__(self, what: str, total: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._what = what
        self._total = total
        self._line = Line(clock=clock)
        self._lock = threading.Lock()
        self._n_done = 0

    def step(self) -> None:
        with self._lock:
            self._n_done += 1
            self._line.tell(lambda: f"{self._what} {self._n_done:,} of {self._total:,}")

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._line.close()


class TimeLeft:
    """Guessed from the share that is done."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began = clock()

    @property
    def passed_s(self) -> float:
        return max(self._clock() - self._began, 1e-9)

    def text(self, share: float) -> str:
        return f"{self.passed_s / share - self.passed_s:.0f} s left" if share else "time left not known yet"


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
