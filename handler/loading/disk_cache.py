"""Examined artifacts kept on disk, least recently used first out.

What is kept is the verdict: the documents libxgboost wrote in quarantine, the facts of each, and the version of the
artifact they came from. A model that was evicted, or that served before a restart, is loaded from here without a request
to S3 and without an examination.

Rule: the disk cache may be empty, full, read-only, cut short or flipped, and costs no more than a download for it. A file is
believed only when the checksum of all of it is right and it says that it is what was asked for; libxgboost crashes on
damaged documents, so nothing else may reach it. The directory is opened once and reached by its descriptor ever after, and
every file is looked at where it was opened: whoever may write above the directory can put another in its place, and gets
nothing read by that.

    <root>/lock            held by the one endpoint that uses the directory
    <root>/<key>           as kept_file.py says
                           its mtime is when the store last confirmed it, its atime when it was last used, to the hour
    <root>/<key>.*.part    being written
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import os
import stat
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from handler.loading.kept_file import Kept, kept_of, parsed, pieces_of, read_ordinary
from handler.predictor import Facts
from handler.throttle import Throttle

log = logging.getLogger(__name__)

PART = ".part"
KEY_CHARS = 40
SAY_S = 60.0  # a disk that fails, fails for every model; it is said this often


class DiskCacheUnusable(Exception):
    """The directory cannot be used, and why."""


@dataclass(slots=True)
class _Place:
    """A file in the index. `version` is None until the file has been read or written by this process."""

    n_bytes: int
    version: str | None = None


class DiskCache:
    """A bounded directory of verdicts; safe to use from many threads, by one process.

    max_bytes   of all files together
    maker       what made the verdicts: another importer, XGBoost or store is another maker and finds nothing
    clock_s     seconds since the epoch, as files have them
    raises      DiskCacheUnusable: it cannot be written, is not ours alone, or another endpoint uses it
    """

    def __init__(self, root: Path, *, max_bytes: int, maker: str, clock_s: Callable[[], float] = time.time) -> None:
        self._root = root
        self._max_bytes = max_bytes
        self._maker = maker
        self._clock_s = clock_s
        self._lock = threading.Lock()  # guards the index, and keeps renames and removals in its order
        self._index: OrderedDict[str, _Place] = OrderedDict()
        self._n_bytes = 0
        self._said = Throttle(SAY_S)
        try:
            root.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._directory = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            raise DiskCacheUnusable(f"{root}: {error.strerror}") from error
        self._lock_file = -1
        if not _is_ours(os.fstat(self._directory)):
            self.close()
            raise DiskCacheUnusable(f"{root}: others may write into it")
        try:
            self._lock_file = self._open("lock", os.O_RDWR | os.O_CREAT)
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._take_stock()
        except OSError as error:
            self.close()
            is_taken = isinstance(error, BlockingIOError)
            raise DiskCacheUnusable(f"{root}: {'another endpoint uses it' if is_taken else error.strerror}") from error

    @property
    def n_bytes(self) -> int:
        return self._n_bytes

    def __len__(self) -> int:
        return len(self._index)

    def __contains__(self, uri: str) -> bool:
        return self._key(uri) in self._index

    def get(self, uri: str) -> Kept | None:
        """What is kept of this artifact, now the most recently used; None when there is nothing, or nothing sound."""
        return self.get_all([uri])[0]

    def get_all(self, uris: Sequence[str]) -> list[Kept | None]:
        """The same of each of several, for less."""
        keys = [self._key(uri) for uri in uris]
        with self._lock:
            here = [at for at, key in enumerate(keys) if key in self._index]
            for at in here:
                self._index.move_to_end(keys[at])
        found: list[Kept | None] = [None] * len(uris)
        now_s = self._clock_s()
        for at, read in zip(here, read_ordinary(self._directory, [keys[at] for at in here], now_s), strict=True):
            if read is not None:
                head, documents, mtime_ns, walkable = read
                checked_s_ago = max(0.0, now_s - mtime_ns / 1e9)
                found[at] = kept_of(head, documents, self._identity(uris[at]), checked_s_ago, walkable)
            if found[at] is None:
                found[at] = self._read(uris[at], keys[at])
        with self._lock:
            for key, kept in zip(keys, found, strict=True):
                place = self._index.get(key)
                if place is not None and kept is not None:
                    place.version = kept.version
        return found

    def _read(self, uri: str, key: str) -> Kept | None:
        """What is kept of this artifact; where that is nothing sound, it is said why, and is gone."""
        try:
            file = self._open(key, os.O_RDONLY)
            try:
                status = os.fstat(file)
                if not (_is_ours(status) and stat.S_ISREG(status.st_mode)):
                    self._lose(key, "others may have written it")
                    return None
                data = _whole(file, status.st_size)
                kept = parsed(data, self._identity(uri), max(0.0, self._clock_s() - status.st_mtime))
                if kept is not None:
                    with contextlib.suppress(OSError):  # then only the order after a restart suffers
                        os.utime(file, (self._clock_s(), status.st_mtime))
            finally:
                os.close(file)
        except OSError as error:
            self._lose(key, f"it cannot be read ({error.strerror})")
            return None
        if kept is None:
            self._lose(key, "it is damaged")
        return kept

    def put(self, uri: str, version: str, documents: Sequence[bytes], facts: Sequence[Facts]) -> None:
        """Keep a verdict, in the place of any earlier one of this artifact. A disk that fails is a log line."""
        key = self._key(uri)
        pieces = pieces_of(self._identity(uri), version, documents, facts)
        n_bytes = sum(map(len, pieces))
        if n_bytes > self._max_bytes:
            return
        # Not synced: what a power failure leaves of it fails its checksum.
        part = f"{key}.{threading.get_ident()}{PART}"
        try:
            with self._lock:
                self._make_room(n_bytes, key)
            with os.fdopen(self._open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), "wb") as file:
                file.writelines(pieces)
            with self._lock:
                os.replace(part, key, src_dir_fd=self._directory, dst_dir_fd=self._directory)
                before = self._index.pop(key, None)
                self._index[key] = _Place(n_bytes, version)
                self._n_bytes += n_bytes - (before.n_bytes if before else 0)
                self._make_room(0, key)  # another thread may have taken what was made
        except OSError as error:
            with contextlib.suppress(OSError):
                os.unlink(part, dir_fd=self._directory)
            self._say("models cannot be kept on disk: %s: %s", self._root, error.strerror)

    def confirm(self, uri: str, version: str) -> None:
        """The store has just said that this is still its version."""
        key = self._key(uri)
        now_s = self._clock_s()
        with self._lock:
            place = self._index.get(key)
            if place is not None and place.version == version:
                with contextlib.suppress(OSError):  # it will be confirmed again
                    os.utime(key, (now_s, now_s), dir_fd=self._directory, follow_symlinks=False)

    def forget(self, uri: str) -> None:
        """The artifact is no more."""
        with self._lock:
            self._remove(self._key(uri))

    def close(self) -> None:
        """Let another endpoint have the directory."""
        for descriptor in (self._lock_file, self._directory):
            if descriptor >= 0:
                os.close(descriptor)

    # -- files ---------------------------------------------------------------------------------------------------------

    def _open(self, name: str, flags: int) -> int:
        # Not blocking: to open a FIFO would wait for its writer.
        flags |= os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        return os.open(name, flags, 0o600, dir_fd=self._directory)

    def _take_stock(self) -> None:
        found = []
        with os.scandir(self._directory) as entries:
            for entry in entries:
                if entry.name.endswith(PART):
                    os.unlink(entry.name, dir_fd=self._directory)
                elif len(entry.name) == KEY_CHARS and entry.is_file(follow_symlinks=False):
                    status = entry.stat(follow_symlinks=False)
                    found.append((status.st_atime, entry.name, status.st_size))
        for _, key, size in sorted(found):
            self._index[key] = _Place(size)
            self._n_bytes += size
        self._make_room(0)

    def _make_room(self, n_bytes: int, key: str = "") -> None:
        """Remove the least recently used files, never `key`, until n_bytes more fit. Under the lock."""
        while self._n_bytes + n_bytes > self._max_bytes:
            oldest = next((other for other in self._index if other != key), None)
            if oldest is None:
                return
            self._remove(oldest)

    def _remove(self, key: str) -> None:
        place = self._index.pop(key, None)
        if place is not None:
            self._n_bytes -= place.n_bytes
            with contextlib.suppress(OSError):  # gone already, or the disk is read-only; it is not believed unread
                os.unlink(key, dir_fd=self._directory)

    def lose(self, uri: str, why: str) -> None:
        """What is kept of this artifact is no good after all."""
        self._lose(self._key(uri), why)

    def _lose(self, key: str, why: str) -> None:
        log.warning("a model kept on disk is fetched anew: %s: %s", self._root / key, why)
        with self._lock:
            self._remove(key)

    def _say(self, text: str, *values: object) -> None:
        if self._said.is_due():
            log.warning(text, *values)

    def _identity(self, uri: str) -> list[str]:
        return [self._maker, uri]

    def _key(self, uri: str) -> str:
        return hashlib.sha256("\0".join(self._identity(uri)).encode()).hexdigest()[:KEY_CHARS]


def _whole(file: int, n_bytes: int) -> bytes:
    """All of a file, which a file object takes half as long again to read. Linux gives 2 GiB at once at most."""
    data = os.read(file, n_bytes)
    while len(data) < n_bytes and (more := os.read(file, n_bytes - len(data))):
        data += more
    return data


def _is_ours(status: os.stat_result) -> bool:
    """Documents are loaded as they are, so nobody else may be able to write there."""
    return status.st_uid == os.geteuid() and not status.st_mode & 0o022
