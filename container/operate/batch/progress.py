"""How far a run is: files, rows, and the time left by the bytes of its files."""

from __future__ import annotations

import threading

from container.operate.progress import Line, TimeLeft


class Progress:
    """Told of rows and files from many threads. n_bytes: of all files."""

    def __init__(self, n_files: int, n_bytes: int) -> None:
        self._n_files = n_files
        self._n_bytes = max(1, n_bytes)
        self._line = Line()
        self._time = TimeLeft()
        self._lock = threading.Lock()
        self.n_rows = 0
        self._n_files_done = 0
        self._n_bytes_done = 0

    def rows(self, n_rows: int) -> None:
        with self._lock:
            self.n_rows += n_rows
            self._line.tell(self.text)

    def file_done(self, n_bytes: int) -> None:
        with self._lock:
            self._n_files_done += 1
            self._n_bytes_done += n_bytes
            self._line.tell(self.text)

    def close(self) -> None:
        self._line.close()

    def text(self) -> str:
        rows = f"{self.n_rows:,} rows  {self.n_rows / self._time.passed_s:,.0f} rows/s"
        left = self._time.text(self._n_bytes_done / self._n_bytes)
        return f"{self._n_files_done} of {self._n_files} files  {rows}  {left}"
