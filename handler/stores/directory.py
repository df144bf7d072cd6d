"""Artifacts below a directory.

Rule: what is opened lies inside the root. A target is walked from the root one folder at a time without following any link.
Where there is one, links are followed only to find the real path; that path is then walked in the same way, so a link
swapped in between cannot lead out.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from operator import itemgetter
from pathlib import Path
from typing import NoReturn

from handler.errors import (
    ArtifactForbidden,
    ArtifactMissing,
    ArtifactRefused,
    ArtifactUnavailable,
    TargetInvalid,
)
from handler.stores.store import Fetched, StoredObject
from handler.targets import parse_target

READ_BYTES = 1 << 20
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: opening a FIFO would otherwise wait for somebody to write to it. It changes nothing for regular files.
_FILE = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC

_MISSING = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG})
_FORBIDDEN = frozenset({errno.EACCES, errno.EPERM})
_NO_FILE = frozenset({errno.ENXIO, errno.ENODEV, errno.EOPNOTSUPP})  # what open() says to sockets and dead devices


class DirectoryStore:
    """Files below `root` as artifacts. A link inside the root may point to any file inside it.

    version  modification time (ns), size and inode: writing in place changes the first, replacing by rename the last
    """

    listed_per_request = 1  # each is looked at by itself

    def __init__(self, root: Path, *, max_artifact_bytes: int) -> None:
        self._root = root
        self._max_bytes = max_artifact_bytes

    def connect(self) -> None:
        if not self._root.is_dir():
            raise ArtifactUnavailable(self.uri(""), "NoSuchDirectory")

    def uri(self, target: str) -> str:
        return f"{self._root}/{target}"

    def fetch(self, target: str) -> Fetched:
        fetched = self._read(target, known_version=None)
        assert fetched is not None  # only a known version can be found unchanged
        return fetched

    def fetch_if_changed(self, target: str, version: str) -> Fetched | None:
        return self._read(target, known_version=version)

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        """As promised; but a linked folder is not entered, since it may lead out, or back to where it is."""
        folder = prefix[: prefix.rfind("/") + 1]
        root = os.path.realpath(self._root)
        if not os.path.isdir(root):
            raise ArtifactUnavailable(self.uri(prefix), "NoSuchDirectory")
        start = os.path.join(root, folder).rstrip("/")
        if folder and not (is_below(start, root) and os.path.realpath(start) == start):
            return  # a link, or no folder that a target could name, such as ".."
        try:
            for stored in _walk(root, folder):
                if stored.target.startswith(prefix):
                    yield stored
        except OSError as error:
            _raise_ours(error, self.uri(prefix))

    def close(self) -> None:
        """Nothing is kept open between calls."""

    def _read(self, target: str, known_version: str | None) -> Fetched | None:
        uri = self.uri(target)
        try:
            file = self._open(target, uri)
        except OSError as error:
            _raise_ours(error, uri)
        try:
            before = os.fstat(file)
            if stat.S_ISDIR(before.st_mode):
                raise ArtifactMissing(uri)  # S3 knows no folders either
            if not stat.S_ISREG(before.st_mode):
                raise ArtifactRefused(uri, "it is not a regular file")
            if before.st_size > self._max_bytes:
                raise ArtifactRefused(uri, f"{before.st_size} bytes are more than {self._max_bytes}")
            version = version_of(before)
            if version == known_version:
                return None
            data = _read_whole(file, before.st_size)
            # A file replaced by rename stays whole behind our descriptor. One written in place does not.
            if len(data) != before.st_size or version_of(os.fstat(file)) != version:
                raise ArtifactUnavailable(uri, "ChangedWhileRead")
            return Fetched(data, version, uri)
        except OSError as error:
            _raise_ours(error, uri)
        finally:
            os.close(file)

    def _open(self, target: str, uri: str) -> int:
        parts = target.split("/")
        if not {"", ".", ".."}.intersection(parts):
            # As nearly all are: to look for links in each part of its path, and the root's, costs 45 us.
            with suppress(OSError):
                return _open_below(os.open(self._root, _FOLDER & ~os.O_NOFOLLOW), parts)
        root = os.path.realpath(self._root)
        real = os.path.realpath(os.path.join(root, target))
        if not is_below(real, root):
            raise ArtifactForbidden(uri, "OutsideDirectory")
        try:
            folder = os.open(root, _FOLDER)
        except (FileNotFoundError, NotADirectoryError) as error:
            # The operator's trouble, not the caller's: no target can be served, and it may be mounted again.
            raise ArtifactUnavailable(uri, "NoSuchDirectory") from error
        return _open_below(folder, real[len(root) :].strip("/").split("/"))


def _open_below(folder: int, parts: Sequence[str]) -> int:
    """The file at a path below an open folder, which is closed. Raises OSError, also where a part is a link."""
    *folders, name = parts
    folder = _entered(folder, folders)
    try:
        return os.open(name, _FILE, dir_fd=folder)
    finally:
        os.close(folder)


def _entered(folder: int, parts: Sequence[str]) -> int:
    """The folder at a path below an open one, which is closed. Raises OSError, also where a part is a link."""
    for part in parts:
        try:
            inner = os.open(part, _FOLDER, dir_fd=folder)
        finally:
            os.close(folder)
        folder = inner
    return folder


def _walk(root: str, target_prefix: str) -> Iterator[StoredObject]:
    """Every regular file below `root`/`target_prefix`, in the order of whole targets."""
    path = os.path.join(root, target_prefix)
    try:
        directory = _entered(os.open(root, _FOLDER), target_prefix.split("/")[:-1])
    except (FileNotFoundError, NotADirectoryError):  # gone meanwhile, or a link in its place
        return
    found: list[tuple[str, StoredObject | None]] = []
    try:
        # By the descriptor: for each path the kernel would go all the way again, a fifth of what listing takes.
        with os.scandir(directory) as entries:
            for entry in entries:
                # A folder sorts as "name/", as its keys would: "a-b" < "a/b", though "a" < "a-b".
                if entry.is_dir(follow_symlinks=False):
                    found.append((entry.name + "/", None))
                elif (stored := _stored(entry, path, target_prefix, root)) is not None:
                    found.append((entry.name, stored))
    finally:
        os.close(directory)
    found.sort(key=itemgetter(0))
    for name, stored in found:
        if stored is None:
            yield from _walk(root, target_prefix + name)
        else:
            yield stored


def _stored(entry: os.DirEntry[str], folder: str, target_prefix: str, root: str) -> StoredObject | None:
    """None for what is no regular file inside the root."""
    try:
        status = entry.stat(follow_symlinks=False)
        if stat.S_ISLNK(status.st_mode):
            real = os.path.realpath(os.path.join(folder, entry.name))
            if not is_below(real, root):
                return None
            status = os.stat(real, follow_symlinks=False)  # it may lead elsewhere by now
        if not stat.S_ISREG(status.st_mode):
            return None
        target = parse_target(target_prefix + entry.name)
    except (OSError, TargetInvalid):  # gone meanwhile, a dangling link, or a name no caller could write
        return None
    return StoredObject(target, status.st_size, version_of(status), status.st_mtime)


def _read_whole(file: int, size: int) -> bytes:
    """Up to one byte more than `size`, so that a file that has grown is noticed."""
    parts = []
    missing = size + 1
    while missing > 0 and (part := os.read(file, min(missing, READ_BYTES))):
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)


def version_of(status: os.stat_result) -> str:
    return f"{status.st_mtime_ns}-{status.st_size}-{status.st_ino}"


def is_below(path: str, root: str) -> bool:
    return path.startswith(root.rstrip("/") + "/")


def _raise_ours(error: OSError, uri: str) -> NoReturn:
    number = error.errno or 0
    if number in _MISSING:
        raise ArtifactMissing(uri) from error
    if number in _NO_FILE:
        raise ArtifactRefused(uri, "it is not a regular file") from error
    code = errno.errorcode.get(number, type(error).__name__)
    if number in _FORBIDDEN:
        raise ArtifactForbidden(uri, code) from error
    raise ArtifactUnavailable(uri, code) from error
