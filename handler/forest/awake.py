"""Native boosters of packed forests, for what the walker does not do: SHAP values, interactions, leaves.

Rule: all of them together take no more than `max_bytes`, which is on nobody's book; who finds no room waits for it.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from handler.forest.packed import booster_bytes, document_of
from handler.libxgboost import Booster
from handler.predictor import HandlePool

# A forest whose booster takes more than this stays a booster; see examiner.py.
AWAKE_BYTES = 32 << 20


@dataclass(slots=True)
class _Idle:
    """A booster nobody uses. The forest is held so that its address stays its own."""

    forest: bytes
    booster: Booster
    n_bytes: int


class Awake:
    """Lends boosters of forests, each to one borrower at a time, and keeps those used last.

    reopen   gives a forest's document, as libxgboost wrote it in quarantine
    """

    def __init__(
        self,
        pool: HandlePool,
        reopen: Callable[[bytes], bytes] = document_of,
        *,
        max_bytes: int = AWAKE_BYTES,
    ) -> None:
        self.pool = pool
        self._reopen = reopen
        self._max_bytes = max_bytes
        self._changed = threading.Condition()  # guards what follows
        self._idle: OrderedDict[int, _Idle] = OrderedDict()
        self._n_bytes = 0  # idle and lent

    @contextmanager
    def booster(self, forest: bytes) -> Iterator[Booster]:
        """The booster of a forest that takes at most max_bytes, the caller's alone. Raises what `reopen` raises."""
        n_bytes = booster_bytes(forest)
        idle, victims = self._take(forest, n_bytes)
        try:
            for victim in victims:
                self.pool.rest(victim.booster)
            booster = idle.booster if idle else self.pool.load(self._reopen(forest))
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
            self.pool.rest(idle.booster)
            self._give_back(idle.n_bytes)

    @property
    def n_bytes(self) -> int:
        return self._n_bytes

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
        self.pool.rest(idle.booster)  # another borrower of the same forest was faster
        self._give_back(idle.n_bytes)

    def _give_back(self, n_bytes: int) -> None:
        with self._changed:
            self._n_bytes -= n_bytes
            self._changed.notify_all()
