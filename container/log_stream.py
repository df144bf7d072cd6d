"""A process's stderr whose reader may fall asleep: nobody who writes a line ever waits for it.

A pipe that nobody reads (a log driver whose service is away) would otherwise stop whoever logs next: every thread of the
runtime, the supervisor's one loop, and through it Java, whose lines it passes on.

Rule: `write` appends to a bounded queue and returns. What does not fit is dropped and counted, and how many lines that were
is the first thing written when the reader is back.
"""

from __future__ import annotations

import atexit
import io
import os
import select
import sys
import threading
import time
from collections import deque
from collections.abc import Callable

MAX_QUEUED_BYTES = 1 << 20  # some ten thousand lines
LAST_WORDS_S = 1.0  # at the end, for what is queued


class LogStream(io.TextIOBase):
    """Text for a descriptor, written line by line on a thread of its own; the descriptor stays its owner's.

    on_dropped   told how many lines were dropped each time some are; may be set at any time, and must not log
    """

    def __init__(self, descriptor: int, max_bytes: int = MAX_QUEUED_BYTES) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._max_bytes = max_bytes
        self._changed = threading.Condition()
        self._lines: deque[bytes] = deque()
        self._n_bytes = 0  # queued, the line being written included
        self._partial: list[str] = []
        self._untold = 0
        self.on_dropped: Callable[[int], None] = lambda _: None
        threading.Thread(target=self._write_all, name="log", daemon=True).start()

    def fileno(self) -> int:
        return self._descriptor

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        """Queue what ends a line; keep the rest until its end comes."""
        head, newline, rest = text.rpartition("\n")
        with self._changed:
            if not newline:
                self._partial.append(text)
                return len(text)
            lines = "".join([*self._partial, head])
            self._partial = [rest] if rest else []
            n_dropped = self._queue(f"{lines}\n".encode(errors="backslashreplace"))
            self._untold += n_dropped
            self._changed.notify_all()
        if n_dropped:
            self.on_dropped(n_dropped)
        return len(text)

    def _queue(self, data: bytes) -> int:
        """How many lines there was no room for."""
        if self._n_bytes + len(data) > self._max_bytes:
            return data.count(b"\n")
        self._lines.append(data)
        self._n_bytes += len(data)
        return 0

    def drain(self, deadline_s: float = LAST_WORDS_S) -> bool:
        """Wait until all is written, for at most so long. False: it is not."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._n_bytes, deadline_s)

    def _write_all(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._lines)
                data = self._lines.popleft()
            self._write_whole(data)
            with self._changed:
                self._n_bytes -= len(data)
                if (
                    self._untold and not self._lines
                ):  # told when the reader has caught up, not for each line he lets pass
                    at = time.strftime("%Y-%m-%d %H:%M:%S")
                    told = f"{at} WARNING mme: {self._untold} lines of this log were dropped: nobody read it\n"
                    self._untold = self._queue(told.encode())  # 0: there is nothing else queued
                self._changed.notify_all()

    def _write_whole(self, data: bytes) -> None:
        while data:
            try:
                data = data[os.write(self._descriptor, data) :]
            except BlockingIOError:  # somebody who shares it has made it non-blocking
                select.select([], [self._descriptor], [])
            except OSError:  # closed, or a full disk: the next line may fare better
                return


def take_over_stderr() -> LogStream:
    """Make this process's sys.stderr one that never waits; what is queued at the end is written for LAST_WORDS_S."""
    stream = LogStream(sys.stderr.fileno())
    sys.stderr = stream
    atexit.register(stream.drain)
    return stream
