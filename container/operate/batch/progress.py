"""How far a run is: files, rows, and the time left by the bytes of its files."""

from __future__ import annotations

import threading
from typing import TextIO

from container.operate.progress import Line, TimeLeft


class Progress:
    """Told of rows and files from many threads. n_bytes: of all files. file: where lines go; None is stderr."""

    def __init__(self, n_files: int, n_bytes: int, *, file: TextIO | None = None) -> None:
        self._n_files = n_files
        self._n_bytes = max(1, n_bytes)
        self._line = Line(file=file)
        self._time = TimeLeft()
        self._lock = threading.Lock()
        self.n_rows = 0
        self.n_files_done = 0
        self.n_bytes_done = 0

    def rows(self, n_rows: int) -> None:
        self.add(n_rows, 0, 0)

    def add(self, n_rows: int, n_files: int, n_bytes: int) -> None:
        """So many more, and bytes of those files."""
        with self._lock:
            self.n_rows += n_rows
            self.n_files_done += n_files
            self.n_bytes_done += n_bytes
            self._line.tell(self.text)

    def close(self) -> None:
        self._line.close()

    def text(self) -> str:
        rows = f"{self.n_rows:,} rows  {self.n_rows / self._time.passed_s:,.0f} rows/s"
        left = self._time.text(self.n_bytes_done / self._n_bytes)
        return f"{self.n_files_done} of {self._n_files} files  {rows}  {left}"
