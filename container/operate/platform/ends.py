"""The signal that ends the platform.

Rule: a handler runs inside of whatever the main thread is doing just then, its own wait or another handler included. It may
take no lock that those hold, so it is no Event that it sets.
"""

from __future__ import annotations

import signal
from queue import SimpleQueue


def ends() -> SimpleQueue[int]:
    """Gets the number of each SIGINT and SIGTERM from now on."""
    asked: SimpleQueue[int] = SimpleQueue()  # whose `put` may be entered again. Source: Python's library reference
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda given, _: asked.put(given))
    return asked
