"""That a command is asked to end: SIGINT and SIGTERM, heard whatever its threads are doing.

A handler of Python's runs on the main thread. While another thread starts a process, a signal may not wake that one: it is
heard with the next signal only (CPython 3.11 on Linux 6.18, 9 of 150 that were sent at such a moment). Its number also comes
through the interpreter's wakeup descriptor, and that is what is read here.

Rule: no handler raises. Whoever works looks at an event, and whoever waits waits for it. No handler sets it: one that came
inside of that very event's wait would wait for itself for ever.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

ENDING = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def stop_event(*, is_last: bool = False) -> Iterator[threading.Event]:
    """An event that is set when this process is asked to end. On the main thread; what was heard before is heard again
    afterwards.

    is_last   the process ends behind it: once it was asked to, being asked again changes nothing
    """
    stop = threading.Event()
    with hearing(lambda _: stop.set(), ENDING, ignores_then=lambda: is_last and stop.is_set()):
        yield stop


@dataclass(frozen=True, slots=True)
class Steps:
    """Work that is cut off between its steps, and where it waits, once `stop` is set: by KeyboardInterrupt, of which nobody
    makes an error of his own. Never inside of a step: what is raised in a destructor is lost."""

    stop: threading.Event

    def begin(self) -> None:
        """The next step."""
        if self.stop.is_set():
            raise KeyboardInterrupt

    def pause(self, seconds: float) -> None:
        if self.stop.wait(seconds):
            raise KeyboardInterrupt


@contextmanager
def hearing(
    hear: Callable[[int], None],
    numbers: tuple[signal.Signals, ...],
    *,
    ignores_then: Callable[[], bool] = lambda: False,
) -> Iterator[None]:
    """Have `hear` called with each of these signals, on a thread of its own that ends with the block.

    ignores_then   asked at its end: whether nobody is to hear them any more
    """
    ours, theirs = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(theirs, False)  # as set_wakeup_fd asks: a full pipe holds nobody up

    def read() -> None:
        while data := os.read(ours, 64):
            for number in data:
                if number in numbers:
                    hear(number)

    thread = threading.Thread(target=read, name="signals", daemon=True)
    thread.start()
    before = {number: signal.signal(number, lambda *_: None) for number in numbers}
    descriptor = signal.set_wakeup_fd(theirs, warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(descriptor)
        os.close(theirs)
        thread.join()
        os.close(ours)
        for number, handler in before.items():
            signal.signal(number, signal.SIG_IGN if ignores_then() else handler)
