"""What is put by on disk and read again at its place, as long as somebody holds it.

Rule: the file has no name, so it is gone with the process, however that ends.
"""

from __future__ import annotations

import os
import tempfile
import weakref
from pathlib import Path

from container.operate.tables.spill import full_is_said


class Pages:
    """Safe to read from many threads at once."""

    def __init__(self, scratch: Path | None = None) -> None:
        self._scratch = scratch or Path(tempfile.gettempdir())
        with full_is_said(self._scratch):
            self._file, path = tempfile.mkstemp(dir=scratch)
        os.unlink(path)
        weakref.finalize(self, os.close, self._file)
        self.n_bytes = 0

    def add(self, data: bytes | memoryview) -> int:
        """Where it lies. Raises NotNow when the disk is full."""
        at = self.n_bytes
        left = memoryview(data).cast("B")
        with full_is_said(self._scratch):
            while left:
                n_written = os.pwrite(self._file, left, self.n_bytes)
                self.n_bytes += n_written
                left = left[n_written:]
        return at

    def get(self, at: int, n_bytes: int) -> bytes:
        parts = []
        while n_bytes:
            part = os.pread(self._file, n_bytes, at)
            if not part:
                raise EOFError(f"{self._scratch}: what was put by is not there")
            parts.append(part)
            at += len(part)
            n_bytes -= len(part)
        return b"".join(parts)
