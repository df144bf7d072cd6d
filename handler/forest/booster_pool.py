"""Native boosters of packed forests, for what the walker does not do: SHAP values, interactions, leaves.

Rule: all small ones together take no more than `max_bytes`, which is on nobody's book; a request that finds no room waits.
One that would take more is booked beside the models, and only one of these is open at a time.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from handler.forest.packed import booster_bytes, document_of
from handler.libxgboost import Booster
from handler.predictor import HandlePool

POOLED_BYTES = 32 << 20


class Room(Protocol):
    """Memory that models are evicted for; the cache."""

    def book(self, what: str, n_bytes: int) -> None:
        """Raises NoRoom."""

    def unbook(self, n_bytes: int) -> None: ...


class _Unbounded:
    def book(self, what: str, n_bytes: int) -> None:
        pass

    def unbook(self, n_bytes: int) -> None:
        pass


@dataclass(slots=True)
class _Idle:
    """A booster nobody uses. The forest is held so that its address stays its own."""

    forest: bytes
    booster: Booster
    n_bytes: int


class BoosterPool:
    """Lends boosters of forests, each to one borrower at a time, and keeps those used last.

    reopen     gives a forest's document, as libxgboost wrote it in quarantine
    max_bytes  what the small ones take together; a booster that takes more is a large one
    room       where large ones are booked; set when it is there
    """

    def __init__(
        self,
        pool: HandlePool,
        reopen: Callable[[bytes], bytes] = document_of,
        *,
        max_bytes: int = POOLED_BYTES,
    ) -> None:
        self.handles = pool
        self._reopen = reopen
        self._max_bytes = max_bytes
        self._changed = threading.Condition()  # guards what follows
        self._idle: OrderedDict[int, _Idle] = OrderedDict()
        self._n_bytes = 0  # idle and lent
        self.room: Room = _Unbounded()
        self._large: _Idle | None = None  # guarded by the lock below, which is held while it is lent
        self._large_lock = threading.Lock()

    @contextmanager
    def booster(self, forest: bytes) -> Iterator[Booster]:
        """The booster of a forest, the caller's alone. Raises what `reopen` raises, and NoRoom for a large one."""
        n_bytes = booster_bytes(forest)
        if n_bytes > self._max_bytes:
            with self._large_lock:
                yield self._wake_large(forest, n_bytes)
            return
        idle, victims = self._take(forest, n_bytes)
        try:
            for victim in victims:
                self.handles.rest(victim.booster)
            booster = idle.booster if idle else self.handles.load(self._reopen(forest))
        except BaseException:
            self._give_back(n_bytes)
            raise
        try:
            yield booster
        finally:
            self._put(_Idle(forest, booster, n_bytes))

    def forget(self, forest: bytes) -> None:
        """Let go of what is kept for a forest that is going; nobody may be borrowing it."""
        with self._changed:
            idle = self._idle.pop(id(forest), None)
        if idle is not None:
            self.handles.rest(idle.booster)
            self._give_back(idle.n_bytes)
        large = self._large
        if large is not None and large.forest is forest:
            self.give_up()  # if somebody else holds the lock, it goes now without us

    def give_up(self) -> int:
        """Let go of the large booster unless somebody uses it. Waits for nobody; returns the bytes that are free again."""
        if not self._large_lock.acquire(blocking=False):
            return 0
        try:
            return self._put_large_to_rest()
        finally:
            self._large_lock.release()

    @property
    def n_bytes(self) -> int:
        """What the small ones take."""
        return self._n_bytes

    def _wake_large(self, forest: bytes, n_bytes: int) -> Booster:
        """Under its lock."""
        if self._large is not None and self._large.forest is forest:
            return self._large.booster
        self._put_large_to_rest()
        self.room.book("XGBoost's own copy of the model, which answers all but scores", n_bytes)
        try:
            booster = self.handles.load(self._reopen(forest))
        except BaseException:
            self.room.unbook(n_bytes)
            raise
        self._large = _Idle(forest, booster, n_bytes)
        return booster

    def _put_large_to_rest(self) -> int:
        """Under its lock."""
        large, self._large = self._large, None
        if large is None:
            return 0
        self.handles.rest(large.booster)
        self.room.unbook(large.n_bytes)
        return large.n_bytes

    def _take(self, forest: bytes, n_bytes: int) -> tuple[_Idle | None, list[_Idle]]:
        """What is kept for it, or room for it and those who had to make room."""
        victims: list[_Idle] = []
        with self._changed:
            while True:
                idle = self._idle.pop(id(forest), None)
                if idle is not None:
                    return idle, victims
                while self._n_bytes + n_bytes > self._max_bytes and self._idle:
                    victim = self._idle.popitem(last=False)[1]
                    self._n_bytes -= victim.n_bytes
                    victims.append(victim)
                if self._n_bytes + n_bytes <= self._max_bytes:
                    self._n_bytes += n_bytes
                    return None, victims
                self._changed.wait()

    def _put(self, idle: _Idle) -> None:
        with self._changed:
            if id(idle.forest) not in self._idle:
                self._idle[id(idle.forest)] = idle
                self._changed.notify_all()
                return
        self.handles.rest(idle.booster)  # another borrower of the same forest was faster
        self._give_back(idle.n_bytes)

    def _give_back(self, n_bytes: int) -> None:
        with self._changed:
            self._n_bytes -= n_bytes
            self._changed.notify_all()
