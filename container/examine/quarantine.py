"""The runtime's side of the examiner: artifact bytes go out, checked documents and facts come back.

Rule: whatever happens to a reader, the caller gets an answer in bounded time, and the examiner is there for the next.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import logging
import os
import platform
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import msgspec

from container import environments
from container.examine.examiner import ANSWERED, ASKED, TAKEN, Origin, Task
from handler.archives.limits import Limits
from handler.errors import ArtifactBroken, ArtifactError, ArtifactRefused, ArtifactUnavailable
from handler.libxgboost import library_version
from handler.predictor import Facts
from handler.typed_json import read_as

log = logging.getLogger(__name__)

ANSWER_MAX_BYTES = 4 << 30
MAX_TRIES = 3  # with an artifact that no reader has taken
# An artifact that has ended so many readers is broken. One may have been ended by something else: the kernel, when memory ran
# out, takes readers first.
DEADLY = 2
DYING_S = 0.1
HEAD_MAX_BYTES = 64 << 20  # facts of a booster with a million feature names

_ERRORS = {
    "ArtifactBroken": ArtifactBroken,
    "ArtifactRefused": ArtifactRefused,
    "ArtifactUnavailable": ArtifactUnavailable,
}


@dataclass(frozen=True, slots=True)
class Examined:
    """A sound artifact: for each booster in it, a packed forest or a document that libxgboost wrote itself, the facts of
    it, and when asked for where it came from."""

    documents: tuple[bytes, ...]
    facts: tuple[Facts, ...]
    origins: tuple[Origin, ...] = ()


class _NotTaken(Exception):
    """No reader has begun: the examiner is gone, and the artifact has nothing to do with it."""


class _Died(Exception):
    """The reader that had begun has ended without a verdict."""


class Quarantine:
    """Owns the examiner process; started by `start` or the first to ask, ended by `close`, started again when it was found
    dead.

    n_preforked   artifacts examined at the same time, at most
    limits        what an artifact may be
    as_boosters   hand out XGBoost's documents only, for code that is not ours
    """

    def __init__(self, n_preforked: int, *, limits: Limits | None = None, as_boosters: bool = False) -> None:
        self._n_preforked = n_preforked
        self._as_boosters = as_boosters
        self._limits = limits or Limits()
        self._lock = threading.Lock()
        self._examiner: subprocess.Popen[bytes] | None = None
        self._tasks: socket.socket | None = None
        self._is_closed = False

    def start(self) -> None:
        with self._lock:
            self._start()

    def _start(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._examiner = subprocess.Popen(
                [sys.executable, "-m", "container.examine.examiner", str(theirs.fileno()), str(self._n_preforked)],
                pass_fds=[theirs.fileno()],
                # One OpenMP thread: a forked child of a process with more waits for threads it does not have.
                env=environments.examiner_environment(),
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # see container/examine/niceness.py
            )
        self._tasks = ours

    def _stop(self) -> None:
        if self._tasks is not None:
            self._tasks.close()  # the readers see the end of file, and the examiner ends with them
        if self._examiner is not None:
            try:
                self._examiner.wait(timeout=5)
            except subprocess.TimeoutExpired:
                self._examiner.kill()
                self._examiner.wait()
        self._tasks = self._examiner = None

    def close(self) -> None:
        with self._lock:
            self._is_closed = True
            self._stop()

    @property
    def examiner_pid(self) -> int | None:
        examiner = self._examiner
        return examiner.pid if examiner else None

    def fingerprint(self) -> str:
        """Changes whenever a verdict might: with XGBoost, the machine, what is asked for, and any line of what examines."""
        digest = hashlib.sha256()
        for package in ("handler", "container.examine", "container.limits"):
            origin = importlib.util.find_spec(package)
            assert origin is not None
            for folder in origin.submodule_search_locations or ():
                for path in sorted([*Path(folder).rglob("*.py"), *Path(folder).rglob("*.so")]):
                    digest.update(path.name.encode() + path.read_bytes())
        asked = f"limits: {self._limits}, as boosters: {self._as_boosters}"
        return f"examiner {digest.hexdigest()[:16]}, XGBoost {library_version()}, {platform.machine()}, {asked}"

    def examine(self, blob: bytes, uri: str, *, wants_origins: bool = False) -> Examined:
        """What is in an artifact. Raises ArtifactBroken, ArtifactRefused; ArtifactUnavailable if it cannot be told."""
        return self._examine(blob, self._task(blob, uri, wants_origins=wants_origins))

    def examine_all(self, artifacts: Sequence[tuple[bytes, str]]) -> list[Examined | ArtifactError]:
        """The same of several, small ones: one by one they cost twice as much. What `examine` would raise is in its place."""
        found: list[Examined | ArtifactError] = []
        while len(found) < len(artifacts):
            rest = artifacts[len(found) :]
            try:
                found += self._ask([blob for blob, _ in rest], [self._task(blob, uri) for blob, uri in rest])
            except (_NotTaken, _Died, ArtifactError):  # which of them it was, each tells by itself
                found += [self._alone(blob, uri) for blob, uri in rest]
        return found

    def _alone(self, blob: bytes, uri: str) -> Examined | ArtifactError:
        try:
            return self.examine(blob, uri)
        except ArtifactError as error:
            return error

    def _task(self, blob: bytes, uri: str, *, wants_origins: bool = False) -> Task:
        return Task(uri, None, len(blob), self._limits, wants_origins, self._as_boosters)

    def booster_of(self, document: bytes) -> bytes:
        """A document of our own writing, as libxgboost writes it. Raises as `examine` does."""
        return self._examine(document, Task("a forest", None, len(document), self._limits, as_boosters=True)).documents[
            0
        ]

    def examine_bundle(self, directory: str) -> Examined:
        """What is in an unpacked bundle. Raises as `examine` does, and ArtifactMissing when there is no such directory."""
        n_bytes = _bundle_bytes(directory)
        task = Task(directory, directory, n_bytes, self._limits, as_boosters=self._as_boosters)
        return self._examine(b"", task)

    def _examine(self, blob: bytes, task: Task) -> Examined:
        n_died = 0
        for _ in range(MAX_TRIES):
            try:
                (outcome,) = self._ask([blob], [task])
            except _NotTaken:
                self._replace_dead_examiner()
            except _Died as error:
                n_died += 1
                if n_died == DEADLY:
                    raise ArtifactBroken(task.uri, "reading it ended the process that did") from error
            else:
                if isinstance(outcome, ArtifactError):
                    raise outcome
                return outcome
        raise ArtifactUnavailable(task.uri, "no process to examine it")

    def _replace_dead_examiner(self) -> None:
        """Start another if it is gone, or the first. It may be only the reader, and an examiner that is being killed takes a
        moment."""
        with self._lock:
            if self._is_closed:
                return
            if self._examiner is None:
                self._start()
                return
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._examiner.wait(timeout=DYING_S)
                log.warning("the examiner is gone; starting another")
                self._stop()
                self._start()

    def _ask(self, blobs: Sequence[bytes], tasks: Sequence[Task]) -> list[Examined | ArtifactError]:
        """What one reader says of them in their order: at least of one, and of the others while it stays as good as new."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        wall_s = sum(task.wall_s for task in tasks)
        deadline = time.monotonic() + wall_s
        with ours, ours.makefile("rb") as stream:
            with theirs, self._lock:
                to_readers = self._tasks
                if to_readers is None:
                    raise _NotTaken
                try:
                    to_readers.settimeout(wall_s)
                    socket.send_fds(to_readers, [b"?"], [theirs.fileno()])
                except OSError as error:
                    raise _NotTaken from error
            try:
                ours.settimeout(_left(deadline))
                if _read(stream, 1) != TAKEN:
                    raise _NotTaken
            except TimeoutError as error:
                raise ArtifactUnavailable(tasks[0].uri, f"nobody was free to examine it for {wall_s} s") from error
            except (EOFError, OSError) as error:
                raise _NotTaken from error
            try:
                text = json.dumps([task.as_dict() for task in tasks]).encode()
                _write(ours, ASKED.pack(len(text)) + text, deadline)
                for blob in filter(
                    None, blobs
                ):  # sendall sends nothing, too, and fails when the reader of a bundle is done
                    _write(ours, blob, deadline)
                ours.settimeout(_left(deadline))
                found: list[Examined | ArtifactError] = []
                for task in tasks:
                    outcome, is_last = _next_outcome(stream, task.uri)
                    found.append(outcome)
                    if is_last:
                        break
            except TimeoutError as error:
                raise ArtifactBroken(tasks[0].uri, f"it was not read within {wall_s} s") from error
            except (EOFError, OSError) as error:
                raise _Died from error
        return found


def _next_outcome(stream: BinaryIO, uri: str) -> tuple[Examined | ArtifactError, bool]:
    """What a reader says of the next artifact, and whether it ends with that."""
    n_payload, n_json = ANSWERED.unpack(_read(stream, ANSWERED.size))
    if n_payload > ANSWER_MAX_BYTES or n_json > HEAD_MAX_BYTES:
        return ArtifactRefused(uri, f"its boosters take {n_payload} bytes"), True
    try:
        verdict = _verdict(_read(stream, n_json), n_payload, uri)
        documents = tuple(_read(stream, n_bytes) for n_bytes in verdict.documents)
        return _outcome(verdict, documents, uri), verdict.is_last
    except ArtifactBroken as error:  # it says what it should not: nothing more of it is believed
        return error, True


def _bundle_bytes(directory: str) -> int:
    """What its files hold, links not followed. What cannot be read counts nothing here; the examiner says so."""
    n_bytes = 0
    for folder, _, names in os.walk(directory):
        for name in names:
            with contextlib.suppress(OSError):
                n_bytes += os.lstat(os.path.join(folder, name)).st_size
    return n_bytes


@dataclass(frozen=True, slots=True)
class _Verdict:
    """What the examiner says of an artifact. documents: their lengths. is_last: it ends with that. error: a name of _ERRORS,
    or nothing."""

    documents: list[Annotated[int, msgspec.Meta(ge=0)]]
    is_last: bool
    facts: tuple[Facts, ...] = ()
    origins: list[dict[str, Any]] = field(default_factory=list)
    error: str = ""
    why: str = ""


_verdicts = msgspec.json.Decoder(_Verdict)


def _verdict(text: bytes, n_payload: int, uri: str) -> _Verdict:
    """It has read what may have been made to take it over, so what it says is looked at as a stranger's. Raises
    ArtifactBroken."""
    try:
        verdict = read_as(_verdicts, text)
    except (ValueError, RecursionError) as error:
        raise _no_verdict(uri, str(error)) from error
    if sum(verdict.documents) != n_payload:
        raise _no_verdict(uri, "documents of other lengths than were sent")
    return verdict


def _outcome(verdict: _Verdict, documents: tuple[bytes, ...], uri: str) -> Examined | ArtifactError:
    """Raises ArtifactBroken where the verdict is none."""
    try:
        if verdict.error:
            refused: ArtifactError = _ERRORS[verdict.error](uri, verdict.why)
            return refused
        origins = tuple(Origin.from_dict(one) for one in verdict.origins)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise _no_verdict(uri, str(error)) from error
    if not documents or len(verdict.facts) != len(documents):
        raise _no_verdict(uri, "facts of other documents than were sent, or no documents")
    return Examined(documents, verdict.facts, origins)


def _no_verdict(uri: str, why: str) -> ArtifactBroken:
    return ArtifactBroken(uri, f"its examiner gave no verdict: {why}")


def _read(stream: BinaryIO, n_bytes: int) -> bytes:
    """So many bytes, read to where they stay: a copy of 200 MB would hold up every thread."""
    data = stream.read(n_bytes)
    if len(data) < n_bytes:
        raise EOFError
    return data


def _write(stream: socket.socket, data: bytes, deadline: float) -> None:
    stream.settimeout(_left(deadline))
    stream.sendall(data)


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left
