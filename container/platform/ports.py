"""Ports for containers: free, and given out once.

Rule: below 32,767, which Multi Model Server holds to be the last one.
"""

from __future__ import annotations

import random
import socket
import threading
from collections.abc import Collection

FIRST, LAST = 18_080, 32_000


class PortsUsedUp(Exception):
    def __init__(self) -> None:
        super().__init__(f"no port of {FIRST} to {LAST} is free")


class Ports:
    """Any thread may take one. It begins anywhere, so that several platforms seldom meet.

    besides   ports that are spoken for, though nobody listens on them yet
    """

    def __init__(self, besides: Collection[int] = ()) -> None:
        self._besides = frozenset(besides)
        self._lock = threading.Lock()
        self._next = random.SystemRandom().randrange(FIRST, LAST)

    def take(self) -> int:
        """Raises PortsUsedUp."""
        with self._lock:
            for _ in range(FIRST, LAST):
                port, self._next = self._next, self._next + 1 if self._next + 1 < LAST else FIRST
                if port not in self._besides and _is_free(port):
                    return port
        raise PortsUsedUp


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
