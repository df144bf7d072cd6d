"""The life of a scratch directory: made, held, looked after, and swept away by the next launch if its owner was killed.

Rule: whoever holds the lock of a directory owns it. Cleaners of temporary directories honour it (systemd-tmpfiles(8) skips
what is locked), and a directory with our mark and without a lock belongs to nobody any more.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import platform
import shutil
import stat
import tempfile
from pathlib import Path

from container.launch import mms

log = logging.getLogger("mme")

PREFIX = "mme-"
MARK = "scratch-of-an-endpoint"


class ScratchDirectory:
    """A fresh directory, locked until `close` removes it.

    below    where to make it; None is the system's place for temporary files
    raises   ScratchUnusable
    """

    def __init__(self, below: str | None) -> None:
        try:
            sweep(below)
            self.root = Path(tempfile.mkdtemp(prefix=PREFIX, dir=below))
            self._descriptor = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            (self.root / MARK).touch(mode=0o600)  # only now: marked and not locked is ours to sweep
        except OSError as error:
            raise mms.ScratchUnusable(
                f"no scratch directory in {error.filename}: {error.strerror}; set MME_SCRATCH"
            ) from error

    def trouble(self, needed: list[Path]) -> str:
        """What of it is gone, in words; empty when all that is needed is there."""
        if os.fstat(self._descriptor).st_nlink == 0 or not _is_same(self._descriptor, self.root):
            return f"the scratch directory {self.root} was removed"
        gone = next((path for path in needed if not os.path.lexists(path)), None)
        return f"{gone} was removed" if gone is not None else ""

    def refuse_noexec(self) -> None:
        """Java would have to unpack Netty's library into it and run it from there. Raises ScratchUnusable."""
        if os.statvfs(self._descriptor).f_flag & os.ST_NOEXEC and not netty_library().exists():
            raise mms.ScratchUnusable(
                f"{self.root.parent} is mounted noexec, and {netty_library().name} would have to be unpacked there: set "
                f"MME_SCRATCH to another directory, or put that file of the jar beside it in {netty_library().parent}"
            )

    def close(self) -> None:
        shutil.rmtree(self.root, ignore_errors=True)
        os.close(self._descriptor)


def netty_library() -> Path:
    """Where Netty looks for its native library before it unpacks one: see container/image/install.sh and build.sh."""
    name = {"x86_64": "x86_64", "aarch64": "aarch_64"}.get(platform.machine(), platform.machine())
    return mms.jar_path().with_name(f"libnetty_transport_native_epoll_{name}.so")


def sweep(below: str | None) -> None:
    """Remove what launches that were killed have left there: ours, marked, and locked by nobody."""
    with os.scandir(tempfile.gettempdir() if below is None else below) as entries:
        names = [entry.path for entry in entries if entry.name.startswith(PREFIX)]
    for name in names:
        with contextlib.suppress(OSError):  # locked, another's, or swept by another launch just now
            _sweep(Path(name))


def _sweep(root: Path) -> None:
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        mark = os.stat(MARK, dir_fd=descriptor, follow_symlinks=False)
        if not (os.fstat(descriptor).st_uid == mark.st_uid == os.geteuid() and stat.S_ISREG(mark.st_mode)):
            return
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        log.info("%s was left by an endpoint that was killed; removing it", root)
        shutil.rmtree(root, ignore_errors=True)
    finally:
        os.close(descriptor)


def _is_same(descriptor: int, path: Path) -> bool:
    ours = os.fstat(descriptor)
    try:
        there = os.stat(path, follow_symlinks=False)
    except OSError:
        return False
    return (ours.st_dev, ours.st_ino) == (there.st_dev, there.st_ino)
