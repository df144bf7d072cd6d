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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from container.operate.release.manifest import Features, Segment
from container.operate.tables.files import DataFile
from container.operate.train.asked import Asked
from container.operate.train.profiles import Profile
from container.operate.train.segment import Came
from handler.errors import ArtifactChanged, ArtifactMissing
from handler.stores.writing import NOTHING, WritingStore

RUNS = "runs/"
FORMAT = 1
# Between two writes of entries: what a killed run does again is what it did in that time.
FLUSH_S = 2.0
FLUSH_N = 500


@dataclass(frozen=True, slots=True)
class Begun:
    """When and by whom, however often it was started again: it is the release's."""

    made_at: str
    made_by: str


def identity_of(
    asked: Asked,
    files: Sequence[DataFile],
    validation: Sequence[DataFile],
    live: Mapping[str, str],
    base: str | None,
    made_with: str,
) -> dict[str, Any]:
    """What a run's release depends on. base: the release that drift is held against."""
    return {
        "format": FORMAT,
        "asked": asdict(asked),
        "files": _digest([one.name, one.size, one.content or one.version] for one in files),
        "validation": _digest([one.name, one.size, one.content or one.version] for one in validation),
        "live": _digest([key, live[key]] for key in sorted(live)),
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
            found = json.loads(self._store.fetch(f"{self._root}run.json").data)
            return Begun(found["made_at"], found["made_by"])
        return begun

    def release(self) -> str | None:
        """The release that came of it before."""
        try:
            return str(json.loads(self._store.fetch(f"{self._root}release.json").data)["release"])
        except ArtifactMissing:
            return None

    def read(self) -> dict[str, Came]:
        """What all hosts have done, by key."""
        done: dict[str, Came] = {}
        for found in self._store.list(f"{self._root}done/"):
            host, _, number = found.target.rpartition("/")[2].removesuffix(".jsonl").rpartition("-")
            if host == self._host:
                self._n_written = max(self._n_written, int(number) + 1)
            for line in self._store.fetch(found.target).data.splitlines():
                came = _came(json.loads(line))
                done[came.key] = came
        return done

    def add(self, came: Came) -> None:
        """Note it; it is written with others, soon."""
        self._lines.append(json.dumps(_values(came), separators=(",", ":"), allow_nan=False))
        if len(self._lines) >= FLUSH_N or self._clock() - self._written_at >= FLUSH_S:
            self.flush()

    def flush(self) -> None:
        if self._lines:
            name = f"{self._root}done/{self._host}-{self._n_written:06d}.jsonl"
            self._store.put(name, "\n".join(self._lines).encode())
            self._n_written += 1
            self._lines.clear()
        self._written_at = self._clock()

    def finish(self, release: str) -> None:
        """Note what came of it; entries are not needed any more."""
        self._store.put(f"{self._root}release.json", json.dumps({"release": release}).encode())
        for found in list(self._store.list(f"{self._root}done/")):
            self._store.remove(found.target)


def _values(came: Came) -> dict[str, Any]:
    segment = came.segment
    return {
        "key": came.key,
        "failed": came.failed,
        "is_covered": came.is_covered,
        "segment": None if segment is None else segment.to_dict() | {"features": asdict(segment.features)},
        "profile": None if came.profile is None else [_floats(came.profile.edges), _floats(came.profile.shares)],
    }


def _came(values: dict[str, Any]) -> Came:
    segment, profile = values["segment"], values["profile"]
    made = None
    if segment is not None:
        features = segment["features"]
        made = Segment.from_dict(segment, Features(features["n"], tuple(features["names"]), tuple(features["types"])))
    return Came(
        values["key"],
        made,
        values["failed"],
        values["is_covered"],
        None if profile is None else Profile(*(np.array(one, np.float32) for one in profile)),
    )


def _floats(values: Any) -> list[Any]:
    found: list[Any] = np.nan_to_num(values).astype(np.float64).tolist()
    return found


def _digest(lines: Any) -> str:
    digest = hashlib.sha256()
    for line in lines:
        digest.update(json.dumps(line).encode() + b"\n")
    return digest.hexdigest()
