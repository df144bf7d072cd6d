"""Models held in memory, least recently used first out.

Rule: the lock guards bookkeeping only. S3, disk and XGBoost are never touched while it is held.

A model's bytes are on the book from before it is loaded (reserved) until after its memory is free. In between it is in
the index, where a borrower finds it, or on its way out: a model that leaves while it is borrowed stays whole until the
last borrower lets go, and counts until then.

    miss -> one flight per target -> prepare (fetch, examine) -> reserve (evict just enough) -> load -> index

A newer version is loaded beside the old model and takes its place in the index between two requests (`replace`).
"""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import CancelledError, Executor
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol

from handler.cache.singleflight import Flights, copy_of
from handler.errors import ModelNotReady, NoRoom, ServingError, Unavailable
from handler.predictor import Scorer
from handler.telemetry.recorder import MODEL_UNLOADING_TIME, SINGLE_FLIGHT_WAITERS, Recorder

# How long a load waits for borrowers to let go of memory it was promised, before it says that there is no room.
ROOM_WAIT_S = 5.0
# A wait for a load from nearby. While most are no longer, first calls may stay for some of them although too many wait.
SHORT_WAIT_S = 0.05
# How often a load that found only models of too short a residence looks again.
YOUNG_WAIT_S = 0.05


class Prepared(Protocol):
    """An artifact fetched and examined: its cost is known, its memory not yet taken."""

    @property
    def version(self) -> str: ...
    @property
    def n_bytes(self) -> int: ...
    @property
    def downloaded_bytes(self) -> int: ...
    @property
    def download_us(self) -> int | None: ...
    @property
    def examine_us(self) -> int: ...
    @property
    def checked_s_ago(self) -> float: ...
    def load(self) -> Scorer: ...


@dataclass(frozen=True, slots=True)
class Resident:
    """What the cache tells of one model it holds. `idle_s` and `age_s` are since its last use and its load.

    trouble   why a newer version does not take its place, or why none could be looked for; empty when all is well
    """

    target: str
    version: str
    n_bytes: int
    hits: int
    age_s: float
    idle_s: float
    borrowers: int
    trouble: str = ""
    is_pinned: bool = False


class _Entry:
    __slots__ = (
        "borrowers", "check_at", "hits", "is_leaving", "is_pinned", "loaded_at", "model", "n_bytes", "target",
        "trouble", "used_at", "version",
    )  # fmt: skip

    def __init__(self, target: str, version: str, model: Scorer, n_bytes: int, now: float) -> None:
        self.target = target
        self.version = version
        self.model = model
        self.n_bytes = n_bytes
        self.borrowers = 0
        self.hits = 0
        self.is_leaving = False
        self.is_pinned = False
        self.loaded_at = now
        self.used_at = now
        self.check_at = math.inf  # when to ask for a newer version; infinite while that is being done
        self.trouble = ""


class _Full(NoRoom):
    """No room without evicting somebody, which a fill may not. Whoever came along for a load tries again by himself."""


class Borrowed:
    """A model in use: `with cache.borrow(target) as borrowed`.

    is_hit    it was in memory when asked for
    wait_us   microseconds spent waiting for its load; 0 for a hit
    """

    __slots__ = ("_cache", "_entry", "is_hit", "model", "wait_us")

    def __init__(self, cache: ModelCache, entry: _Entry, is_hit: bool, wait_us: int) -> None:
        self._cache = cache
        self._entry = entry
        self.model = entry.model
        self.is_hit = is_hit
        self.wait_us = wait_us

    def __enter__(self) -> Borrowed:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._cache._release(self._entry)


class ModelCache:
    """Owns loading once, counting bytes and choosing who leaves.

    budget_bytes   what all models together may take, those being loaded and those on their way out included; see `resize`
    prepare        fetches and examines a target's artifact; runs on the executor, several targets at once
    executor       runs the loads; owned and shut down by the caller
    max_waiting    callers that may wait for loads at the same time; one more gets ModelNotReady, soon while loads are
                   short and at once while they are not, so that threads stay free for models in memory: with 0.25 s for
                   each, a storm of 500 first calls from a slow S3 kept hot ones waiting for 9 s
    refused        what `prepare` would raise at once, if it is known; asked before a caller waits for it
    on_freed       told after models' memory was freed, with the bytes
    give_up        lets go of what was booked with `book` and is idle, and says how many bytes that was; it goes before any
                   model does
    room_wait_s    how long a load waits for borrowers to let go, before NoRoom
    is_pinned      whether a target's model may never be evicted; it counts all the same
    min_residence_s   for how long a model that has just been loaded is not evicted
    clock          seconds, monotonic
    """

    def __init__(
        self,
        *,
        budget_bytes: int,
        prepare: Callable[[str], Prepared],
        executor: Executor,
        max_waiting: int,
        recorder: Recorder,
        refused: Callable[[str], ServingError | None] = lambda _: None,
        on_freed: Callable[[int], None] = lambda _: None,
        give_up: Callable[[], int] = lambda: 0,
        room_wait_s: float = ROOM_WAIT_S,
        is_pinned: Callable[[str], bool] = lambda _: False,
        min_residence_s: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.budget_bytes = budget_bytes
        self._prepare = prepare
        self._flights: Flights[str, _Entry] = Flights(executor)
        self.n_waiting = 0  # callers that wait for a load; guarded by the lock
        self.n_hits = 0  # calls that found their model here; guarded by the lock
        self._max_waiting = max_waiting
        self._typical_wait_s = 0.0  # of late; guarded by the lock
        self._places = threading.BoundedSemaphore(max_waiting)
        self._recorder = recorder
        self._refused = refused
        self._on_freed = on_freed
        self._give_up = give_up
        self._room_wait_s = room_wait_s
        self._is_pinned = is_pinned
        self._min_residence_s = min_residence_s
        self._clock = clock
        self._lock = threading.Lock()
        self._room = threading.Condition(self._lock)
        self._index: OrderedDict[str, _Entry] = OrderedDict()
        self._booked = 0  # bytes of models indexed, being loaded and on their way out
        self._leaving = 0  # of these, bytes on their way out
        self._pinned = 0  # bytes of models indexed that may not be evicted
        self._lent = 0  # bytes booked that are no model's
        self._wanting_room = 0  # loads that wait for bytes to be released
        self._is_closed = False
        self._max_age_s = math.inf
        self._on_old: Callable[[str, str], None] = lambda _target, _version: None

    def watch_age(self, max_age_s: float, on_old: Callable[[str, str], None]) -> None:
        """Tell `on_old(target, version)` of a model that is asked for and was last checked over max_age_s ago.

        It is told once and answers with `keep`, `replace` or `drop`. It is called by whoever asks, so it must not wait.
        """
        self._max_age_s = max_age_s
        self._on_old = on_old

    # -- borrowing -----------------------------------------------------------------------------------------------------

    def borrow(self, target: str, wait_s: float) -> Borrowed:
        """The target's model, loaded if need be, held in memory until the `with` block ends.

        raises   ModelNotReady when its load has not ended after wait_s (the load goes on), NoRoom, Unavailable while
                 closing, and whatever `prepare` raises
        """
        borrowed = self.borrow_present(target)
        if borrowed is not None:
            return borrowed
        refusal = self._refused(target)
        if refusal is not None:
            raise copy_of(refusal) from refusal
        start = self._clock()
        with self._place_to_wait(target, wait_s):
            while True:
                if target in self._flights:
                    self._recorder.count(SINGLE_FLIGHT_WAITERS)
                flight = self._flights.join(target, lambda: self._load(target))
                waited_s = self._clock() - start
                try:
                    loaded = flight.result(timeout=max(0.0, wait_s - waited_s))
                except FutureTimeout:
                    self._learn_wait(self._clock() - start)
                    raise ModelNotReady(target, self._clock() - start) from None
                except CancelledError:
                    raise Unavailable("the endpoint is stopping") from None
                except _Full:
                    continue
                # Under thrash it may be gone again by now; then the next round loads it anew.
                if self._take_loaded(loaded):
                    self._learn_wait(self._clock() - start)
                    return Borrowed(self, loaded, False, max(1, round((self._clock() - start) * 1e6)))

    def borrow_present(self, target: str) -> Borrowed | None:
        """The target's model if it is in memory, without waiting for anything; None when it is not."""
        entry = self._take(target)
        return None if entry is None else Borrowed(self, entry, True, 0)

    @property
    def is_crowded(self) -> bool:
        """Whether no more callers may wait for loads; `borrow` of a model that is not here then raises at once."""
        return self.n_waiting >= self._max_waiting and not self._patience_s

    @property
    def _patience_s(self) -> float:
        """How long a caller may stay for whom there is no place: some loads long while those are short, else not at all."""
        return 0.0 if self._typical_wait_s > SHORT_WAIT_S else max(SHORT_WAIT_S, 4 * self._typical_wait_s)

    def _learn_wait(self, waited_s: float) -> None:
        with self._lock:
            self._typical_wait_s += (waited_s - self._typical_wait_s) / 5

    def _take(self, target: str) -> _Entry | None:
        with self._lock:
            entry = self._index.get(target)
            if entry is None:
                return None
            entry.borrowers += 1
            entry.hits += 1
            self.n_hits += 1
            entry.used_at = now = self._clock()
            self._index.move_to_end(target)
            if now < entry.check_at:
                return entry
            entry.check_at = math.inf
        self._on_old(target, entry.version)
        return entry

    def _take_loaded(self, entry: _Entry) -> bool:
        with self._lock:
            if entry.is_leaving:
                return False
            entry.borrowers += 1
            entry.used_at = self._clock()
            self._index.move_to_end(entry.target)
            return True

    def _release(self, entry: _Entry) -> None:
        with self._lock:
            entry.borrowers -= 1
            if entry.borrowers:
                return
            if not entry.is_leaving:
                if self._wanting_room:
                    self._room.notify_all()
                return
        self._free([entry])

    @contextmanager
    def _place_to_wait(self, target: str, wait_s: float) -> Iterator[None]:
        if not self._places.acquire(blocking=False):
            self._flights.join(target, lambda: self._load(target))  # the load begins all the same
            patience_s = min(wait_s, self._patience_s)
            if not patience_s:
                raise ModelNotReady(target, 0.0)
            if not self._places.acquire(timeout=patience_s):
                self._learn_wait(2 * patience_s)  # at least
                raise ModelNotReady(target, patience_s)
        with self._lock:
            self.n_waiting += 1
        try:
            yield
        finally:
            with self._lock:
                self.n_waiting -= 1
            self._places.release()

    def fill(self, target: str) -> bool:
        """Load a model nobody has asked for yet, evicting nobody unless it is pinned. False: no room without that.

        raises   NoRoom when there would be none either way, whatever `prepare` raises, and Unavailable while closing
        """
        flight = self._flights.join(target, lambda: self._load(target, may_evict=self._is_pinned(target)))
        try:
            flight.result()
        except _Full:
            return False
        return True

    # -- loading, on a thread of the executor --------------------------------------------------------------------------

    def _load(self, target: str, *, may_evict: bool = True) -> _Entry:
        present = self._peek(target)
        if present is not None:  # loaded by an earlier flight, between the caller's look and this one's start
            return present
        entry = self._make(target, self._prepare(target), may_evict=may_evict)
        is_old = entry.check_at <= self._clock()  # it came from disk
        if is_old:
            entry.check_at = math.inf
        if not self._enter(entry, None):
            raise Unavailable("the endpoint is stopping")
        if is_old:
            self._on_old(target, entry.version)
        return entry

    def _make(self, target: str, prepared: Prepared, *, may_evict: bool = True) -> _Entry:
        """The model in memory, with its room booked; in the index only once it has been through `_enter`."""
        self._book(f"model {target}", prepared.n_bytes, may_evict=may_evict)
        start = self._clock()
        try:
            model = prepared.load()
        except BaseException:
            self._unbook(prepared.n_bytes)
            raise
        now = self._clock()
        entry = _Entry(target, prepared.version, model, prepared.n_bytes, now)
        entry.is_pinned = self._is_pinned(target)
        entry.check_at = now - prepared.checked_s_ago + self._max_age_s
        self._recorder.loaded(
            target,
            load_us=round((now - start) * 1e6) + prepared.examine_us,
            download_us=prepared.download_us,
            downloaded_bytes=prepared.downloaded_bytes,
        )
        return entry

    def _enter(self, entry: _Entry, old: _Entry | None) -> bool:
        """Put it into the index where `old` is, or nobody. False, and its memory free again: that is no longer so."""
        with self._lock:
            is_in = not self._is_closed and self._index.get(entry.target) is old
            is_old_idle = old is not None and not old.borrowers
            if is_in:
                if entry.is_pinned:
                    self._pinned += entry.n_bytes
                    self._room.notify_all()  # who waits for room may now wait in vain
                self._index[entry.target] = entry  # in the old one's place in the order: being checked is no use
                if old is not None:
                    entry.hits, entry.used_at = old.hits, old.used_at
                    self._leave(old)
        if not is_in:
            entry.is_leaving = True
            entry.model.close()
            self._unbook(entry.n_bytes)
            self._on_freed(entry.n_bytes)
        elif old is not None and is_old_idle:
            self._free_timed(old)
        return is_in

    def _peek(self, target: str) -> _Entry | None:
        with self._lock:
            return self._index.get(target)

    def _book(self, what: str, n_bytes: int, *, may_evict: bool) -> None:
        """Book n_bytes, evicting just enough. Raises NoRoom, at once when all that is not pinned would not do."""
        deadline = self._clock() + self._room_wait_s
        while True:
            if self._lent and self._booked - self._leaving + n_bytes > self.budget_bytes and self._give_up():
                continue
            with self._lock:
                if n_bytes > self.budget_bytes - self._pinned:
                    raise self._no_room(what, n_bytes)
                missing = self._booked + n_bytes - self.budget_bytes
                if missing <= 0:
                    self._booked += n_bytes
                    return
                if not may_evict:
                    raise _Full(what, n_bytes, self.budget_bytes)
                victims = self._choose_victims(missing - self._leaving)
                if not victims:
                    # What is missing is on its way out, or borrowed: whoever frees or releases it wakes this thread.
                    # Nobody does when a model has been here long enough.
                    patience_s = max(0.0, deadline - self._clock())
                    self._wanting_room += 1
                    woken = self._room.wait(min(patience_s, YOUNG_WAIT_S) if self._min_residence_s else patience_s)
                    self._wanting_room -= 1
                    if not woken and self._clock() >= deadline:
                        raise self._no_room(what, n_bytes)
            self._evict(victims)

    def _no_room(self, what: str, n_bytes: int) -> NoRoom:
        beside = f" beside {self._pinned} bytes of pinned models" if self._pinned else ""
        return NoRoom(what + beside, n_bytes, self.budget_bytes)

    def book(self, what: str, n_bytes: int) -> None:
        """Book memory that is no model's, evicting models for it. Raises NoRoom, as a load does.

        what   for messages: "no room for {what}"
        """
        self._book(what, n_bytes, may_evict=True)
        with self._lock:
            self._lent += n_bytes

    def unbook(self, n_bytes: int) -> None:
        """What was booked so is free again."""
        with self._lock:
            self._lent -= n_bytes
        self._unbook(n_bytes)
        self._on_freed(n_bytes)

    def _choose_victims(self, missing: int, *, is_urgent: bool = False) -> list[_Entry]:
        """Take the least recently used models that nobody has borrowed out of the index, until `missing` bytes are.

        is_urgent   also those that have not been here for the minimum residence
        """
        victims: list[_Entry] = []
        pinned: list[_Entry] = []
        stays_since = math.inf if is_urgent else self._clock() - self._min_residence_s
        for entry in self._index.values():
            if missing <= 0:
                break
            if entry.is_pinned:
                pinned.append(entry)
            elif not entry.borrowers and entry.loaded_at <= stays_since:
                victims.append(entry)
                missing -= entry.n_bytes
        for entry in victims:
            self._take_out(entry)
        for entry in pinned:  # so that the next walk need not pass them
            self._index.move_to_end(entry.target)
        return victims

    def _take_out(self, entry: _Entry) -> None:
        del self._index[entry.target]
        self._leave(entry)

    def _leave(self, entry: _Entry) -> None:
        entry.is_leaving = True
        self._pinned -= entry.n_bytes if entry.is_pinned else 0
        self._leaving += entry.n_bytes

    # -- leaving -------------------------------------------------------------------------------------------------------

    def _evict(self, victims: list[_Entry]) -> None:
        for entry in victims:
            start = self._clock()
            self._free([entry])
            now = self._clock()
            self._recorder.evicted(
                entry.target,
                unload_us=round((now - start) * 1e6),
                age_us=round((now - entry.loaded_at) * 1e6),
                n_bytes=entry.n_bytes,
            )

    def _free(self, entries: list[_Entry]) -> None:
        """Give back the memory of models that have left the index and that nobody holds."""
        for entry in entries:
            entry.model.close()
        n_bytes = sum(entry.n_bytes for entry in entries)
        with self._lock:
            self._leaving -= n_bytes
            self._booked -= n_bytes
            self._room.notify_all()
        self._on_freed(n_bytes)

    def _unbook(self, n_bytes: int) -> None:
        with self._lock:
            self._booked -= n_bytes
            self._room.notify_all()

    def _free_timed(self, entry: _Entry) -> None:
        start = self._clock()
        self._free([entry])
        self._recorder.time_us(MODEL_UNLOADING_TIME, round((self._clock() - start) * 1e6))

    def drop(self, target: str, version: str | None = None) -> bool:
        """Let a model go; its memory is free when this returns, or when its last borrower lets go. False: not here.

        version   only this one
        """
        with self._lock:
            entry = self._index.get(target)
            if entry is None or version not in (None, entry.version):
                return False
            self._take_out(entry)
            is_borrowed = entry.borrowers > 0
        if not is_borrowed:
            self._free_timed(entry)
        return True

    def resize(self, budget_bytes: int) -> int:
        """Let all models together take so much from now on, and evict what is over. Returns the bytes evicted."""
        is_over = self._booked - self._leaving > budget_bytes
        given_up = self._give_up() if is_over and self._lent else 0
        with self._lock:
            self.budget_bytes = budget_bytes
            victims = self._choose_victims(self._booked - self._leaving - budget_bytes, is_urgent=True)
            self._room.notify_all()
        self._evict(victims)
        return given_up + sum(entry.n_bytes for entry in victims)

    def close(self) -> None:
        """Let everything go and load nothing any more. Models still borrowed are freed by their last borrower."""
        with self._lock:
            self._is_closed = True
            idle = [entry for entry in self._index.values() if not entry.borrowers]
            for entry in list(self._index.values()):
                self._take_out(entry)
        self._free(idle)

    # -- growing old ---------------------------------------------------------------------------------------------------

    def aging(self, within_s: float = math.inf) -> list[tuple[str, str]]:
        """Target and version of each model that is due for a check within so long, most recently used first; none that is
        being checked."""
        with self._lock:
            until = self._clock() + within_s
            return [
                (entry.target, entry.version) for entry in reversed(self._index.values()) if entry.check_at <= until
            ]

    def begin_check(self, target: str, version: str) -> bool:
        """Whether this version is here and nobody checks it; the caller now does, and ends as he who is told by `on_old`."""
        with self._lock:
            entry = self._index.get(target)
            if entry is None or entry.version != version or entry.check_at == math.inf:
                return False
            entry.check_at = math.inf
            return True

    def confirm(self, versions: Mapping[str, str], s_ago: float) -> list[str]:
        """The store has shown these versions, s_ago seconds ago. Returns the targets whose models are of just these."""
        with self._lock:
            entries = [self._index[target] for target in versions.keys() & self._index.keys()]
            current = [entry for entry in entries if entry.version == versions[entry.target]]
            check_at = self._clock() - s_ago + self._max_age_s
            for entry in current:
                entry.check_at = max(entry.check_at, check_at)  # infinite where it is being checked just now
                entry.trouble = ""
            return [entry.target for entry in current]

    def room_bytes(self, target: str) -> int:
        """The most that this target's model could be given, were all that is not pinned evicted for it."""
        with self._lock:
            entry = self._index.get(target)
            own = entry.n_bytes if entry is not None and entry.is_pinned else 0
            return self.budget_bytes - self._pinned + own

    def keep(self, target: str, version: str, *, trouble: str = "", again_s: float = math.inf) -> None:
        """The model has been checked and stays; check it again after the usual age, or already after `again_s`."""
        with self._lock:
            entry = self._index.get(target)
            if entry is not None and entry.version == version:
                entry.trouble = trouble
                entry.check_at = self._clock() + min(self._max_age_s, again_s)

    def replace(self, target: str, version: str, prepared: Prepared) -> bool:
        """Load a newer model beside the one of `version`, then let it take its place between two requests.

        Whoever has borrowed the old one keeps it until he lets go; whoever borrows next gets the new one.
        returns  False when that version is not here any more, or when the budget could never hold both: then the old
                 one has left, and the next borrower loads the new one
        raises   NoRoom, and what loading raises; the old one stays
        """
        with self._lock:
            old = self._index.get(target)
            if old is None or old.version != version:
                return False
        most = self.room_bytes(target)
        if prepared.n_bytes <= most < old.n_bytes + prepared.n_bytes:
            self.drop(target, version)
            return False
        return self._enter(self._make(target, prepared), old)

    # -- telling -------------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._index)

    def __contains__(self, target: str) -> bool:
        return target in self._index

    @property
    def is_closed(self) -> bool:
        return self._is_closed

    @property
    def resident_bytes(self) -> int:
        """Bytes on the book: models in the index, being loaded, and on their way out."""
        return self._booked

    def residents(self) -> list[Resident]:
        """Every model in memory, least recently used first."""
        now = self._clock()
        with self._lock:
            return [
                Resident(
                    entry.target,
                    entry.version,
                    entry.n_bytes,
                    entry.hits,
                    now - entry.loaded_at,
                    now - entry.used_at,
                    entry.borrowers,
                    entry.trouble,
                    entry.is_pinned,
                )
                for entry in self._index.values()
            ]
