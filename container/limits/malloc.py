"""Freed memory, given back.

Rule: a freed model is not memory until `malloc_trim` has run: of 179 MB of deleted boosters the system got back 0 MB
before it and 178 MB after.
"""

from __future__ import annotations

import threading

from container.limits import libc


class Trimmer:
    """Gives freed memory back to the system, on a thread of its own, soon after models were freed.

    Owned by the runtime's main; `close` ends the thread. Under thrash the next model takes the place of the last and there
    is little to give back, so a trim waits until it is worth its time or nothing has been freed for a while.

    worth_bytes   trim at once when so much has been freed
    pause_s       else after so long
    """

    def __init__(self, worth_bytes: int = 16 << 20, pause_s: float = 0.2) -> None:
        self._worth_bytes = worth_bytes
        self._pause_s = pause_s
        self._freed_bytes = 0
        self._wake = threading.Condition()
        self._is_closed = False
        self.n_trims = 0
        self._trim_lock = threading.Lock()
        self._n_begun = 0
        self._thread = threading.Thread(target=self._run, name="trimmer", daemon=True)
        self._thread.start()

    def freed(self, n_bytes: int) -> None:
        """Models of so many bytes have been freed. Cheap; called on any thread."""
        with self._wake:
            was = self._freed_bytes
            self._freed_bytes += n_bytes
            if was == 0 or was < self._worth_bytes <= self._freed_bytes:
                self._wake.notify()

    def trim_now(self) -> None:
        """Give back everything freed before this call; it is the system's when this returns. A trim that began after the
        call serves all who wait for one."""
        begun = self._n_begun
        with self._trim_lock:
            if self._n_begun <= begun:
                self._n_begun += 1
                libc.trim()
                self.n_trims += 1

    def _run(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._freed_bytes or self._is_closed)
                self._wake.wait_for(
                    lambda: self._freed_bytes >= self._worth_bytes or self._is_closed, timeout=self._pause_s
                )
                if self._is_closed:
                    return
                self._freed_bytes = 0
            libc.trim()
            self.n_trims += 1

    def close(self) -> None:
        with self._wake:
            self._is_closed = True
            self._wake.notify()
        self._thread.join()
