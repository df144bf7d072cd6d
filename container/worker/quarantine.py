"""The runtime's side of the examiner: artifact bytes go out, checked documents and facts come back.

Rule: whatever happens to a spare, the caller gets an answer in bounded time, and the examiner is there for the next.
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
from dataclasses import asdict, dataclass
from pathlib import Path

from container import settings
from container.worker.examiner import BASE_MEMORY_BYTES, HEADER, MEMORY_PER_BYTE, TAKEN, WALL_S, Origin, Task
from handler.errors import ArtifactBroken, ArtifactRefused, ArtifactUnavailable
from handler.libxgboost import library_version
from handler.predictor import Facts

log = logging.getLogger(__name__)

ANSWER_MAX_BYTES = 4 << 30
MAX_TRIES = 3  # with an artifact that no spare has taken
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
    """No spare has begun: the examiner is gone, and the artifact has nothing to do with it."""


class Quarantine:
    """Owns the examiner process; started by `start`, ended by `close`, started again when it was found dead.

    n_spares      artifacts examined at the same time, at most
    as_boosters   hand out XGBoost's documents only, for code that is not ours
    """

    def __init__(self, n_spares: int, *, ignore_code: bool = False, as_boosters: bool = False) -> None:
        self._n_spares = n_spares
        self._as_boosters = as_boosters
        self._ignore_code = ignore_code
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
                [sys.executable, "-m", "container.worker.examiner", str(theirs.fileno()), str(self._n_spares)],
                pass_fds=[theirs.fileno()],
                # One OpenMP thread: a forked child of a process with more waits for threads it does not have.
                env=settings.examiner_environment(),
                stdin=subprocess.DEVNULL,
            )
        self._tasks = ours

    def _stop(self) -> None:
        if self._tasks is not None:
            self._tasks.close()  # the spares see the end of file, and the examiner ends with them
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
        for package in ("handler", "container.worker"):
            origin = importlib.util.find_spec(package)
            assert origin is not None
            for folder in origin.submodule_search_locations or ():
                for path in sorted([*Path(folder).rglob("*.py"), *Path(folder).rglob("*.so")]):
                    digest.update(path.name.encode() + path.read_bytes())
        asked = f"code ignored: {self._ignore_code}, as boosters: {self._as_boosters}"
        return f"examiner {digest.hexdigest()[:16]}, XGBoost {library_version()}, {platform.machine()}, {asked}"

    def examine(self, blob: bytes, uri: str, *, wants_origins: bool = False) -> Examined:
        """What is in an artifact. Raises ArtifactBroken, ArtifactRefused; ArtifactUnavailable if it cannot be told."""
        memory_bytes = BASE_MEMORY_BYTES + MEMORY_PER_BYTE * len(blob)
        return self._examine(blob, Task(uri, None, memory_bytes, self._ignore_code, wants_origins, self._as_boosters))

    def booster_of(self, document: bytes) -> bytes:
        """A document of our own writing, as libxgboost writes it. Raises as `examine` does."""
        memory_bytes = BASE_MEMORY_BYTES + MEMORY_PER_BYTE * len(document)
        return self._examine(document, Task("a forest", None, memory_bytes, True, as_boosters=True)).documents[0]

    def examine_bundle(self, directory: str) -> Examined:
        """What is in an unpacked bundle. Raises as `examine` does, and ArtifactMissing when there is no such directory."""
        memory_bytes = BASE_MEMORY_BYTES + MEMORY_PER_BYTE * _bundle_bytes(directory)
        task = Task(directory, directory, memory_bytes, self._ignore_code, as_boosters=self._as_boosters)
        return self._examine(b"", task)

    def _examine(self, blob: bytes, task: Task) -> Examined:
        for _ in range(MAX_TRIES):
            try:
                return self._ask(blob, task)
            except _NotTaken:
                self._replace_dead_examiner()
        raise ArtifactUnavailable(task.uri, "no process to examine it")

    def _replace_dead_examiner(self) -> None:
        """Start another if it is gone. It may be only the spare, and an examiner that is being killed takes a moment."""
        with self._lock:
            if self._is_closed or self._examiner is None:
                return
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._examiner.wait(timeout=DYING_S)
                log.warning("the examiner is gone; starting another")
                self._stop()
                self._start()

    def _ask(self, blob: bytes, task: Task) -> Examined:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        deadline = time.monotonic() + WALL_S
        with ours:
            with theirs, self._lock:
                tasks = self._tasks
                if tasks is None:
                    raise _NotTaken
                try:
                    tasks.settimeout(WALL_S)
                    socket.send_fds(tasks, [b"?"], [theirs.fileno()])
                except OSError as error:
                    raise _NotTaken from error
            try:
                if _read(ours, 1, deadline) != TAKEN:
                    raise _NotTaken
            except EOFError as error:
                raise _NotTaken from error
            try:
                text = json.dumps(asdict(task)).encode()
                _write(ours, HEADER.pack(len(blob), len(text)) + text, deadline)
                if blob:  # sendall sends nothing, too, and fails when the spare of a bundle is done by then
                    _write(ours, blob, deadline)
                n_payload, n_json = HEADER.unpack(_read(ours, HEADER.size, deadline))
                if n_payload > ANSWER_MAX_BYTES or n_json > HEAD_MAX_BYTES:
                    raise ArtifactRefused(task.uri, f"its boosters take {n_payload} bytes")
                verdict = json.loads(_read(ours, n_json, deadline))
                payload = _read(ours, n_payload, deadline)
            except TimeoutError as error:
                raise ArtifactBroken(task.uri, f"it was not read within {WALL_S:.0f} s") from error
            except (EOFError, OSError) as error:
                raise ArtifactBroken(task.uri, "reading it ended the process that did") from error
        return _examined(verdict, payload, task.uri)


def _bundle_bytes(directory: str) -> int:
    """What its files hold, links not followed. What cannot be read counts nothing here; the examiner says so."""
    n_bytes = 0
    for folder, _, names in os.walk(directory):
        for name in names:
            with contextlib.suppress(OSError):
                n_bytes += os.lstat(os.path.join(folder, name)).st_size
    return n_bytes


def _examined(verdict: dict[str, object], payload: bytes, uri: str) -> Examined:
    error = verdict.get("error")
    if error:
        raise _ERRORS[str(error)](uri, str(verdict["why"]))
    documents: list[bytes] = []
    at = 0
    for size in verdict["documents"]:  # type: ignore[attr-defined]  # written by our own examiner
        documents.append(payload[at : at + size])
        at += size
    facts = tuple(Facts.from_dict(one) for one in verdict["facts"])  # type: ignore[attr-defined]
    origins = tuple(Origin.from_dict(one) for one in verdict["origins"])  # type: ignore[attr-defined]
    return Examined(tuple(documents), facts, origins)


def _read(stream: socket.socket, n_bytes: int, deadline: float) -> bytes:
    data = bytearray(n_bytes)
    view = memoryview(data)
    at = 0
    while at < n_bytes:
        stream.settimeout(_left(deadline))
        got = stream.recv_into(view[at:])
        if not got:
            raise EOFError
        at += got
    return bytes(data)


def _write(stream: socket.socket, data: bytes, deadline: float) -> None:
    stream.settimeout(_left(deadline))
    stream.sendall(data)


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left
