"""The floor: of all who read bodies and write answers at a time, the one that does.

Python hands its lock round among all threads that ask for it, to each for 0.1 ms and the moment it takes to wake it. The
thread that answers small requests is one of these, and asks several times a call. Beside ten threads in the middle of bodies
it waits for ten of them each time; beside the one that has the floor, for one. All bodies together are done no later.

Rule: who has the floor waits for nothing, for no turn, no load and no other floor.
"""

from __future__ import annotations

import threading
from collections import deque


class Floor:
    """Given to one thread at a time, in the order in which they came; a context manager."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards the two lines below
        self._is_taken = False
        self._line: deque[threading.Lock] = deque()  # one for each who waits, let go when it is his turn

    @property
    def n_waiting(self) -> int:
        return len(self._line)

    def __enter__(self) -> None:
        with self._lock:
            if not self._is_taken:
                self._is_taken = True
                return
            turn = threading.Lock()
            turn.acquire()
            self._line.append(turn)
        turn.acquire()

    def __exit__(self, *_: object) -> None:
        with self._lock:
            if self._line:
                self._line.popleft().release()
            else:
                self._is_taken = False
