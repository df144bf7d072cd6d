"""What of a training run is done, in `runs/ID/` on the shelf.

    run.json             which run this is, when it began and who began it; written first
    done/HOST-N.jsonl    segments as they were done: what the release will say of each, or why it has none
    release.json         the release that came of it; written last

Rule: an entry is written when its artifact lies on the shelf, so a run that is killed between any two writes goes on. The
same question about the same data and the same live models is the same run, whoever asks and however often.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from container.operate.documents import read_as
from container.operate.release.manifest import Segment, fields_of
from container.operate.release.shelf import RUNS
from container.operate.tables.files import DataFile
from container.operate.train.asked import Asked
from container.operate.train.profiles import Profile
from container.operate.train.segment import Came
from container.operate.troubles import Refused
from handler.errors import ArtifactChanged, ArtifactMissing
from handler.payload.rows import Floats
from handler.stores.writing import NOTHING, WritingStore

FORMAT = 1
# Between two writes of entries: what a killed run does again is what it did in that time.
FLUSH_S = 2.0
FLUSH_N = 500


@dataclass(frozen=True, slots=True)
class Begun:
    """When and by whom, however often it was started again: it is the release's."""

    made_at: str
    made_by: str


@dataclass(frozen=True, slots=True)
class _OfModel:
    """The part of an entry that the release has."""

    key: str
    segment: Segment


@dataclass(frozen=True, slots=True)
class Line:
    """A segment that is done, as it is written, and where."""

    text: bytes
    uri: str


@dataclass(frozen=True, slots=True)
class _Over:
    release: str


@dataclass(frozen=True, slots=True)
class _Entry:
    """A segment that is done. edges, shares: of its profile."""

    key: str
    failed: str
    is_covered: bool
    segment: Segment | None
    edges: list[list[float]]
    shares: list[list[float]]


def identity_of(
    asked: Asked,
    files: Sequence[DataFile],
    validation: Sequence[DataFile],
    live: str,
    base: str | None,
    made_with: str,
) -> dict[str, Any]:
    """What a run's release depends on. live: `digest_of` keys and versions. base: the release that drift is held against."""
    return {
        "format": FORMAT,
        "asked": asdict(asked),
        "files": digest_of([one.name, one.size, one.content or one.version] for one in files),
        "validation": digest_of([one.name, one.size, one.content or one.version] for one in validation),
        "live": live,
        "base": base,
        "made_with": made_with,
    }


class Ledger:
    """One run's. Safe for many hosts at once; of one host, for one thread."""

    def __init__(
        self,
        store: WritingStore,
        identity: Mapping[str, Any],
        host: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._identity = identity
        self.id = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
        self._root = f"{RUNS}{self.id}/"
        self._host = host
        self._clock = clock
        self._lines: list[str] = []
        self._written_at = clock()
        self._n_written = 0

    def begin(self, begun: Begun) -> Begun:
        """Write down that it has begun; what somebody wrote before."""
        text = json.dumps({**asdict(begun), "identity": self._identity}, indent=1).encode()
        try:
            self._store.put(f"{self._root}run.json", text, NOTHING)
        except ArtifactChanged:
            fetched = self._store.fetch(f"{self._root}run.json")
            return read_as(Begun, fetched.data, fetched.uri)
        return begun

    def release(self) -> str | None:
        """The release that came of it before."""
        try:
            fetched = self._store.fetch(f"{self._root}release.json")
        except ArtifactMissing:
            return None
        return read_as(_Over, fetched.data, fetched.uri).release

    def read(self) -> Iterator[Came]:
        """What all hosts have done, one at a time. Where two hosts did the same one, it comes twice."""
        for line in self.lines():
            yield came_of(line)

    def lines(self) -> Iterator[Line]:
        """The same as it is written."""
        for found in self._store.list(f"{self._root}done/"):
            host, _, number = found.target.rpartition("/")[2].removesuffix(".jsonl").rpartition("-")
            if host == self._host:
                self._n_written = max(self._n_written, int(number) + 1)
            try:
                texts = self._store.fetch(found.target).data.splitlines()
            except ArtifactMissing:  # another host has just made the release
                continue
            for text in texts:
                yield Line(text, found.target)

    def add(self, came: Came) -> None:
        """Note it; it is written with others, soon."""
        self._lines.append(json.dumps(_entry(came), separators=(",", ":"), allow_nan=False, default=fields_of))
        if len(self._lines) >= FLUSH_N or self._clock() - self._written_at >= FLUSH_S:
            self.flush()

    def flush(self) -> None:
        while self._lines:
            name = f"{self._root}done/{self._host}-{self._n_written:06d}.jsonl"
            self._n_written += 1
            # The same command may run twice at once on one machine: what is there is the other one's.
            with suppress(ArtifactChanged):
                self._store.put(name, "\n".join(self._lines).encode(), NOTHING)
                self._lines.clear()
        self._written_at = self._clock()

    def finish(self, release: str) -> None:
        """Note what came of it; entries are not needed any more."""
        self._store.put(f"{self._root}release.json", json.dumps(asdict(_Over(release))).encode())
        for found in list(self._store.list(f"{self._root}done/")):
            self._store.remove(found.target)


def _entry(came: Came) -> _Entry:
    profile = came.profile
    lists = ([], []) if profile is None else (_lists(profile.edges), _lists(profile.shares))
    return _Entry(came.key, came.failed, came.is_covered, came.segment, *lists)


def came_of(line: Line) -> Came:
    """Raises Refused."""
    entry = read_as(_Entry, line.text, line.uri)
    try:
        profile = Profile.of(entry.edges, entry.shares) if entry.edges else None
    except ValueError as error:
        raise Refused(f"{line.uri} is not as it was written: of {entry.key}, {error}") from error
    return Came(entry.key, entry.segment, entry.failed, entry.is_covered, profile)


def segment_of(line: Line) -> Segment:
    """Of one with a model, alone: a profile takes as long to read again. Raises Refused."""
    return read_as(_OfModel, line.text, line.uri).segment


def _lists(values: Floats) -> list[list[float]]:
    found: list[list[float]] = values.astype(np.float64).tolist()
    return found


def digest_of(lines: Any) -> str:
    digest = hashlib.sha256()
    for line in lines:
        digest.update(json.dumps(line).encode() + b"\n")
    return digest.hexdigest()
