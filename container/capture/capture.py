"""Captures calls: an ordinary one is a line at once, and a thread of its own has the lines in the store some seconds later.

    a call answered -> take -> [sheet] ------------> a part of a file -> the store, as one object
                       or   -> [queue] -> its line ->

To write an ordinary call down takes half a microsecond (handler/telemetry/sheet.c); all others become lines on that thread.

Rule: a call never waits for its capture and never fails for it. There is a bound in bytes on what is under way, a half of it
for sheet and queue and a half for the files; what is over it, or what the store does not take, is dropped and counted.
"""

from __future__ import annotations

import logging
import random
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

from container.capture import layout
from container.capture.lines import line
from handler.compiled import sheet
from handler.errors import ArtifactError
from handler.messages import Exchange, Parts
from handler.patterns import Patterns
from handler.stores.writing import WritingStore
from handler.telemetry.recorder import CAPTURE_DROPPED, CAPTURED_CALLS, Recorder
from handler.throttle import Throttle

log = logging.getLogger("mme.capture")

# Between two looks. Waking a thread for each call would cost more than the call.
LOOK_S = 0.1
# Of a quarter of a second when both cores do nothing but answer. It is copied in one go, while no call is answered.
MAX_SHEET_BYTES = 4 << 20
FILE_BYTES = 8 << 20
# What a call takes besides its bodies, about: the objects here, the metadata in the line.
CALL_BYTES = 1_000
S = 10**9  # in nanoseconds
HOUR_S = 3600
HOUR_NS = HOUR_S * S
COMPLAIN_S = 60.0
REMEMBERED_TARGETS = 4_096


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is captured.

    share       of the answered calls, 0 to 1
    models      of these models; without patterns, of all
    has_errors  calls that were answered with 400 or above, too, each of them
    """

    share: float
    models: Patterns
    has_errors: bool


@dataclass(slots=True)
class _Part:
    """A file, not yet in the store."""

    key: str
    data: bytes
    n_calls: int


class Capture:
    """Owns its thread and the store, which is opened when there is something to write. `close` writes what is left.

    max_bytes    of all that is under way; less than some kilobytes have room for no call
    interval_s   a call is in the store after about so long
    has_room     whether the store may have more; asked before each file
    """

    def __init__(
        self,
        open_store: Callable[[], WritingStore],
        wanted: Wanted,
        recorder: Recorder,
        *,
        endpoint: str,
        variant: str,
        max_bytes: int,
        interval_s: float,
        has_room: Callable[[], bool] = lambda: True,
        clock_s: Callable[[], float] = time.time,
        counter_s: Callable[[], float] = time.perf_counter,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._open_store = open_store
        self._recorder = recorder
        self._endpoint, self._variant = endpoint, variant
        self._max_bytes = max_bytes
        self._file_bytes = min(FILE_BYTES, max_bytes // 4)
        self._interval_s = interval_s
        self._has_room = has_room
        self._clock_s, self._counter_s = clock_s, counter_s
        self._epoch_ns = 0  # what the counter's zero is on the clock
        self._draw = draw
        self._share, self._has_errors = wanted.share, wanted.has_errors
        self._takes_all = wanted.share >= 1.0 and not wanted.models
        self._is_wanted_model = lru_cache(maxsize=REMEMBERED_TARGETS)(wanted.models.match) if wanted.models else None
        self._sheet = None if sheet is None else sheet.Sheet(min(MAX_SHEET_BYTES, max(1, max_bytes // 4)))
        self._queue: deque[Exchange] = deque()
        self._lock = threading.Lock()  # guards the number alone
        self._queued_bytes = 0
        self._lines: list[bytes] = []  # below here all is the thread's; some hold the lines of many calls
        self._lines_bytes, self._n_lines = 0, 0
        self._began_ns = 0
        self._hour = 0  # of the lines
        self._sheet_hour = 0
        self._parts: deque[_Part] = deque()
        self._store: WritingStore | None = None
        self._complaints = Throttle(COMPLAIN_S)
        self._stop = threading.Event()
        self._turn_sheet()
        self._thread = threading.Thread(target=self._write_all, name="capture", daemon=True)
        self._thread.start()

    # -- on the thread of the call -------------------------------------------------------------------------------------

    def take(self, *parts: *Parts) -> None:
        """Hand a call over, if such calls are captured. Never waits, never raises."""
        if not self._takes_all and not self._is_wanted(parts[2]):
            return
        if self._sheet is None or not self._sheet.add(parts):
            self._queue_up(Exchange(*parts))

    def take_failed(self, call: Exchange) -> None:
        """The same of a call that was answered with an error."""
        if self._has_errors and (self._is_wanted_model is None or self._is_wanted_model(call.target or "")):
            self._queue_up(call)

    def _is_wanted(self, target: str | None) -> bool:
        return self._draw() < self._share and (self._is_wanted_model is None or self._is_wanted_model(target or ""))

    def _queue_up(self, call: Exchange) -> None:
        n_bytes = _size(call)
        with self._lock:
            has_room = self._queued_bytes + n_bytes <= self._max_bytes // 4
            if has_room:
                self._queued_bytes += n_bytes
        if has_room:
            self._queue.append(call)
        else:
            self._recorder.count(CAPTURE_DROPPED)

    # -- on the thread of its own --------------------------------------------------------------------------------------

    def close(self, deadline_s: float = 1.5) -> None:
        """Write what is there, for at most so long; what is left then is counted as dropped."""
        self._stop.set()
        self._thread.join(deadline_s)
        if self._thread.is_alive():
            in_files = self._n_lines + sum(part.n_calls for part in list(self._parts))
            on_sheet = 0 if self._sheet is None else self._sheet.turn(0, 0, 0)[1]
            self._recorder.count(CAPTURE_DROPPED, on_sheet + len(self._queue) + in_files)

    def _write_all(self) -> None:
        while not self._stop.wait(LOOK_S):
            self._look()
        self._look(is_last=True)
        while self._parts:
            self._drop_oldest()
        if self._store is not None:
            self._store.close()

    def _look(self, *, is_last: bool = False) -> None:
        try:
            self._turn_sheet()
            for call in _emptied(self._queue):
                with self._lock:
                    self._queued_bytes -= _size(call)
                self._write_down(call)
            if self._lines and (is_last or self._clock_s() * S - self._began_ns >= self._interval_s * S):
                self._end_part()
            self._put_parts()
        except Exception:  # whatever it is, the next look may fare better
            if self._complaints.is_due():
                log.exception("calls could not be captured")

    def _turn_sheet(self) -> None:
        """See what time it is. Take what has been written down, all of one hour, and have that of this hour written down."""
        now_s, counter_s = self._clock_s(), self._counter_s()
        before_ns, self._epoch_ns = self._epoch_ns, int((now_s - counter_s) * S)
        if self._sheet is None:
            return
        before, self._sheet_hour = self._sheet_hour, int(now_s) // HOUR_S
        from_ns = self._sheet_hour * HOUR_NS - self._epoch_ns
        text, n_calls, first_ns = self._sheet.turn(self._epoch_ns, from_ns, from_ns + HOUR_NS)
        if n_calls:
            self._add(text, n_calls, before_ns + first_ns, before)

    def _write_down(self, call: Exchange) -> None:
        at_ns = self._epoch_ns + call.marks[0]  # SageMaker's inferenceTime is when the call came in
        try:
            text = line(at_ns // S, call)
        except (ValueError, TypeError, OverflowError, OSError) as error:  # those behind it are written
            self._complain(repr(error))
            self._recorder.count(CAPTURE_DROPPED)
            return
        self._add(text, 1, at_ns, at_ns // HOUR_NS)

    def _add(self, text: bytes, n_calls: int, at_ns: int, hour: int) -> None:
        is_full = self._lines_bytes + len(text) > self._file_bytes
        if self._lines and (is_full or hour != self._hour):
            self._end_part()
        if not self._lines:
            self._began_ns, self._hour = at_ns, hour
        self._lines.append(text)
        self._lines_bytes += len(text)
        self._n_lines += n_calls
        if is_full:
            self._put_parts()

    def _end_part(self) -> None:
        where = layout.key(self._endpoint, self._variant, self._began_ns / S, str(uuid.uuid4()))
        self._parts.append(_Part(where, b"".join(self._lines), self._n_lines))
        self._lines, self._lines_bytes, self._n_lines = [], 0, 0
        # While the store is away the newest calls are kept, and room for the next file.
        max_bytes = self._max_bytes // 2 - self._file_bytes
        while len(self._parts) > 1 and sum(len(part.data) for part in self._parts) > max_bytes:
            self._drop_oldest()

    def _put_parts(self) -> None:
        while self._parts:
            part = self._parts[0]
            if not self._has_room():
                self._complain("there is no room left where they go")
                self._drop_oldest()
                continue
            try:
                self._opened().put(part.key, part.data)
            except ArtifactError as error:
                self._complain(str(error))
                return
            self._parts.popleft()
            self._recorder.count(CAPTURED_CALLS, part.n_calls)

    def _drop_oldest(self) -> None:
        self._recorder.count(CAPTURE_DROPPED, self._parts.popleft().n_calls)

    def _opened(self) -> WritingStore:
        if self._store is None:
            self._store = self._open_store()
        return self._store

    def _complain(self, why: str) -> None:
        if self._complaints.is_due():
            log.error("captured calls are not written: %s", why)


def _emptied(queue: deque[Exchange]) -> Iterator[Exchange]:
    """What is there now; what comes meanwhile is for the next look."""
    for _ in range(len(queue)):
        yield queue.popleft()


def _size(call: Exchange) -> int:
    return len(call.request.body) + len(call.answer.body) + CALL_BYTES
