"""What the front end tells besides requests: that a caller has gone, and that it refused a request itself.

Rule: a note is a help. Lost, a request whose caller has gone is worked out to its end, and a refusal is not counted.
"""

from __future__ import annotations

import logging
from collections import Counter

from container.link.lane import GONE, Note
from handler.bounded_table import BoundedTable
from handler.dispatch import Journal
from handler.telemetry.recorder import FRONT_END_REFUSALS, Invocation, Recorder
from handler.throttle import Throttle

log = logging.getLogger(__name__)

MAX_GONE = 10_000  # callers that went a moment ago; of most the request has ended since
SAY_S = 10.0


class Notes:
    """Takes notes on the runtime's main thread; any thread may ask `has_gone`."""

    def __init__(self, recorder: Recorder, journal: Journal | None) -> None:
        self._recorder = recorder
        self._journal = journal
        self._gone: BoundedTable[str, None] = BoundedTable(MAX_GONE)
        self._said = Throttle(SAY_S)
        self._unsaid: Counter[int] = Counter()

    def take(self, note: Note) -> None:
        if note.what == GONE:
            self._gone.put(str(note.value), None)
            return
        self._recorder.count(FRONT_END_REFUSALS)
        if self._journal is not None and self._journal.wants(note.value):
            self._journal.write(Invocation("", None, note.value, None, 0, error="refused by the front end"))
        self._unsaid[note.value] += 1
        if self._said.is_due():
            told = ", ".join(f"{n} with {status}" for status, n in sorted(self._unsaid.items()))
            log.info("the front end refused requests itself: %s", told)
            self._unsaid.clear()

    def has_gone(self, number: str) -> bool:
        """Whether the caller of the call of that number waits no longer."""
        return number in self._gone
