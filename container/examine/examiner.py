"""Throw-away processes that open artifacts nobody has looked into yet.

XGBoost's loader is not safe on damaged bytes: one file in six with a few bytes changed crashes the process, some never
return. In the runtime that would be everyone's outage, so an artifact is opened, checked, loaded and written anew by a
process that ends with the first artifact it hands to XGBoost, or finds fault with. Making another takes 25 ms of a core; so
one that has only read and packed, in Python and NumPy, takes the next. What it wrote is what the runtime loads.

    runtime --SEQPACKET: one end of a socket pair per message--> [ reader | reader | ... ]   forked by the examiner
    runtime <--STREAM: "taken", then a verdict per artifact----- the reader that took it

A message has one artifact, or some small ones: of what one costs, waking the other side was half. Each of them is examined
under limits of its own, and the first after which the reader is not as good as new is the last.

Rule: the examiner itself reads nothing of an artifact. It forks readers beforehand (a pre-forking server), and a new one
where one is missing; a reader that finds the runtime gone ends with the status that makes the examiner end as well.
"""

from __future__ import annotations

import contextlib
import gc
import json
import math
import os
import resource
import select
import signal
import socket
import struct
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

import msgspec

from container.examine.niceness import yield_to_others
from container.limits import libc
from container.limits.libc import allocated_bytes
from container.limits.memory import process_resident_bytes
from handler.archives.limits import Limits
from handler.archives.members import Member, read_artifact, read_bundle
from handler.errors import ArtifactBroken, ArtifactRefused, ServingError
from handler.forest import walker
from handler.forest.packed import pack
from handler.forest.proof import sample, walker_agrees
from handler.importer import Imported, Stated, import_booster
from handler.importer.writer import ubj_of
from handler.libxgboost import Booster, XGBoostError
from handler.predictor import Facts
from handler.typed_json import read_as

_packs = False
TAKEN = b"+"
RUNTIME_GONE = 3
# A reader may take the time and memory of an honest large booster: 200 MB of UBJ load in about 2 s and 0.5 GB.
CPU_S = 30
WALL_S = 180  # where warm calls want every core it waits several times as long as it works, see NICENESS
# First calls yield to calls of models in memory: where both want a core, this leaves an examination a quarter of it.
NICENESS = 5
# To large ones a thirtieth: they take seconds, through which a quarter of a core was what calls in memory were short of.
LARGE_BYTES = 8 << 20
LARGE_NICENESS = 15
LARGE_WALL_S = 600
BASE_MEMORY_BYTES = (
    1 << 30
)  # what the interpreter, numpy and libxgboost map, mostly never touched, and room for small models
MEMORY_PER_BYTE = 24  # JSON documents are the worst: parsed objects, the booster and the copy written anew

N_KEPT = 2  # of 5 MB each
PATIENCE_S = 5.0
# A reader that has read so many, or grown by so much, ends as well. Another costs 25 ms of a core with what it touches first,
# a quarter of what a hundred small artifacts take. What one keeps is room for its largest artifact: of 20,000 boosters of up
# to 3.7 MB, read by one, it was 8 MB after the first 200, and 12 at the end. Of that it gives back what is more than a little
# when nothing has come for a moment.
MAX_ARTIFACTS = 1000
MAX_GROWTH_BYTES = 16 << 20
KEPT_GROWTH_BYTES = 1 << 20
RESTING_S = 0.2

_TOLD = struct.Struct("=i?")  # a reader's pid, and whether it waits for a task
TOGETHER_BYTES = 1 << 17  # answers are sent together up to here; a socket's buffer takes 200 KB

ASKED = struct.Struct("!I")  # bytes of JSON: the tasks; their artifacts follow
ANSWERED = struct.Struct("!QI")  # bytes of documents, bytes of JSON before them


@dataclass(frozen=True, slots=True)
class Task:
    """uri: for messages. bundle: a directory to read instead of what is sent. n_bytes: what there is to read.
    wants_origins: tell also where each booster came from, and hand it out as XGBoost's document whatever the facts say.
    as_boosters: make no forests; somebody else's code will load the documents."""

    uri: str
    bundle: str | None
    n_bytes: int
    limits: Limits
    wants_origins: bool = False
    as_boosters: bool = False

    def as_dict(self) -> dict[str, Any]:
        """For JSON. dataclasses.asdict would copy the limits field by field, for 25 us."""
        limits = {name: getattr(self.limits, name) for name in self.limits.__dataclass_fields__}
        return {name: getattr(self, name) for name in self.__dataclass_fields__} | {"limits": limits}

    @property
    def n_sent(self) -> int:
        return self.n_bytes if self.bundle is None else 0

    @property
    def memory_bytes(self) -> int:
        """The bound for the process that reads it."""
        return BASE_MEMORY_BYTES + MEMORY_PER_BYTE * self.n_bytes

    @property
    def is_large(self) -> bool:
        return self.n_bytes >= LARGE_BYTES

    @property
    def wall_s(self) -> int:
        return LARGE_WALL_S if self.is_large else WALL_S


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a booster came from: the file inside the artifact, its size, and what it states about itself."""

    member: str
    n_bytes: int
    stated: Stated

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Origin:
        """An origin that travelled as JSON."""
        return cls(values["member"], values["n_bytes"], Stated.from_dict(values["stated"]))


_tasks = msgspec.json.Decoder(list[Task])
_TOUCHED_BYTES = 4 << 20


def main() -> NoReturn:
    """argv: the descriptor of the task socket, and how many readers there may be."""
    tasks = socket.socket(fileno=int(sys.argv[1]))
    n_preforked = int(sys.argv[2])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the runtime says when it is over
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield_to_others(NICENESS)
    global _packs  # noqa: PLW0603  found out once, before the first reader is forked
    _packs = _can_pack()
    _keep_heap()
    _warm_up()
    gc.disable()  # a reader collects when the runtime has its answer
    gc.freeze()
    _Preforked(tasks, most=n_preforked).keep()


class _Preforked:
    """The examiner's children. Two are kept; more come when none waits for a task, and go when they have waited for long.

    most   how many there may be
    """

    def __init__(self, tasks: socket.socket, most: int) -> None:
        self._tasks = tasks
        self._most = most
        self._waiting: dict[int, bool] = {}  # by pid
        self._told, self._tell = os.pipe()
        self._ended, ended = os.pipe2(os.O_NONBLOCK)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # without a handler no byte would come
        signal.set_wakeup_fd(ended, warn_on_full_buffer=False)

    def keep(self) -> NoReturn:
        while True:
            while len(self._waiting) < min(N_KEPT, self._most):
                self._fork(is_extra=False)
            if not any(self._waiting.values()) and len(self._waiting) < self._most:
                self._fork(is_extra=True)
            readable, _, _ = select.select([self._told, self._ended], [], [])
            if self._told in readable:
                for pid, is_waiting in _TOLD.iter_unpack(os.read(self._told, _TOLD.size * 64)):
                    if pid in self._waiting:
                        self._waiting[pid] = is_waiting
            if self._ended in readable:
                os.read(self._ended, 4096)
                self._reap()

    def _fork(self, *, is_extra: bool) -> None:
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _serve_preforked(self._tasks, self._tell, PATIENCE_S if is_extra else None)
        self._waiting[pid] = True  # soon

    def _reap(self) -> None:
        while self._waiting:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            del self._waiting[pid]
            if os.WIFEXITED(status) and os.WEXITSTATUS(status) == RUNTIME_GONE:
                os._exit(0)  # the other readers see the same and end by themselves


def _warm_up() -> None:
    """Do once, on bytes of our own, what an artifact will ask for: what is set up on first use is then there."""
    document = ubj_of(sample("reg:squarederror"))
    for as_boosters in (False, True):
        _verdict(document, Task("nothing", None, 0, Limits(), as_boosters=as_boosters))


def _can_pack() -> bool:
    """Whether there is a walker, and it is right."""
    if not walker.is_available():
        return False
    if walker_agrees():
        return True
    print("the walker disagrees with this libxgboost, which will score all models instead", file=sys.stderr)
    return False


def _keep_heap() -> None:
    """Make malloc serve all but huge blocks from one heap that it does not give back while this process lives."""
    libc.keep_heap(mmap_from_bytes=32 << 20, trim_from_bytes=1 << 30)


def _touch_heap() -> None:
    """A page that a forked process touches first costs it 3 us; an ordinary artifact touches a thousand. A reader has
    time for that while it waits."""
    libc.touch_heap(_TOUCHED_BYTES)


def _shrink_heap() -> None:
    """To what `_touch_heap` leaves."""
    libc.trim()
    _touch_heap()


def _volunteer() -> None:
    """Be the first that the kernel ends when memory runs out: one artifact is then examined anew, and nobody else notices."""
    with contextlib.suppress(OSError):  # /proc is not there, or not to be written
        Path("/proc/self/oom_score_adj").write_text("1000")


def _serve_preforked(tasks: socket.socket, tell: int, patience_s: float | None) -> NoReturn:
    """patience_s: how long to wait for a task before ending; None is for ever."""
    status = 1
    try:
        _volunteer()
        if not select.select([tasks], [], [], 0)[0]:  # else whoever waits would wait for that, too
            _touch_heap()
            _warm_up()
        status = _take_tasks(tasks, tell, patience_s)
    finally:
        os._exit(status)  # neither the examiner's exit handlers nor its buffers are ours


def _take_tasks(tasks: socket.socket, tell: int, patience_s: float | None) -> int:
    """Examine artifacts for as long as this process is as good as new; the status to end with."""
    resident_before = resident = at_rest = process_resident_bytes()
    n_examined = 0
    while n_examined < MAX_ARTIFACTS:
        if resident - at_rest > KEPT_GROWTH_BYTES and not select.select([tasks], [], [], RESTING_S)[0]:
            _shrink_heap()
            at_rest = process_resident_bytes()  # that of one which was forked for a task had not been touched
        received = _next_task(tasks, patience_s)
        if received is None:
            return 0
        message, descriptors = received
        if not message:
            return RUNTIME_GONE
        os.write(tell, _TOLD.pack(os.getpid(), False))
        with socket.socket(fileno=descriptors[0]) as runtime:
            runtime.sendall(TAKEN)
            n_of_message, is_as_new = _examine_message(runtime)
        if not is_as_new:
            return 0
        n_examined += n_of_message
        gc.collect()  # the runtime has its answer
        resident = process_resident_bytes()
        if resident - resident_before > MAX_GROWTH_BYTES:  # its heap gives nothing back by itself, see _keep_heap
            return 0
        os.write(tell, _TOLD.pack(os.getpid(), True))
    return 0


def _next_task(tasks: socket.socket, patience_s: float | None) -> tuple[bytes, list[int]] | None:
    """What the runtime sends next; None when nothing came for so long."""
    while select.select([tasks], [], [], patience_s)[0]:
        # Another reader may be faster. The socket itself stays blocking: all readers have the same one, and so its flags.
        with contextlib.suppress(BlockingIOError):
            message, descriptors, _, _ = socket.recv_fds(tasks, 1, 1, socket.MSG_DONTWAIT)
            return message, descriptors
    return None


def _examine_message(runtime: socket.socket) -> tuple[int, bool]:
    """How many artifacts it had, and whether nothing but our own Python has looked at them, and found them sound."""
    with runtime.makefile("rb") as stream:
        (n_json,) = ASKED.unpack(stream.read(ASKED.size))
        tasks = read_as(_tasks, stream.read(n_json))
        blobs = [stream.read(task.n_sent) for task in tasks]
    if any(task.is_large for task in tasks):
        yield_to_others(LARGE_NICENESS)
    unsent: list[bytes] = []
    is_as_new = True
    for task, blob in zip(tasks, blobs, strict=True):
        _bind(task)
        documents, verdict = _examine(blob, task)
        facts: Any = verdict.get("facts", [])
        is_as_new = bool(facts) and all(one["is_forest"] for one in facts) and not (task.wants_origins or task.is_large)
        head = json.dumps(
            {**verdict, "documents": [len(document) for document in documents], "is_last": not is_as_new}
        ).encode()
        unsent += [ANSWERED.pack(sum(map(len, documents)), len(head)), head, *documents]
        if not is_as_new:
            break
        if sum(map(len, unsent)) > TOGETHER_BYTES:
            _send(runtime, unsent)
            unsent.clear()
    if unsent:  # sendall sends nothing, too, and fails when the runtime has all it wants by then
        _send(runtime, unsent)
    _unbind()
    return len(tasks), is_as_new


def _examine(blob: bytes, task: Task) -> tuple[list[bytes], dict[str, object]]:
    try:
        return _verdict(blob, task)
    except (ArtifactBroken, ArtifactRefused) as error:
        return [], {"error": type(error).__name__, "why": error.why}
    except ServingError as error:
        return [], {"error": "ArtifactUnavailable", "why": str(error)}
    except MemoryError:
        return [], {"error": "ArtifactRefused", "why": f"reading it takes more than {task.memory_bytes} bytes"}


def _send(runtime: socket.socket, pieces: list[bytes]) -> None:
    """Small ones in one go: each that is sent by itself wakes the runtime. Large ones are not copied."""
    if sum(map(len, pieces)) <= 2 * TOGETHER_BYTES:
        pieces = [b"".join(pieces)]
    for piece in pieces:
        runtime.sendall(piece)


def _bind(task: Task) -> None:
    """Limits for one artifact; what this process has used before does not count."""
    used_s = math.ceil(time.process_time())
    _limit(resource.RLIMIT_AS, task.memory_bytes)
    _limit(resource.RLIMIT_CPU, used_s + CPU_S)
    signal.setitimer(signal.ITIMER_REAL, task.wall_s)  # SIGALRM ends it, wherever it hangs
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def _unbind() -> None:
    signal.setitimer(signal.ITIMER_REAL, 0)
    _limit(resource.RLIMIT_AS, resource.RLIM_INFINITY)


def _limit(what: int, value: int) -> None:
    """The soft limit alone, which can be moved again for the next artifact."""
    _, most = resource.getrlimit(what)
    is_beyond = most != resource.RLIM_INFINITY and (value == resource.RLIM_INFINITY or value > most)
    resource.setrlimit(what, (most if is_beyond else value, most))


def _verdict(blob: bytes, task: Task) -> tuple[list[bytes], dict[str, object]]:
    limits = task.limits
    members = read_artifact(blob, task.uri, limits) if task.bundle is None else read_bundle(task.bundle, limits)
    documents: list[bytes] = []
    facts: list[dict[str, object]] = []
    origins: list[dict[str, object]] = []
    for member in members:
        imported = _imported(member, task.uri, is_one_of_many=len(members) > 1)
        try:
            document, loaded = _loaded(imported, task)
        except XGBoostError as error:
            raise ArtifactBroken(task.uri, f"XGBoost does not load {member.name}: {error}") from error
        documents.append(document)
        facts.append(loaded.as_dict())
        if task.wants_origins:
            origins.append(asdict(Origin(member.name, len(member.data), imported.facts)))
    return documents, {"facts": facts, "origins": origins}


def _imported(member: Member, uri: str, *, is_one_of_many: bool) -> Imported:
    try:
        return import_booster(member.data, uri)
    except (ArtifactBroken, ArtifactRefused) as error:
        if is_one_of_many:
            raise type(error)(uri, f"{member.name}: {error.why}") from error
        raise


def _loaded(imported: Imported, task: Task) -> tuple[bytes, Facts]:
    """What the runtime shall load, and its facts. Raises XGBoostError."""
    forest = pack(imported.learner) if _packs and not task.as_boosters else None
    if forest is not None and not task.wants_origins:
        return forest, facts_of(imported, len(forest), is_forest=True)
    booster = Booster()
    before = allocated_bytes()
    booster.load(imported.document)
    n_bytes = allocated_bytes() - before
    resident_bytes = n_bytes if forest is None else len(forest)
    return booster.save(), facts_of(imported, resident_bytes, is_forest=forest is not None)


def facts_of(imported: Imported, resident_bytes: int = 0, *, is_forest: bool = False) -> Facts:
    """resident_bytes: 0 of a booster that nobody has loaded: what it takes in memory is still to be measured."""
    says = imported.facts.predicting
    return Facts(
        objective=imported.facts.objective,
        booster=imported.facts.booster,
        n_features=imported.facts.n_features,
        n_outputs=imported.facts.n_outputs,
        resident_bytes=resident_bytes,
        feature_names=imported.facts.feature_names,
        feature_types=imported.facts.feature_types,
        corrections=imported.facts.corrections,
        is_forest=is_forest,
        categories=imported.facts.categories,
        labels=says.labels,
        missing=says.missing,
        best_rounds=says.best_rounds,
        best_unknown=says.why_unknown,
        stops_early=says.stops_early,
        is_undecided=says.is_undecided,
    )


if __name__ == "__main__":
    main()
