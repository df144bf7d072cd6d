"""What of a run is done: `run.json` says which run lies here, `ledger/NAME.json` that a part is whole.

    rows/NAME.parquet     a part, row for row as its data file
    errors/NAME.parquet   rows without an answer, where there are any
    ledger/NAME.json      written after both
    run.json              written first: what was asked, of which data and models
    summary.json          written when nothing is left to do
    _SUCCESS              written last

Rule: an entry is written when everything it speaks of is there, so a run that is killed between any two writes goes on. A
place where another run lies is refused.
"""

from __future__ import annotations

import base64
import hashlib
import json
import mmap
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from container.operate.batch.asked import Asked
from container.operate.batch.layout import Column, Layout
from container.operate.batch.parts import Counts
from container.operate.documents import read_as
from container.operate.tables.files import DataFile
from container.operate.troubles import Misused, Refused
from handler.errors import ArtifactChanged, ArtifactMissing
from handler.stores.store import Content
from handler.stores.writing import NOTHING, WritingStore

RUN, SUMMARY, SUCCESS = "run.json", "summary.json", "_SUCCESS"
_LEDGER = "ledger/"
FORMAT = 1


@dataclass(frozen=True, slots=True)
class Entry:
    """A part that is done, or a file that cannot be scored and why.

    used     models that scored, as bits over the run's sorted targets: packed, deflated, base64
    missing  rows of segments whose model cannot be had, by target
    n_loads  models that were loaded between the part that was done before, wherever that was, and this one
    """

    name: str
    n_rows: int
    n_errors: int
    used: str
    missing: dict[str, int]
    seconds: float
    failure: str = ""
    n_loads: int = 0


@dataclass(frozen=True, slots=True)
class _Run:
    layout: tuple[Column, ...]


class Ledger:
    """One run's, in its place. Safe to call from many threads and hosts at once."""

    def __init__(self, store: WritingStore, asked: Asked, files: Sequence[DataFile], models: Mapping[str, str]) -> None:
        self._store = store
        self._asked = asked
        self._files = files
        self._models = models
        self._at = {target: at for at, target in enumerate(sorted(models))}
        self._suffix = asked.out_format
        self._had_failed: frozenset[str] = frozenset()

    @property
    def identity(self) -> dict[str, Any]:
        """What a run's bytes depend on."""
        return {
            "format": FORMAT,
            "asked": asdict(self._asked),
            "n_files": len(self._files),
            "files": _digest([one.name, one.size, one.content or one.version] for one in self._files),
            "n_models": len(self._models),
            "models": _digest([target, self._models[target]] for target in self._at),
        }

    def read_layout(self) -> Layout | None:
        """Of the run that lies here; None when none does. Raises Misused when it is another than this."""
        try:
            fetched = self._store.fetch(RUN)
        except ArtifactMissing:
            return None
        found = read_as(dict[str, Any], fetched.data, fetched.uri)
        mine = json.loads(json.dumps(self.identity))
        other = [name for name, value in mine.items() if found.get(name) != value]
        if other:
            what = {"files": "data", "n_files": "data", "models": "models", "n_models": "models", "asked": "options"}
            differs = ", ".join(dict.fromkeys(what.get(name, name) for name in other))
            raise Misused(f"{self._store.uri('')} holds a run of other {differs}; choose another --out")
        layout = read_as(_Run, fetched.data, fetched.uri).layout
        if not all(column.is_one for column in layout):
            raise Refused(f"{fetched.uri} is not as it was written: its layout has columns that there are not")
        return layout

    def begin(self, layout: Layout) -> Layout:
        """Write down which run this is; the layout it has, which another host may have written a moment ago."""
        text = json.dumps({**self.identity, "layout": [asdict(one) for one in layout]}, indent=1).encode()
        try:
            self._store.put(RUN, text, NOTHING)
        except ArtifactChanged:
            return self.read_layout() or layout
        return layout

    def entries(self) -> dict[str, Entry]:
        """Of all hosts, by the name of the data file."""
        fetched = [self._store.fetch(one.target) for one in self._store.list(_LEDGER)]
        found = [read_as(Entry, one.data, one.uri) for one in fetched]
        entries = {entry.name: entry for entry in found}
        self._had_failed = frozenset(name for name, entry in entries.items() if entry.failure)
        return entries

    def put_part(self, file: DataFile, part: Path, errors: Path, counts: Counts, seconds: float, n_loads: int) -> Entry:
        name = f"errors/{file.stem}.{self._suffix}"
        if errors.exists():
            self._store.put(name, errors.read_bytes())
        elif file.name in self._had_failed:
            self._store.remove(name)
        with _mapped(part) as data:
            self._store.put(f"rows/{file.stem}.{self._suffix}", data)
        entry = Entry(
            file.name,
            counts.n_rows,
            counts.n_errors,
            self._bits(counts.targets),
            dict(sorted(counts.missing.items())),
            seconds,
            n_loads=n_loads,
        )
        return self._put(file, entry)

    def put_failure(self, file: DataFile, why: str, errors: bytes, seconds: float) -> Entry:
        self._store.put(f"errors/{file.stem}.{self._suffix}", errors)
        return self._put(file, Entry(file.name, 0, 1, "", {}, seconds, why))

    def finish(self, summary: Mapping[str, Any], *, is_success: bool) -> None:
        self._store.put(SUMMARY, json.dumps(summary, indent=1).encode())
        if is_success:
            self._store.put(SUCCESS, b"")

    def summary(self, entries: Mapping[str, Entry]) -> dict[str, Any]:
        """What the run came to, of the ledger alone: every host finds the same."""
        used = np.zeros(len(self._at), np.uint8)
        missing: dict[str, int] = {}
        for entry in entries.values():
            if entry.used:
                used |= self._used(entry)
            for target, n_rows in entry.missing.items():
                missing[target] = missing.get(target, 0) + n_rows
        targets = list(self._at)
        n_rows = sum(entry.n_rows for entry in entries.values())
        n_errors = sum(entry.n_errors for entry in entries.values())
        return {
            "rows": n_rows,
            "scored": n_rows - sum(entry.n_errors for entry in entries.values() if not entry.failure),
            "errors": n_errors,
            "files": len(self._files),
            "failed": {name: entry.failure for name, entry in sorted(entries.items()) if entry.failure},
            "segments": int(used.sum()),
            "loads": sum(entry.n_loads for entry in entries.values()),
            "missing": dict(sorted(missing.items())),
            "seconds": round(sum(entry.seconds for entry in entries.values()), 3),
            "models": {targets[at]: self._models[targets[at]] for at in np.flatnonzero(used)},
        }

    def _put(self, file: DataFile, entry: Entry) -> Entry:
        self._store.put(f"{_LEDGER}{file.stem}.json", json.dumps(asdict(entry)).encode())
        return entry

    def _bits(self, targets: set[str]) -> str:
        bits = np.zeros(len(self._at), np.uint8)
        bits[[self._at[target] for target in targets]] = 1
        return base64.b64encode(zlib.compress(np.packbits(bits).tobytes())).decode()

    def _used(self, entry: Entry) -> Any:
        """Raises Refused where these are no bits over the run's targets."""
        n_bytes = -(-len(self._at) // 8)
        try:
            packed = zlib.decompressobj().decompress(base64.b64decode(entry.used, validate=True), n_bytes + 1)
        except (ValueError, zlib.error) as error:
            raise Refused(f"the ledger's entry of {entry.name} is not as it was written: {error}") from error
        if len(packed) != n_bytes:
            raise Refused(f"the ledger's entry of {entry.name} is not as it was written: it is of other models")
        return np.unpackbits(np.frombuffer(packed, np.uint8), count=len(self._at))


@contextmanager
def _mapped(part: Path) -> Iterator[Content]:
    """What a part holds, from where the kernel has it: to read it and write it again is 0.1 s of ten million rows."""
    with open(part, "rb") as file:
        if not os.fstat(file.fileno()).st_size:  # of JSON lines there may be none
            yield b""
            return
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data, memoryview(data) as view:
            yield view


def _digest(lines: Any) -> str:
    digest = hashlib.sha256()
    for line in lines:
        digest.update(json.dumps(line).encode() + b"\n")
    return digest.hexdigest()
