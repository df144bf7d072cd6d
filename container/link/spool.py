"""Large bodies and answers, each in a file on its way between the front end and the runtime. Through MMS they would be arrays
on Java's heap, copied several times by the threads that answer everybody, and its collector would stop them all.

    NUMBER.body      written by the front end, opened and removed by the runtime; if it does not, removed by the front end
    NUMBER.answer    written by the runtime, opened and removed by the front end

NUMBER is the call's. That there is a file, and how long it is, is said in a header of ours; launch/plugin/Spool.java is the
other side, and lets no caller say such a thing.

Rule: a file is read whole or not at all. What cannot be written to one, or would take the room that others need on the same
file system, goes through MMS instead.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from handler import files

# Of the request, with the length in bytes; of the reply, with the call's number and the length.
BODY = "x-mme-body"
ANSWER = "x-mme-answer"
LARGE_BYTES = 128 * 1024  # what is copied in 0.05 ms, about as long as a file takes
# What nobody has come for is nobody's: the front end opens an answer within milliseconds of its reply.
KEPT_S = 20.0

_ANSWERS = ".answer"
# What stays free for artifacts on their way in, whatever callers send: half of the file system, which may be a small one in
# memory, or this much of a large one.
KEPT_FREE_BYTES = 256 << 20


class BodyLost(Exception):
    """The file of a body is not there, or not as long as it was said to be."""


class Spool:
    """The runtime's side.

    max_bytes   of one body
    """

    def __init__(self, directory: Path, max_bytes: int) -> None:
        self._directory = directory
        self._max_bytes = max_bytes

    def take(self, number: str, length: str) -> bytes:
        """The body of a call, whose file is gone afterwards. Raises BodyLost."""
        try:
            n_bytes = int(length)
            path = self._directory / f"{int(number)}.body"
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except (OSError, ValueError) as error:
            raise BodyLost(str(error)) from error
        try:
            os.unlink(path)
            is_whole = os.fstat(descriptor).st_size == n_bytes <= self._max_bytes
            body = files.read(descriptor, n_bytes) if is_whole else None
        except OSError as error:
            raise BodyLost(str(error)) from error
        finally:
            os.close(descriptor)
        if body is None:
            raise BodyLost(f"{path.name} does not have {n_bytes} bytes")
        return body

    def put(self, number: str, answer: bytes) -> bool:
        """Whether an answer's body lies in its file now; if not, there is none."""
        try:
            path = self._directory / f"{int(number)}{_ANSWERS}"
            if len(answer) > self._room():
                return False
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except (OSError, ValueError):
            return False
        try:
            files.write(descriptor, answer)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(path)
            return False
        finally:
            os.close(descriptor)
        return True

    def _room(self) -> int:
        disk = os.statvfs(self._directory)
        return disk.f_bavail * disk.f_frsize - min(disk.f_blocks * disk.f_frsize // 2, KEPT_FREE_BYTES)


class Leftovers:
    """The supervisor's side: answers that nobody fetches, their callers gone or their runtime dead before it told of them."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._seen: dict[str, float] = {}  # by path, when first

    def sweep(self, now: float) -> None:
        """Remove what has been there for `KEPT_S`."""
        try:
            with os.scandir(self._directory) as entries:
                here = [entry.path for entry in entries if entry.name.endswith(_ANSWERS)]
        except OSError:  # somebody has removed it, and all that was in it
            here = []
        self._seen = {path: self._seen.get(path, now) for path in here}
        for path, since in self._seen.items():
            if now - since >= KEPT_S:
                with contextlib.suppress(OSError):  # it was fetched just now
                    os.unlink(path)
