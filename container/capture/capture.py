"""Captures calls: an ordinary one is a line at once, and a thread of its own has the lines in the store some seconds later.

    a call answered -> take -> [page of the sheet] ----------------> the store, as one object
                       or   -> [queue] -> its line -> that page or ->

To write an ordinary call down takes a third of a microsecond (handler/telemetry/sheet.c); all others become lines on that
thread. A full page is a file as it is: nobody copies it, and a directory's disk takes it from where it lies.

Rule: a call never waits for its capture and never fails for it. There is a bound in bytes on what is under way, a half of it
for sheet and queue and a half for the files; what is over it, or what the store does not take, is dropped and counted.
"""

from __future__ import annotations

import logging
import mmap
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
FILE_BYTES = 8 << 20
# Of a file: what comes until the next look, and while another file is put, has room behind it. When both cores do nothing but
# answer, this is half a second.
PAGE_BYTES = 2 * FILE_BYTES
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
    """A file, not yet in the store. page: whose memory the data is."""

    key: str
    data: bytes | memoryview
    n_calls: int
    page: mmap.mmap | None = None


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
        self._file_bytes = min(FILE_BYTES, max_bytes // 8)
        self._page_bytes = max(1, min(PAGE_BYTES, max_bytes // 4))
        self._interval_s = interval_s
        self._has_room = has_room
        self._clock_s, self._counter_s = clock_s, counter_s
        self._epoch_ns = 0  # what the counter's zero is on the clock
        self._draw = draw
        self._share, self._has_errors = wanted.share, wanted.has_errors
        self._is_wanted_model = lru_cache(maxsize=REMEMBERED_TARGETS)(wanted.models.match) if wanted.models else None
        self._sheet = None if sheet is None else sheet.Sheet(self._queue_parts)
        self._write: Callable[..., None] = self._queue_parts if self._sheet is None else self._sheet.take
        # Hand a call over, if such calls are captured. Never waits, never raises. Where all are, it is one call of C.
        self.take = self._write if wanted.share >= 1.0 and not wanted.models else self._take_some
        self._queue: deque[Exchange] = deque()
        self._lock = threading.Lock()  # guards the number alone
        self._queued_bytes = 0
        self._lines: list[bytes] = []  # below here all is the thread's; what was not for the page
        self._lines_bytes = 0
        self._began_ns = 0
        self._hour = 0  # of the lines
        self._page, self._page_hour = _blank(self._page_bytes), 0
        self._spare: mmap.mmap | None = None  # a page that was full: its memory is there already
        self._parts: deque[_Part] = deque()
        self._store: WritingStore | None = None
        self._complaints = Throttle(COMPLAIN_S)
        self._stop = threading.Event()
        if self._sheet is not None:
            self._sheet.turn(self._page, 0, 0, 0)
        self._turn_page(int(self._clock_s() * S))
        self._thread = threading.Thread(target=self._write_all, name="capture", daemon=True)
        self._thread.start()

    # -- on the thread of the call -------------------------------------------------------------------------------------

    def _take_some(self, *parts: *Parts) -> None:
        if self._is_wanted(parts[2]):
            self._write(*parts)

    def take_failed(self, call: Exchange) -> None:
        """The same of a call that was answered with an error."""
        if self._has_errors and (self._is_wanted_model is None or self._is_wanted_model(call.target or "")):
            self._queue_up(call)

    def _is_wanted(self, target: str | None) -> bool:
        return self._draw() < self._share and (self._is_wanted_model is None or self._is_wanted_model(target or ""))

    def _queue_parts(self, *parts: *Parts) -> None:
        self._queue_up(Exchange(*parts))

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
            in_files = len(self._lines) + sum(part.n_calls for part in list(self._parts))
            on_page = 0 if self._sheet is None else self._sheet.turn(bytearray(), 0, 0, 0)[1]
            self._recorder.count(CAPTURE_DROPPED, on_page + len(self._queue) + in_files)

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
            for call in _emptied(self._queue):
                with self._lock:
                    self._queued_bytes -= _size(call)
                self._write_down(call)
            now_ns = int(self._clock_s() * S)
            self._turn_page(now_ns, is_last=is_last)
            if self._lines and (is_last or now_ns - self._began_ns >= self._interval_s * S):
                self._end_lines()
            self._put_parts()
        except Exception:  # whatever it is, the next look may fare better
            if self._complaints.is_due():
                log.exception("calls could not be captured")

    def _turn_page(self, now_ns: int, *, is_last: bool = False) -> None:
        """Of a page that is empty, see what time it is. One that makes a file, or is of another hour than this, or has waited
        for long enough, is a file; calls of this hour are written on another."""
        epoch_ns, hour = now_ns - int(self._counter_s() * S), now_ns // HOUR_NS
        times = epoch_ns, hour * HOUR_NS - epoch_ns, (hour + 1) * HOUR_NS - epoch_ns
        sheet = self._sheet
        if sheet is not None and not sheet.aim(*times):
            n_bytes, _, first_ns = sheet.filled()
            has_waited = now_ns - self._epoch_ns - first_ns >= self._interval_s * S
            if not (is_last or has_waited or n_bytes >= self._file_bytes or hour != self._page_hour):
                return
            before, self._page = self._page, self._spare or _blank(self._page_bytes)
            self._spare = None
            n_bytes, n_calls, first_ns = sheet.turn(self._page, *times)
            self._end_part(self._epoch_ns + first_ns, memoryview(before)[:n_bytes], n_calls, before)
        self._epoch_ns, self._page_hour = epoch_ns, hour

    def _write_down(self, call: Exchange) -> None:
        began_ns = call.marks[0]
        at_ns = self._epoch_ns + began_ns  # SageMaker's inferenceTime is when the call came in
        try:
            text = line(at_ns // S, call)
        except (ValueError, TypeError, OverflowError, OSError) as error:  # those behind it are written
            self._complain(repr(error))
            self._recorder.count(CAPTURE_DROPPED)
            return
        if self._sheet is None or not self._sheet.append(text, began_ns):
            self._add(text, at_ns)

    def _add(self, text: bytes, at_ns: int) -> None:
        is_full = self._lines_bytes + len(text) > self._file_bytes
        hour = at_ns // HOUR_NS
        if self._lines and (is_full or hour != self._hour):
            self._end_lines()
        if not self._lines:
            self._began_ns, self._hour = at_ns, hour
        self._lines.append(text)
        self._lines_bytes += len(text)
        if is_full:
            self._put_parts()

    def _end_lines(self) -> None:
        lines, self._lines, self._lines_bytes = self._lines, [], 0
        self._end_part(self._began_ns, b"".join(lines), len(lines))

    def _end_part(self, began_ns: int, data: bytes | memoryview, n_calls: int, page: mmap.mmap | None = None) -> None:
        where = layout.key(self._endpoint, self._variant, began_ns / S, str(uuid.uuid4()))
        self._parts.append(_Part(where, data, n_calls, page))
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
            if len(part.data) >= self._file_bytes and not self._parts:
                self._spare = part.page

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


def _blank(n_bytes: int) -> mmap.mmap:
    """Memory that begins where a page of it does, and takes none until it is written to."""
    return mmap.mmap(-1, n_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


def _size(call: Exchange) -> int:
    return len(call.request.body) + len(call.answer.body) + CALL_BYTES
