"""One JSON line per request that is worth one, and the same facts as a response header.

Rule: a request never waits for the log. Its record goes into a bounded queue; one writer thread, owned by the log,
makes lines of it, each written whole with one write(). When the queue is full the record is dropped and counted.
"""

from __future__ import annotations

import logging
import os
import random
import re
import select
import threading
import time
from collections.abc import Callable, Iterable
from queue import Empty, SimpleQueue

import orjson

from handler.telemetry.recorder import LOG_LINES_DROPPED, Invocation, Recorder

log = logging.getLogger(__name__)

MAX_QUEUED = 10_000
MAX_LINE_BYTES = select.PIPE_BUF  # a write of up to this many bytes to a shared pipe is not interleaved with others
# How much of a target, an id or an error is kept: all that is legal, or less when escapes make the line too long.
TEXT_CHARS = (1_024, 256, 64)
FIRST_ERROR_STATUS = 400


class AccessLog:
    """Writes records to `fd`, which it does not own.

    sample   share of successful requests that are written, 0 to 1; errors are always written
    """

    def __init__(
        self,
        fd: int,
        *,
        recorder: Recorder,
        sample: float = 0.0,
        clock_s: Callable[[], float] = time.time,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._fd = fd
        self._recorder = recorder
        self._sample = sample
        self._clock_s = clock_s
        self._draw = draw
        self._queue: SimpleQueue[tuple[float, Invocation] | None] = SimpleQueue()
        self._writer = threading.Thread(target=self._write_all, name="access-log", daemon=True)
        self._writer.start()

    def wants(self, status: int) -> bool:
        """Whether a request that ended with `status` is to be written; asked before the record is made."""
        return status >= FIRST_ERROR_STATUS or (self._sample > 0 and self._draw() < self._sample)

    def write(self, record: Invocation) -> None:
        """Queue one record. Never waits, never raises."""
        if self._queue.qsize() >= MAX_QUEUED:
            self._recorder.count(LOG_LINES_DROPPED)
            return
        self._queue.put((self._clock_s(), record))

    def close(self, deadline_s: float = 2.0) -> None:
        """Write what is queued, for at most `deadline_s`; what is left then is counted as dropped.

        To be called before the collector is closed, so that the count is still reported.
        """
        self._queue.put(None)
        self._writer.join(deadline_s)
        left = 0
        while True:
            try:
                left += self._queue.get_nowait() is not None
            except Empty:
                break
        self._queue.put(None)  # the writer may still be in a write; whenever it returns, this is the end
        if left:
            self._recorder.count(LOG_LINES_DROPPED, left)

    def _write_all(self) -> None:
        while (entry := self._queue.get()) is not None:
            line = access_line(*entry)
            try:
                is_whole = os.write(self._fd, line) == len(line)
            except OSError as error:  # the log may be writable again for the next line
                log.debug("access log line lost: %s", error)
                is_whole = False
            if not is_whole:
                self._recorder.count(LOG_LINES_DROPPED)


def access_line(at_s: float, record: Invocation) -> bytes:
    """One JSON object and a newline: when, which request, which target, cold or warm, where the time went, status."""
    for max_chars in TEXT_CHARS:
        line = _line(at_s, record, max_chars)
        if len(line) <= MAX_LINE_BYTES:
            break
    return line


def server_timing(stages_us: Iterable[tuple[str, int]]) -> str:
    """The stages as a Server-Timing header value, in milliseconds: `decode;dur=0.041, predict;dur=0.063`.

    source  W3C Server Timing; a metric's name is an HTTP token, so other characters become "-"
    """
    return ", ".join(f"{_NOT_TOKEN.sub('-', name)};dur={us / 1000:g}" for name, us in stages_us)


_CACHE = {True: "warm", False: "cold", None: "none"}
_NOT_TOKEN = re.compile(r"[^A-Za-z0-9!#$%&'*+.^_`|~-]")


def _line(at_s: float, record: Invocation, max_chars: int) -> bytes:
    facts: dict[str, object] = {
        "at": round(at_s, 3),
        "request_id": _text(record.request_id, max_chars),
        "target": _text(record.target, max_chars),
        "status": record.status,
        "cache": _CACHE[record.is_hit],
        "total_ms": record.total_us / 1000,
        "stages_ms": {name: us / 1000 for name, us in record.stages_us},
    }
    if record.error is not None:
        facts["error"] = _text(record.error, max_chars)
    return orjson.dumps(facts, option=orjson.OPT_APPEND_NEWLINE)


def _text(text: str | None, max_chars: int) -> str | None:
    """`text` cut to length, and with half surrogate pairs, which no JSON may hold, spelled out."""
    return None if text is None else text[:max_chars].encode("utf-8", "backslashreplace").decode()
