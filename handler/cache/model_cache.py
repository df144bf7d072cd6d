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
from collections.abc import Callable
from concurrent.futures import CancelledError, Executor
from concurrent.futures import TimeoutError as FutureTimeout
from types import TracebackType

from handler.cache.ages import Ages
from handler.cache.entry import Entry, Prepared, Resident
from handler.cache.eviction import Book, Index
from handler.cache.singleflight import Flights, Here, copy_of
from handler.cache.waiting import Waiting
from handler.errors import ModelNotReady, NoRoom, ServingError, Unavailable
from handler.telemetry.recorder import LOADS_NOT_BEGUN, MODEL_UNLOADING_TIME, SINGLE_FLIGHT_WAITERS, Recorder

# How long a load waits for borrowers to let go of memory it was promised, before it says that there is no room.
ROOM_WAIT_S = 5.0
MAX_LINE = 1_000_000  # hosted, the platform decides what is loaded
# How often a load that found only models of too short a residence looks again.
YOUNG_WAIT_S = 0.05


class _Full(NoRoom):
    """No room without evicting somebody, which a fill may not. A caller that came along for a load tries again by itself."""


class Borrowed:
    """A model in use: `with cache.borrow(target) as borrowed`.

    is_hit    it was in memory when asked for
    wait_us   microseconds spent waiting for its load; 0 for a hit
    """

    __slots__ = ("_cache", "_entry", "is_hit", "model", "wait_us")

    def __init__(self, cache: ModelCache, entry: Entry, is_hit: bool, wait_us: int) -> None:
        self._cache = cache
        self._entry = entry
        self.model = entry.model
        self.is_hit = is_hit
        self.wait_us = wait_us

    @property
    def version(self) -> str:
        """Of the artifact."""
        return self._entry.version

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
    max_line       loads under way and in line, from which on a caller who is turned away begins none
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
        max_line: int = MAX_LINE,
        recorder: Recorder,
        refused: Callable[[str], ServingError | None] = lambda _: None,
        on_freed: Callable[[int], None] = lambda _: None,
        give_up: Callable[[], int] = lambda: 0,
        room_wait_s: float = ROOM_WAIT_S,
        is_pinned: Callable[[str], bool] = lambda _: False,
        min_residence_s: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._prepare = prepare
        self._flights: Flights[str, Entry] = Flights(executor)
        self.n_hits = 0  # calls that found their model here; guarded by the lock
        self.waiting = Waiting(max_waiting)
        self._max_line = max_line
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
        self._book = Book(budget_bytes)
        self._index = Index(self._book)
        self.ages = Ages(self._lock, self._index, clock)
        self._wanting_room = 0  # loads that wait for bytes to be released
        self._is_closed = False

    # -- borrowing -----------------------------------------------------------------------------------------------------

    def is_refused(self, target: str) -> bool:
        """Whether `borrow` would raise at once, because it is known that there is no model to be had. Takes no time."""
        return self._refused(target) is not None

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
        with self.waiting.place(target, wait_s, lambda: self._begin(target)):
            while True:
                if target in self._flights:
                    self._recorder.count(SINGLE_FLIGHT_WAITERS)
                flight = self._flights.join(target, lambda: self._load(target))
                waited_s = self._clock() - start
                try:
                    loaded = flight.result(timeout=max(0.0, wait_s - waited_s))
                except FutureTimeout:
                    self.waiting.learn(self._clock() - start)
                    raise ModelNotReady(target, self._clock() - start) from None
                except CancelledError:
                    raise Unavailable("the endpoint is stopping") from None
                except _Full:
                    continue
                # Under thrash it may be gone again by now; then the next round loads it anew.
                if self._take_loaded(loaded):
                    self.waiting.learn(self._clock() - start)
                    return Borrowed(self, loaded, False, max(1, round((self._clock() - start) * 1e6)))

    def _begin(self, target: str) -> None:
        """Of a caller for whom there is no place the load begins all the same, if the line of loads is short: callers can
        invent names faster than any store says that they are not there."""
        if target in self._flights or len(self._flights) < self._max_line:
            self._flights.join(target, lambda: self._load(target))
        else:
            self._recorder.count(LOADS_NOT_BEGUN)

    def borrow_present(self, target: str) -> Borrowed | None:
        """The target's model if it is in memory, without waiting for anything; None when it is not."""
        entry = self._take(target)
        return None if entry is None else Borrowed(self, entry, True, 0)

    def _take(self, target: str) -> Entry | None:
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
        self.ages.on_old(target, entry.version)
        return entry

    def _take_loaded(self, entry: Entry) -> bool:
        with self._lock:
            if entry.is_leaving:
                return False
            entry.borrowers += 1
            entry.used_at = self._clock()
            self._index.move_to_end(entry.target)
            return True

    def _release(self, entry: Entry) -> None:
        with self._lock:
            entry.borrowers -= 1
            if entry.borrowers:
                return
            if not entry.is_leaving:
                if self._wanting_room:
                    self._room.notify_all()
                return
        self._free([entry])

    def fill(self, target: str) -> bool:
        """Load a model nobody has asked for yet, evicting nobody unless it is pinned; on this thread, which has nothing
        else to do. False: no room without that.

        raises   NoRoom when there would be none either way, whatever `prepare` raises, and Unavailable while closing
        """
        flight = self._flights.join(target, lambda: self._load(target, may_evict=self._is_pinned(target)), Here())
        try:
            flight.result()
        except _Full:
            return False
        return True

    # -- loading, on a thread of the executor or one that fills in -----------------------------------------------------

    def _load(self, target: str, *, may_evict: bool = True) -> Entry:
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
            self.ages.on_old(target, entry.version)
        return entry

    def _make(self, target: str, prepared: Prepared, *, may_evict: bool = True) -> Entry:
        """The model in memory, with its room booked; in the index only once it has been through `_enter`."""
        self._take_room(f"model {target}", prepared.n_bytes, may_evict=may_evict)
        start = self._clock()
        try:
            model = prepared.load()
        except BaseException:
            self._unbook(prepared.n_bytes)
            raise
        now = self._clock()
        entry = Entry(target, prepared.version, model, prepared.n_bytes, now)
        entry.is_pinned = self._is_pinned(target)
        self.ages.begin(entry, prepared.checked_s_ago)
        self._recorder.loaded(
            target,
            load_us=round((now - start) * 1e6) + prepared.examine_us,
            download_us=prepared.download_us,
            downloaded_bytes=prepared.downloaded_bytes,
        )
        return entry

    def _enter(self, entry: Entry, old: Entry | None) -> bool:
        """Put it into the index where `old` is, or nobody. False, and its memory free again: that is no longer so."""
        with self._lock:
            is_in = not self._is_closed and self._index.get(entry.target) is old
            is_old_idle = old is not None and not old.borrowers
            if is_in:
                self._index.enter(entry, old)
                if entry.is_pinned:
                    self._room.notify_all()  # a load that waits for room may now wait in vain
        if not is_in:
            entry.is_leaving = True
            entry.model.close()
            self._unbook(entry.n_bytes)
            self._on_freed(entry.n_bytes)
        elif old is not None and is_old_idle:
            self._free_timed(old)
        return is_in

    def _peek(self, target: str) -> Entry | None:
        with self._lock:
            return self._index.get(target)

    def _take_room(self, what: str, n_bytes: int, *, may_evict: bool) -> None:
        """Book n_bytes, evicting just enough. Raises NoRoom, at once when all that is not pinned would not do."""
        deadline = self._clock() + self._room_wait_s
        book = self._book
        while True:
            if book.lent and book.over + n_bytes > 0 and self._give_up():
                continue
            with self._lock:
                if n_bytes > book.budget - book.pinned:
                    raise self._no_room(what, n_bytes)
                if book.booked + n_bytes <= book.budget:
                    book.booked += n_bytes
                    return
                if not may_evict:
                    raise _Full(what, n_bytes, book.budget)
                stays_since = self._clock() - self._min_residence_s
                victims = self._index.take_victims(book.over + n_bytes, loaded_before=stays_since)
                if not victims and not self._wait_for_room(deadline):
                    raise self._no_room(what, n_bytes)
            self._evict(victims)

    def _wait_for_room(self, deadline: float) -> bool:
        """Wait, with the lock held, which is let go meanwhile. False: nothing was freed until the deadline.

        What is missing is on its way out, or borrowed: the thread that frees or releases it wakes this one. Nobody does
        when a model has been here for its minimum residence.
        """
        patience_s = max(0.0, deadline - self._clock())
        self._wanting_room += 1
        woken = self._room.wait(min(patience_s, YOUNG_WAIT_S) if self._min_residence_s else patience_s)
        self._wanting_room -= 1
        return woken or self._clock() < deadline

    def _no_room(self, what: str, n_bytes: int) -> NoRoom:
        pinned = self._book.pinned
        beside = f" beside {pinned} bytes of pinned models" if pinned else ""
        return NoRoom(what + beside, n_bytes, self._book.budget)

    def book(self, what: str, n_bytes: int) -> None:
        """Book memory that is no model's, evicting models for it. Raises NoRoom, as a load does.

        what   for messages: "no room for {what}"
        """
        self._take_room(what, n_bytes, may_evict=True)
        with self._lock:
            self._book.lent += n_bytes

    def unbook(self, n_bytes: int) -> None:
        """What was booked so is free again."""
        with self._lock:
            self._book.lent -= n_bytes
        self._unbook(n_bytes)
        self._on_freed(n_bytes)

    # -- leaving -------------------------------------------------------------------------------------------------------

    def _evict(self, victims: list[Entry]) -> None:
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

    def _free(self, entries: list[Entry]) -> None:
        """Give back the memory of models that have left the index and that nobody holds."""
        for entry in entries:
            entry.model.close()
        n_bytes = sum(entry.n_bytes for entry in entries)
        with self._lock:
            self._book.leaving -= n_bytes
            self._book.booked -= n_bytes
            self._room.notify_all()
        self._on_freed(n_bytes)

    def _unbook(self, n_bytes: int) -> None:
        with self._lock:
            self._book.booked -= n_bytes
            self._room.notify_all()

    def _free_timed(self, entry: Entry) -> None:
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
            self._index.take_out(entry)
            is_borrowed = entry.borrowers > 0
        if not is_borrowed:
            self._free_timed(entry)
        return True

    def resize(self, budget_bytes: int) -> int:
        """Let all models together take so much from now on, and evict what is over. Returns the bytes evicted."""
        book = self._book
        is_over = book.booked - book.leaving > budget_bytes
        given_up = self._give_up() if is_over and book.lent else 0
        with self._lock:
            book.budget = budget_bytes
            victims = self._index.take_victims(book.over)
            self._room.notify_all()
        self._evict(victims)
        return given_up + sum(entry.n_bytes for entry in victims)

    def close(self) -> None:
        """Let everything go and load nothing any more. Models still borrowed are freed by their last borrower."""
        with self._lock:
            self._is_closed = True
            idle = [entry for entry in self._index.values() if not entry.borrowers]
            for entry in list(self._index.values()):
                self._index.take_out(entry)
        self._free(idle)

    def replace(self, target: str, version: str, prepared: Prepared, *, may_leave: bool = True) -> bool:
        """Load a newer model beside the one of `version`, then let it take its place between two requests.

        A request that has borrowed the old one keeps it until it lets go; the next one borrows the new one.
        returns  False when that version is not here any more, or when the budget could never hold both and the old one
                 may leave: then it has, and the next borrower loads the new one
        raises   NoRoom, and what loading raises; the old one stays
        """
        with self._lock:
            old = self._index.get(target)
            if old is None or old.version != version:
                return False
        most = self.room_bytes(target)
        if may_leave and prepared.n_bytes <= most < old.n_bytes + prepared.n_bytes:
            self.drop(target, version)
            return False
        return self._enter(self._make(target, prepared), old)

    # -- telling -------------------------------------------------------------------------------------------------------

    @property
    def budget_bytes(self) -> int:
        return self._book.budget

    def room_bytes(self, target: str) -> int:
        """The most that this target's model could be given, were all that is not pinned evicted for it."""
        with self._lock:
            return self._index.room_bytes(target)

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
        return self._book.booked

    def residents(self) -> list[Resident]:
        """Every model in memory, least recently used first."""
        now = self._clock()
        with self._lock:
            return [entry.told(now) for entry in self._index.values()]
