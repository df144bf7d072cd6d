"""A directory that artifacts are written to.

Rule: a file is written under a name of its own and renamed when it is whole. What is there is looked at and replaced under
one lock on the root, which the kernel gives back when whoever holds it dies. So it does with the lock on each file that is
being written: a part that nobody has locked is one that a killed writer has left, and goes when the next one writes there.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from handler.errors import ArtifactChanged, ArtifactForbidden, ArtifactMissing, ArtifactUnavailable
from handler.stores.directory import READ_BYTES, DirectoryStore, is_below, version_of
from handler.stores.store import ANYTHING, NOTHING, Content

if TYPE_CHECKING:
    from handler.stores.writing import WritingStore

# No target may hold a backslash, so no listing shows what a writer that was killed has left, and no caller can name it.
PART = ".\\{}.part"
_IS_PART = re.compile(r"\.\\[0-9a-f]{1,64}\.part")
# Of disks: 512 bytes or this.
BLOCK_BYTES = 4096


class WritingDirectory(DirectoryStore):
    """As `DirectoryStore`, and it takes. Only writers that come this way see each other's conditions."""

    def __init__(self, root: Path, *, max_artifact_bytes: int) -> None:
        super().__init__(root, max_artifact_bytes=max_artifact_bytes)
        self._root = root
        self._swept: set[str] = set()

    def put(self, target: str, data: Content, over: str = ANYTHING) -> str:
        uri = self.uri(target)
        try:
            path = self._place(target, uri)
            folder = os.path.dirname(path)
            self._sweep(folder)
            file, part = _begun(folder)
            try:
                with file:
                    if isinstance(data, bytes):
                        file.write(data)
                    elif isinstance(data, memoryview):
                        file.write(data[_write_past_cache(file.fileno(), data) :])
                    else:
                        data.seek(0)
                        shutil.copyfileobj(data, file)
                    file.flush()
                    os.fsync(file.fileno())
                    with self._locked():
                        if self._may_write(path, over):
                            os.rename(part, path)
                            return version_of(os.stat(path))
            finally:
                with suppress(FileNotFoundError):
                    os.unlink(part)
        except OSError as error:
            raise _ours(error, uri) from error
        return self._ours_already(target, data, uri)

    def copy(self, source: WritingStore, source_target: str, target: str, over: str = ANYTHING) -> str:
        return self.put(target, source.fetch(source_target).data, over)

    def remove(self, target: str, over: str = ANYTHING) -> None:
        uri = self.uri(target)
        try:
            path = self._place(target, uri)
            with self._locked():
                if not os.path.lexists(path):
                    return
                if not self._may_write(path, over):
                    raise ArtifactChanged(uri)
                os.unlink(path)
        except OSError as error:
            raise _ours(error, uri) from error

    def _place(self, target: str, uri: str) -> str:
        """Where the file goes; its folder is made. A link that leads out of the root is not followed."""
        root = os.path.realpath(self._root)
        folder = os.path.dirname(os.path.join(root, target))
        os.makedirs(folder, exist_ok=True)
        real = os.path.realpath(folder)
        if real != root and not is_below(real, root):
            raise ArtifactForbidden(uri, "OutsideDirectory", doing="written")
        return os.path.join(real, os.path.basename(target))

    def _sweep(self, folder: str) -> None:
        """Remove what killed writers have left there; once, for it takes as long as the folder is full."""
        if folder in self._swept:
            return
        self._swept.add(folder)
        parts: list[str] = []
        with suppress(OSError), os.scandir(folder) as entries:  # whoever may write there need not be let look
            parts += (
                one.path for one in entries if _IS_PART.fullmatch(one.name) and one.is_file(follow_symlinks=False)
            )
        for part in parts:
            with suppress(OSError), open(part, "r+b") as file:  # another user's, or its writer lives
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.unlink(part)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """The root's descriptor is the lock, so no file has to lie there for it."""
        root = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(root, fcntl.LOCK_EX)
            yield
        finally:
            os.close(root)

    def _may_write(self, path: str, over: str) -> bool:
        if over == ANYTHING:
            return True
        try:
            return version_of(os.stat(path)) == over
        except FileNotFoundError:
            return over == NOTHING and not os.path.islink(path)

    def _ours_already(self, target: str, data: Content, uri: str) -> str:
        """The version of what is there, if it is what was to be written."""
        try:
            fetched = self.fetch(target)
        except ArtifactMissing:
            raise ArtifactChanged(uri) from None
        if not is_same(fetched.data, data):
            raise ArtifactChanged(uri)
        return fetched.version


def is_same(there: bytes, data: Content) -> bool:
    """Whether what is there is what was to be written."""
    if isinstance(data, bytes | memoryview):
        return there == data
    data.seek(0)
    left = memoryview(there)
    while part := data.read(READ_BYTES):
        if left[: len(part)] != part:
            return False
        left = left[len(part) :]
    return not left


def _begun(folder: str) -> tuple[BinaryIO, str]:
    """A new file there, locked, and its name."""
    while True:
        part = os.path.join(folder, PART.format(secrets.token_hex(8)))
        file = open(part, "xb")  # noqa: SIM115  the caller closes it
        fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file.fileno()).st_nlink:
            return file, part
        file.close()  # it was swept away before it was locked


def _write_past_cache(file: int, data: memoryview) -> int:
    """Have the disk take whole blocks from where they lie. How many bytes it took: none where the file system cannot do so,
    and then, as of what is left over, the kernel copies.

    Copying 8 MiB to pages of the kernel's, and from there, took 5 to 8 ms of a core; this takes 0.5.
    """
    flags = fcntl.fcntl(file, fcntl.F_GETFL)
    try:
        fcntl.fcntl(file, fcntl.F_SETFL, flags | os.O_DIRECT)
        return os.write(file, data[: len(data) // BLOCK_BYTES * BLOCK_BYTES])
    except OSError:  # what else may be the matter, who writes the rest is told
        return 0
    finally:
        fcntl.fcntl(file, fcntl.F_SETFL, flags)


def _ours(error: OSError, uri: str) -> ArtifactForbidden | ArtifactUnavailable:
    code = errno.errorcode.get(error.errno or 0, type(error).__name__)
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return ArtifactForbidden(uri, code, doing="written")
    return ArtifactUnavailable(uri, code)
