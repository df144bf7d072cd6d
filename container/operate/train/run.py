"""A run: every segment of the data that is not done yet, trained and put on the shelf, and then the release.

Rule: one process, a thread for each core, one segment at a time in each: nine tenths of the work is inside libxgboost, which
lets go of the interpreter. Rows are read once and handed over as views.
"""

from __future__ import annotations

import math
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from container.examine.quarantine import Quarantine
from container.limits import libc
from container.limits.cores import container_cores
from container.operate.progress import each
from container.operate.release import shelf
from container.operate.release.live import read_current
from container.operate.release.manifest import COVERED, DEFAULT_KEY, Manifest, content_of
from container.operate.release.place import Place
from container.operate.release.trouble import NoneSound
from container.operate.tables.contents import by_content
from container.operate.tables.files import DataFile, find
from container.operate.tables.names import NOBODY, Names
from container.operate.train import profiles
from container.operate.train.asked import Asked
from container.operate.train.done import Done
from container.operate.train.ledger import Begun, Ledger, digest_of, identity_of
from container.operate.train.live import LiveModels
from container.operate.train.profiles import Profile
from container.operate.train.rows import BUDGET_BYTES, Columns, Rows, SegmentRows, Span
from container.operate.train.segment import Came, Known, train_segment
from container.operate.troubles import Misused, Refused, Stopped
from handler.libxgboost import library_version

# While one thread of a core waits for the store, another one works.
THREADS_PER_CORE = 4
# Segments between two times that free memory goes back. Of models that come and go from many threads the C library keeps
# ever more of it, spread over its heaps: 40 MB after 20,000 segments, which none of them has.
TRIM_EVERY = 256


@dataclass(frozen=True, slots=True)
class Share:
    """This host's: segments whose key leaves `number` over, or one of the `width` numbers from there. Every host finds its
    own, and all together each once. is_job: what lies on this host is known by its content."""

    number: int = 0
    of: int = 1
    is_job: bool = False
    width: int = 1

    def has(self, key: str) -> bool:
        return self.number <= crc32(key.encode()) % self.of < self.number + self.width


@dataclass(frozen=True, slots=True)
class Sources:
    """Where rows are, and rows that judge, when they are apart."""

    data: tuple[str, ...]
    validation: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """manifest: of the release; None while other hosts have theirs to do. is_new: it was not there before.
    n_trained: segments looked at by this call; n_before: by calls before. unplaced: rows of no segment, or that could not
    be used, by reason."""

    manifest: Manifest | None
    is_new: bool
    n_trained: int
    n_before: int
    n_rows: int
    unplaced: Mapping[str, int]
    unused: tuple[str, ...]


def run(
    place: Place,
    asked: Asked,
    sources: Sources,
    *,
    who: str,
    note: str = "",
    stop: threading.Event,
    share: Share | None = None,
    scratch: str | None = None,
    budget_bytes: int = BUDGET_BYTES,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Outcome:
    """Train what is left of a run. Raises CommandFailed, ArtifactError of the stores."""
    share = share or Share()
    asked.check()
    files = _files("--data", sources.data, asked, place, share)
    validation = _files("--validation", sources.validation, asked, place, share)
    with ExitStack() as closing:
        folder = Path(closing.enter_context(tempfile.TemporaryDirectory(prefix="mme-train-", dir=scratch)))
        live, live_digest = _live(place)
        base = read_current(place.shelf).release or None
        made_with = f"XGBoost {library_version()}"
        ledger = Ledger(
            place.shelf, identity_of(asked, files, validation, live_digest, base, made_with), f"{share.number:03d}"
        )
        begun = ledger.begin(Begun(f"{now():%Y-%m-%dT%H:%M:%SZ}", who))
        came_before = ledger.release()
        if came_before is not None:
            return Outcome(shelf.manifest(place.shelf, came_before), False, 0, 0, 0, {}, ())
        work = _Work(place, asked, share, ledger, stop, folder, closing, budget_bytes, live, base)
        rows = work.read(files, validation)
        n_trained, n_before = work.train()
        outcome = Outcome(None, False, n_trained, n_before, rows.n_rows, dict(rows.reasons), rows.unused)
        done = Done(work.wanted, ledger, folder)
        libc.trim()  # what training took
        released = _release(place, sources, begun, note, done, rows.columns.names, made_with) if done.is_whole else None
        if released is None:
            by_another = ledger.release()
            return outcome if by_another is None else replace(outcome, manifest=shelf.manifest(place.shelf, by_another))
        manifest, is_new = released
        ledger.finish(manifest.id)
        return replace(outcome, manifest=manifest, is_new=is_new)


def _files(flag: str, locations: Sequence[str], asked: Asked, place: Place, share: Share) -> tuple[DataFile, ...]:
    if not locations:
        return ()
    found = find(locations, asked.data_format, place.endpoint_url, flag=flag)
    return by_content(found) if share.is_job else found


def _live(place: Place) -> tuple[Names, str]:
    """Keys that hold something live, and a digest of them and their versions."""
    found = [(one.target, one.version) for one in place.live.list()]
    return Names(key for key, _ in found), digest_of([key, version] for key, version in found)


class _Work:
    """One host's part of a run."""

    def __init__(
        self,
        place: Place,
        asked: Asked,
        share: Share,
        ledger: Ledger,
        stop: threading.Event,
        scratch: Path,
        closing: ExitStack,
        budget_bytes: int,
        live: Names,
        base: str | None,
    ) -> None:
        self._place = place
        self._asked = asked
        self._share = share
        self._ledger = ledger
        self._stop = stop
        self._n_cores = max(1, math.ceil(container_cores()))
        self._slots = threading.Semaphore(self._n_cores)
        self._rows = Rows(asked, scratch, share.has, budget_bytes=budget_bytes)
        closing.callback(self._rows.close)
        quarantine = Quarantine(self._n_cores + 1)
        if live:
            quarantine.start()
        closing.callback(quarantine.close)
        self._live = LiveModels(place.live, live, quarantine)
        self._before = profiles.read(place.shelf, base) if base is not None else None
        self._places: Mapping[int, int] = {}
        self._columns = Columns(0, ())
        self._there = Names(digest for digest, _ in shelf.artifacts(place.shelf))
        self.wanted = Names()  # all segments that there is to be a word of, here or elsewhere

    def read(self, files: Sequence[DataFile], validation: Sequence[DataFile]) -> Rows:
        url = self._place.endpoint_url
        self._rows.read(files, url, self._check)
        self._rows.read(validation, url, self._check, is_held=True)
        libc.trim()  # what the windows took; a run of many segments would keep it to its end
        self._columns = self._rows.columns
        if not self._rows.keys:
            raise Refused(f"no row is of a segment: {next(iter(self._rows.reasons), 'there are none')}")
        if DEFAULT_KEY in self._rows.keys:
            raise Misused(f"a segment is called {DEFAULT_KEY}, which is the name of the model over all segments")
        self.wanted = Names([*self._rows.keys, *self._default()])
        if self._before is not None:
            self._places = self._before.places(self._columns)
        return self._rows

    def train(self) -> tuple[int, int]:
        """What is not done yet: how many there were, and how many of this host's were done before."""
        is_done, n_before = self._done_before()
        rows = self._rows
        is_wanted = rows.is_mine & ~is_done[: len(rows.keys)]
        own_default = [key for key in self._default() if self._share.has(key) and not is_done[self.wanted.find(key)]]
        n_wanted = int(np.count_nonzero(is_wanted)) + len(own_default)
        n_trained = 0
        n_at_once = self._n_cores * (THREADS_PER_CORE if self._place.is_s3 else 1) + 1
        try:
            for came in each("trained", self._one, self._waiting(own_default, is_wanted), n_wanted, n_at_once):
                if came is not None:
                    self._ledger.add(came)
                    n_trained += 1
                    if n_trained % TRIM_EVERY == 0:
                        libc.trim()
        finally:
            self._ledger.flush()
        self._check()
        return n_trained, n_before

    def _done_before(self) -> tuple[NDArray[np.bool_], int]:
        """By number of what is wanted; and how many this host has noted."""
        is_done = np.zeros(len(self.wanted), np.bool_)
        is_noted = np.zeros(len(self.wanted), np.bool_)
        for came in self._ledger.read():
            number = self.wanted.find(came.key)
            if number != NOBODY:
                is_noted[number] = self._share.has(came.key)
                is_done[number] = came.segment is None or came.segment.digest in self._there
        return is_done, int(np.count_nonzero(is_noted))

    def _default(self) -> tuple[str, ...]:
        return (DEFAULT_KEY,) if self._asked.fallback_below is not None else ()

    def _waiting(self, own_default: Sequence[str], is_wanted: NDArray[np.bool_]) -> Iterator[SegmentRows]:
        """Nothing more once the run is to end."""
        for key in own_default:  # the largest of all
            yield self._rows.sample(key)
        for rows in self._rows.segments(is_wanted):
            if self._stop.is_set():
                return
            yield rows

    def _one(self, rows: SegmentRows) -> Came | None:
        """None when the run ended before it."""
        live = self._live.model(rows.key)
        try:
            with self._slots:
                self._check()
                came = train_segment(rows, self._asked, self._columns, live, self._known(rows), self._check)
        except Stopped:
            return None
        finally:
            if live is not None:
                live.close()
        if came.segment is not None and came.segment.digest not in self._there:
            shelf.put_artifact(self._place.shelf, came.packed)
        return replace(came, packed=b"")

    def _known(self, rows: SegmentRows) -> Known:
        columns = self._columns
        before: Profile | None = self._before.get(rows.key) if self._before is not None else None
        drift = profiles.drift_of(rows, columns, before, self._places) if before is not None else None
        span = self._rows.span(rows.key) or Span(len(rows.labels))
        return Known(span, profiles.profile_of(rows, columns), drift)

    def _check(self) -> None:
        if self._stop.is_set():
            raise Stopped("stopped; the same command goes on")


def _release(
    place: Place,
    sources: Sources,
    begun: Begun,
    note: str,
    done: Done,
    names: tuple[str, ...],
    made_with: str,
) -> tuple[Manifest, bool]:
    """The release that a whole run comes to, whichever host writes it; and whether it was not there before."""
    covered = COVERED if DEFAULT_KEY in done else ""
    refused = {one.key: (covered if one.is_covered else "") + one.failed for one in done.failed()}
    if not len(done):
        key, why = next(iter(sorted(refused.items())))
        raise NoneSound(f"none of {len(refused)} segments has got a model; {key}: {why}")
    content = content_of(done, refused)
    ids = shelf.release_ids(place.shelf)
    for id in ids:
        if id.endswith(content):
            same = shelf.manifest(place.shelf, id)
            if same.content == content:
                return same, False
    id = shelf.new_id(datetime.fromisoformat(begun.made_at), content, ids)
    manifest = Manifest(
        *(id, begun.made_at, begun.made_by, (*sources.data, *sources.validation)),
        *(note, f"trained, {made_with}", done, refused),
    )
    of_keys = ((came.key, came.profile) for came in done.all() if came.profile is not None)
    profiles.put(place.shelf, manifest.id, names, of_keys)
    shelf.put_manifest(place.shelf, manifest)
    return manifest, True
