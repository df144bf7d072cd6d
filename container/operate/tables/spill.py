"""Tables put by on disk while memory is needed for something else.

Rule: the file has no name, so it is gone with the process, however that ends. A disk without room ends the work, and is said
with its place.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from container.operate.troubles import Misused, NotNow

if TYPE_CHECKING:
    import pyarrow as pa

MOST_PIECES = 1024  # in one call: Linux's IOV_MAX
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_ELSEWHERE = "TMPDIR names another place, or --scratch where the command has it, and the same command goes on"


@dataclass(frozen=True, slots=True)
class Extent:
    """Where a table lies."""

    at: int
    n_bytes: int


class Spill:
    """One file of tables, each written once and read whole. Safe to use from many threads."""

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        self._file = tempfile.TemporaryFile(dir=scratch)  # noqa: SIM115  closed by `close`
        self._lock = threading.Lock()  # guards what follows; threads write side by side
        self._n_bytes = 0

    def put(self, table: pa.Table | pa.RecordBatch) -> Extent:
        """Raises NotNow when the disk is full."""
        import pyarrow as pa

        made = _Pieces()
        with pa.PythonFile(made, "w") as sink, pa.ipc.new_stream(sink, table.schema) as stream:
            stream.write(table)
        with self._lock:
            extent = Extent(self._n_bytes, sum(map(len, made.pieces)))
            self._n_bytes += extent.n_bytes
        with full_is_said(self._scratch):
            _write(self._file.fileno(), made.pieces, extent.at)
        return extent

    def get(self, extent: Extent) -> pa.Table:
        import pyarrow as pa

        data = memoryview(bytearray(extent.n_bytes))
        n_read = 0
        while n_read < len(data):
            n_more = os.preadv(self._file.fileno(), [data[n_read:]], extent.at + n_read)
            if not n_more:
                raise EOFError(f"{self._scratch}: what was put by is not there")
            n_read += n_more
        return pa.ipc.open_stream(pa.py_buffer(data)).read_all()

    def close(self) -> None:
        self._file.close()


class _Pieces:
    """A file that Arrow writes to: it keeps what it is given where that lies. To copy a table into one piece takes as long as
    to write it."""

    def __init__(self) -> None:
        self.pieces: list[memoryview] = []
        self.closed = False

    def write(self, piece: bytes) -> int:
        self.pieces.append(memoryview(piece))
        return len(self.pieces[-1])

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True


def _write(file: int, pieces: list[memoryview], at: int) -> None:
    """All of them, one after the other."""
    while pieces:
        n_written = os.pwritev(file, pieces[:MOST_PIECES], at)
        at += n_written
        n_whole = 0
        while n_whole < len(pieces) and n_written >= len(pieces[n_whole]):
            n_written -= len(pieces[n_whole])
            n_whole += 1
        pieces = pieces[n_whole:]
        if n_written:
            pieces[0] = pieces[0][n_written:]


def look_for_room(scratch: Path, n_bytes: int) -> None:
    """That so much may be put by. Raises NotNow."""
    n_free = shutil.disk_usage(scratch).free
    if n_free < n_bytes:
        raise NotNow(
            f"{scratch} has room for {n_free:,} bytes; {n_bytes:,} at least will be put by there, of rows whose models do "
            f"not fit into memory together; more --memory needs less, {_ELSEWHERE}"
        )


@contextmanager
def full_is_said(scratch: Path) -> Iterator[None]:
    """Raises NotNow when the disk is full."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise NotNow(f"{scratch} is full ({error.strerror}); {_ELSEWHERE}") from error


@contextmanager
def scratch_file() -> Iterator[IO[bytes]]:
    """A file without a name, for what need not be in memory. Raises NotNow when the disk is full."""
    scratch = Path(tempfile.gettempdir())
    with full_is_said(scratch), tempfile.TemporaryFile(dir=scratch) as file:
        yield file


@contextmanager
def scratch_folder(where: str | None) -> Iterator[Path]:
    """A folder of this run, below `where` or the system's place for such. Raises Misused when none can be made."""
    try:
        folder = tempfile.TemporaryDirectory(prefix="mme-score-", dir=where)
    except OSError as error:
        raise Misused(f"--scratch {where or tempfile.gettempdir()}: {error.strerror}") from error
    with folder as path:
        yield Path(path)
