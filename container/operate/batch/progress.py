"""How far a run is: a line that is written over where a person looks on, else a line every 30 s."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from typing import TextIO

LINE_S = 30.0
BAR_S = 0.5


class Progress:
    """Told of rows and parts from many threads. n_bytes: of all files, by which the time left is guessed."""

    def __init__(
        self, n_files: int, n_bytes: int, *, file: TextIO = sys.stderr, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._n_files = n_files
        self._n_bytes = max(1, n_bytes)
        self._file = file
        self._clock = clock
        self._lock = threading.Lock()
        self._began = clock()
        self._is_bar = file.isatty()
        self._said = self._began
        self.n_rows = 0
        self._n_files_done = 0
        self._n_bytes_done = 0

    def rows(self, n_rows: int) -> None:
        with self._lock:
            self.n_rows += n_rows
            self._tell()

    def file_done(self, n_bytes: int) -> None:
        with self._lock:
            self._n_files_done += 1
            self._n_bytes_done += n_bytes
            self._tell()

    def close(self) -> None:
        if self._is_bar:
            print(file=self._file)

    def _tell(self) -> None:
        now = self._clock()
        if now - self._said < (BAR_S if self._is_bar else LINE_S):
            return
        self._said = now
        text = self.text(now)
        print(f"\r{text:<79}" if self._is_bar else text, end="" if self._is_bar else "\n", file=self._file, flush=True)

    def text(self, now: float) -> str:
        passed_s = max(now - self._began, 1e-9)
        share = self._n_bytes_done / self._n_bytes
        left = f"{passed_s / share - passed_s:.0f} s left" if share else "time left unknown until a file is done"
        rows = f"{self.n_rows:,} rows  {self.n_rows / passed_s:,.0f} rows/s"
        return f"{self._n_files_done} of {self._n_files} files  {rows}  {left}"
