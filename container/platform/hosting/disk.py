"""An instance's disk: artifacts downloaded and unpacked to <root>/<opaque>/model, the least recently used deleted for room.

Rule: a directory is there whole or not at all, and what is loaded from it is not deleted.
"""

from __future__ import annotations

import hashlib
import io
import shutil
import tarfile
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

from handler.archives import tarball
from handler.stores import Store

DISK_BYTES = 30 << 30  # of an instance for which nobody names another; ours
GZIP_MAGIC = b"\x1f\x8b"
NO_RATIO = 1 << 20  # zlib itself cannot pass 1032
MAX_MEMBERS = 100_000


class ArchiveUnreadable(Exception):
    """What was downloaded is no tar.gz."""


class DiskFull(Exception):
    """Not even deleting everything that is not loaded would make room."""


class Disk:
    """Downloads from `store`, at most `max_bytes` unpacked at once.

    is_pinned   whether a target is loaded and must stay
    """

    def __init__(self, root: Path, store: Store, max_bytes: int, is_pinned: Callable[[str], bool]) -> None:
        self._root = root
        self._store = store
        self._max_bytes = max_bytes
        self._is_pinned = is_pinned
        self._lock = threading.Lock()
        self._sizes: OrderedDict[str, int] = OrderedDict()  # by target, least recently used first

    @staticmethod
    def opaque(target: str) -> str:
        """The platform's own name for a model, which tells nothing of its target."""
        return hashlib.sha256(target.encode()).hexdigest()[:32]

    def find(self, target: str) -> Path | None:
        with self._lock:
            if target not in self._sizes:
                return None
            self._sizes.move_to_end(target)
            return self._path(target)

    def fetch(self, target: str) -> Path:
        """Download and unpack. Raises the store's errors, ArchiveUnreadable, DiskFull."""
        blob = self._store.fetch(target).data
        home = self._root / self.opaque(target)
        part = self._root / f".{home.name}.part"
        shutil.rmtree(part, ignore_errors=True)
        (part / "model").mkdir(parents=True)
        try:
            n_bytes = unpack(blob, part / "model", target, self._max_bytes)
            self._make_room(target, n_bytes)
            shutil.rmtree(home, ignore_errors=True)
            part.rename(home)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            with self._lock:
                self._sizes.pop(target, None)
            raise
        return self._path(target)

    def delete(self, target: str) -> None:
        with self._lock:
            self._sizes.pop(target, None)
        shutil.rmtree(self._root / self.opaque(target), ignore_errors=True)

    @property
    def n_bytes(self) -> int:
        with self._lock:
            return sum(self._sizes.values())

    @property
    def share(self) -> float:
        """Of what there may be."""
        return self.n_bytes / self._max_bytes

    def _path(self, target: str) -> Path:
        return self._root / self.opaque(target) / "model"

    def _make_room(self, target: str, n_bytes: int) -> None:
        victims = []
        with self._lock:
            missing = sum(self._sizes.values()) + n_bytes - self._max_bytes
            for other, size in list(self._sizes.items()):
                if missing <= 0:
                    break
                if not self._is_pinned(other):
                    victims.append(other)
                    missing -= size
            if missing > 0:
                raise DiskFull(f"{target} needs {n_bytes} bytes of a disk of {self._max_bytes}")
            for other in victims:
                del self._sizes[other]
            self._sizes[target] = n_bytes
        for other in victims:
            shutil.rmtree(self._root / self.opaque(other), ignore_errors=True)


def unpack(blob: bytes, directory: Path, target: str, max_bytes: int = DISK_BYTES) -> int:
    """How many bytes its files have. Raises ArchiveUnreadable, DiskFull.

    Read whole, checksums and all, before the first file is written: tarfile itself stops at the end of the tar, and so
    believes a gzip stream that is damaged, cut short or followed by anything.
    """
    if blob[:2] != GZIP_MAGIC:
        raise ArchiveUnreadable(f"{target}: it is no gzip stream")
    try:
        data = tarball.inflate(blob, max_bytes, max_ratio=NO_RATIO)
        for _ in tarball.entries(data, max_members=MAX_MEMBERS):
            pass
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
            tar.extractall(directory, filter="data")
    except tarball.OverLimit as error:
        raise DiskFull(f"{target} {error}") from error
    except (tarball.NotReadable, tarfile.TarError, OSError) as error:
        raise ArchiveUnreadable(f"{target}: {error}") from error
    return sum(path.lstat().st_size for path in directory.rglob("*") if path.is_file())
