"""Which models are in memory, in which order they leave, and how many bytes are booked. The policy; it knows no lock.

Rule: the caller holds the cache's lock. Nothing here waits, loads or frees.
"""

from __future__ import annotations

import math
from collections import OrderedDict

from handler.cache.entry import Entry


class Book:
    """Bytes of the memory that models share.

    budget    what all together may take
    booked    of models indexed, being loaded and on their way out, and what is lent
    leaving   of these, on their way out
    pinned    of models indexed that may not be evicted
    lent      booked, and no model's
    """

    __slots__ = ("booked", "budget", "leaving", "lent", "pinned")

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.booked = 0
        self.leaving = 0
        self.pinned = 0
        self.lent = 0

    @property
    def over(self) -> int:
        """Bytes over the budget once all that is on its way out is gone; negative when there is room."""
        return self.booked - self.leaving - self.budget


class Index(OrderedDict[str, Entry]):
    """Models by target, least recently used first."""

    def __init__(self, book: Book) -> None:
        super().__init__()
        self._book = book

    def enter(self, entry: Entry, old: Entry | None) -> None:
        """Put it last; or where `old` is, which leaves: that a model was renewed is no use of it."""
        if entry.is_pinned:
            self._book.pinned += entry.n_bytes
        self[entry.target] = entry
        if old is not None:
            entry.hits, entry.used_at = old.hits, old.used_at
            self._leave(old)

    def take_out(self, entry: Entry) -> None:
        del self[entry.target]
        self._leave(entry)

    def take_victims(self, missing: int, *, loaded_before: float = math.inf) -> list[Entry]:
        """Take out the least recently used models that nobody has borrowed, until `missing` bytes are.

        loaded_before   only those loaded before then
        """
        victims: list[Entry] = []
        pinned: list[Entry] = []
        for entry in self.values():
            if missing <= 0:
                break
            if entry.is_pinned:
                pinned.append(entry)
            elif not entry.borrowers and entry.loaded_at <= loaded_before:
                victims.append(entry)
                missing -= entry.n_bytes
        for entry in victims:
            self.take_out(entry)
        for entry in pinned:  # so that the next walk need not pass them
            self.move_to_end(entry.target)
        return victims

    def room_bytes(self, target: str) -> int:
        """The most that this target's model could be given, were all that is not pinned evicted for it."""
        entry = self.get(target)
        own = entry.n_bytes if entry is not None and entry.is_pinned else 0
        return self._book.budget - self._book.pinned + own

    def _leave(self, entry: Entry) -> None:
        entry.is_leaving = True
        self._book.pinned -= entry.n_bytes if entry.is_pinned else 0
        self._book.leaving += entry.n_bytes
