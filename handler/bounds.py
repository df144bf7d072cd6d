"""What a request may take, worked out before it is begun: time of a core, memory, and a place among the heavy ones.

A light request, which nearly all are, passes with two comparisons. A heavy one takes one of a few places, so that threads
are always left for light ones; of those that have a place as many work at a time as there are cores. What it will take in
memory is booked beside the models, together with what all others take. What could not be answered before its caller has
given up is refused at once, with the figure. While it works, it looks between blocks of rows whether anybody still waits.
What is neither small nor plain reads its body and writes its answer while it has a floor, of which heavy requests have their
own: they keep it for seconds.

Rule: nothing here waits but a heavy request for its turn, and it has a place while it does; and who reads or writes for
the floor, in a line that moves.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from handler.errors import CallerGone, TooMuchWork, Unavailable
from handler.floor import Floor
from handler.libxgboost import Floats, Kind
from handler.payload import media

# InvokeEndpoint ends after 60 s; the estimate may be wrong by half.
MOST_CORE_S = 30.0
# From here on a request is heavy: longer than its thread may be missing for others without being noticed.
HEAVY_S = 0.1
HEAVY_BYTES = 32 << 20
# From here on it is booked.
BOOKED_BYTES = 1 << 20
# Between two looks whether anybody waits.
BLOCK_S = 0.1
# What all requests together may take without being booked: it lies in what a budget for models leaves free.
UNBOOKED_BYTES = 64 << 20
# A heavy request waits for its turn so long, which leaves the rest of InvokeEndpoint's 60 s for its work.
TURN_S = 20.0

# Bytes in memory for a byte of body, while it is read and once it has been, at most (tests/handler/test_bounds.py measures).
READ_FACTORS: Mapping[str, int] = {
    media.CSV: 10,
    media.JSON: 24,
    media.JSONLINES: 24,
    media.LIBSVM: 24,
    media.RECORDIO: 8,
    media.NPY: 4,
}
# Of Parquet and Arrow: twelve bytes for a cell, of which a body has at most so many (handler/payload/arrow.py).
OTHER_READ_FACTOR = 120
# For a number of an answer: the float, its text of some ten characters, and the copies that put separators right.
BYTES_PER_NUMBER = 4 + 4 * 12
# The shortest text of a number and what parts it from the next.
LEAST_CHARACTERS = 2


class Room(Protocol):
    """Memory that models are evicted for; the cache."""

    def book(self, what: str, n_bytes: int) -> None:
        """Raises NoRoom."""

    def unbook(self, n_bytes: int) -> None: ...


@dataclass(frozen=True, slots=True)
class Blocks:
    """How a model works through many rows: so many at a time, and `look` before each, which raises when nobody waits."""

    n_rows: int
    look: Callable[[], None]

    def over(self, rows: Floats, predict: Callable[[Floats], Floats]) -> Floats:
        """As `predict` of all rows at once. Raises CallerGone besides."""
        scores: Floats | None = None
        for start in range(0, len(rows), self.n_rows):
            self.look()
            block = predict(rows[start : start + self.n_rows])
            if scores is None:
                scores = np.empty((len(rows), *block.shape[1:]), block.dtype)
            scores[start : start + len(block)] = block
        assert scores is not None  # a body holds a row at least
        return scores


def in_blocks(rows: Floats, predict: Callable[[Floats], Floats], blocks: Blocks | None) -> Floats:
    return predict(rows) if blocks is None or len(rows) <= blocks.n_rows else blocks.over(rows, predict)


class Bounds:
    """The bounds of one endpoint; safe to use from many threads.

    max_answer_bytes   no answer may be longer
    n_places           heavy requests at the same time, those that wait for their turn included
    n_turns            of these, at work
    room               where memory beyond UNBOOKED_BYTES is booked; None for nowhere
    floor, heavy_floor who has them reads a body or writes an answer
    """

    def __init__(
        self, *, max_answer_bytes: int, n_places: int, n_turns: int, room: Room | None = None, turn_s: float = TURN_S
    ) -> None:
        self.max_answer_bytes = max_answer_bytes
        self._room = room
        self._turn_s = turn_s
        self._n_places = n_places
        self._places = threading.BoundedSemaphore(n_places)
        self._turns = threading.BoundedSemaphore(n_turns)
        self.floor = Floor()
        self.heavy_floor = Floor()
        self._lock = threading.Lock()  # guards the two lines below; the room is asked outside of it
        self._n_bytes = 0
        self._n_booked = 0

    @property
    def n_bytes(self) -> int:
        """What requests under way take, by estimate; small ones not counted."""
        return self._n_bytes

    @contextmanager
    def visit(self, is_wanted: Callable[[], bool]) -> Iterator[Visit]:
        """For one request, from before its body is read until its answer is made."""
        visit = Visit(self, is_wanted)
        try:
            yield visit
        finally:
            visit.end()

    def take_turn(self) -> None:
        """Raises Unavailable: too many have a place already, or the wait for a turn was too long."""
        if not self._places.acquire(blocking=False):
            raise Unavailable(f"{self._n_places} heavy requests are being answered or wait; send it again", 2)
        if not self._turns.acquire(timeout=self._turn_s):
            self._places.release()
            raise Unavailable(f"others were at work for {self._turn_s:.0f} s; send it again", 5)

    def give_turn(self) -> None:
        self._turns.release()
        self._places.release()

    def take_bytes(self, n_bytes: int) -> None:
        """Raises NoRoom."""
        with self._lock:
            self._n_bytes += n_bytes
            missing = self._n_bytes - UNBOOKED_BYTES - self._n_booked
            if missing > 0:
                self._n_booked += missing
        if missing > 0 and self._room is not None:
            try:
                self._room.book("this request's rows and answer", missing)
            except BaseException:
                with self._lock:
                    self._n_bytes -= n_bytes
                    self._n_booked -= missing
                raise

    def give_bytes(self, n_bytes: int) -> None:
        with self._lock:
            self._n_bytes -= n_bytes
            spare = min(self._n_booked, self._n_booked - (self._n_bytes - UNBOOKED_BYTES))
            if spare > 0:
                self._n_booked -= spare
        if spare > 0 and self._room is not None:
            self._room.unbook(spare)


class Visit:
    """One request's way through its bounds. `end` gives everything back."""

    __slots__ = ("_bounds", "_has_turn", "_is_wanted", "_n_bytes")

    def __init__(self, bounds: Bounds, is_wanted: Callable[[], bool]) -> None:
        self._bounds = bounds
        self._is_wanted = is_wanted
        self._has_turn = False
        self._n_bytes = 0

    def reads(self, n_body_bytes: int, content_type: str) -> None:
        """Before a body is read. Raises NoRoom, Unavailable."""
        self._take(
            0.0, n_body_bytes * READ_FACTORS.get(content_type.partition(";")[0].strip().lower(), OTHER_READ_FACTOR)
        )

    def allow_answer(self, n_rows: int, n_numbers: int, what: str) -> None:
        """Raises TooMuchWork when the shortest text that an answer of so many numbers a row can have is too long."""
        most = self._bounds.max_answer_bytes
        n_answer_bytes = n_rows * n_numbers * LEAST_CHARACTERS
        if n_answer_bytes > most:
            rows = most // (n_numbers * LEAST_CHARACTERS)
            raise TooMuchWork(
                f"{n_rows} rows of {what} are {n_rows * n_numbers} numbers, whose text has more than {most} bytes; "
                f"send at most {rows} rows"
            )

    def answers(self, n_rows: int, n_numbers: int, n_row_bytes: int, row_s: float, what: str) -> Blocks | None:
        """Before rows are scored: how to go through them, None for all at once.

        n_numbers     of the answer to one row
        n_row_bytes   that the rows take
        row_s         of a core, for one
        raises        TooMuchWork, NoRoom, Unavailable, CallerGone
        """
        self.allow_answer(n_rows, n_numbers, what)
        core_s = n_rows * row_s
        if core_s > MOST_CORE_S:
            raise TooMuchWork(
                f"{n_rows} rows of {what} would take this model about {core_s:.0f} s; "
                f"send at most {max(1, int(MOST_CORE_S / row_s))} rows"
            )
        self._take(core_s, n_row_bytes + n_rows * n_numbers * BYTES_PER_NUMBER)
        if core_s < HEAVY_S:
            return None
        return Blocks(max(1, int(BLOCK_S / row_s)), self.look)

    @property
    def floor(self) -> Floor:
        """To be had while its body is read, and while its answer is written."""
        return self._bounds.heavy_floor if self._has_turn else self._bounds.floor

    def look(self) -> None:
        """Raises CallerGone when nobody waits for the answer any more."""
        if not self._is_wanted():
            raise CallerGone

    def _take(self, core_s: float, n_bytes: int) -> None:
        """What it takes from now on, in the place of what was said before."""
        if (core_s >= HEAVY_S or n_bytes >= HEAVY_BYTES) and not self._has_turn:
            self._bounds.take_turn()
            self._has_turn = True
            self.look()  # it may have waited for long
        if n_bytes > self._n_bytes and n_bytes >= BOOKED_BYTES:
            self._bounds.take_bytes(n_bytes - self._n_bytes)
            self._n_bytes = n_bytes

    def end(self) -> None:
        if self._n_bytes:
            self._bounds.give_bytes(self._n_bytes)
            self._n_bytes = 0
        if self._has_turn:
            self._bounds.give_turn()
            self._has_turn = False


@dataclass(frozen=True, slots=True)
class TreeCost:
    """What trees take for a row, from their shape. Measured on one core of this project's machine, forests of 20 to 200
    trees and depth 3 to 12: each constant is above all that was seen.

    leaf_work   the sum over leaves of (depth + 1) squared, which the time for SHAP values grows with
    """

    n_trees: int
    depth: int
    leaf_work: int
    n_features: int

    def row_s(self, kind: Kind) -> float:
        steps = self.n_trees * (self.depth + 1)
        match kind:
            case Kind.CONTRIBS:
                return 4e-9 * self.leaf_work
            case Kind.INTERACTIONS:
                return 4e-9 * self.leaf_work * (2 * self.n_features + 1)
            case Kind.APPROX_CONTRIBS | Kind.LEAF:
                return 15e-9 * steps
            case _:
                return 4e-9 * steps
