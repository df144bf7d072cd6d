"""Signals that end a long command, as an event that it looks at and waits for.

Rule: a handler takes no lock. It runs in the middle of whatever the main thread does, which may be inside the very event, and
`Event.set` would then wait for itself for ever; so a thread of ours sets it.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from queue import SimpleQueue

ENDING = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def stopped_by_signals() -> Iterator[threading.Event]:
    """Set by the first of them, as long as this lasts. For the main thread."""
    stop = threading.Event()
    came: SimpleQueue[bool] = SimpleQueue()  # its `put` may come in the middle of another one

    def set_when_one_came() -> None:
        if came.get():
            stop.set()

    waiting = threading.Thread(target=set_when_one_came, name="signals")
    waiting.start()
    before = {number: signal.signal(number, lambda *_: came.put(True)) for number in ENDING}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        came.put(False)
        waiting.join()
