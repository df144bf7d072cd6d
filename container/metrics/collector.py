"""The one thread that reads the recorder for everything that pushes: the history, and every sink.

Rule: the maker of a Collector starts and closes it, and closing it closes its sinks: a last report, then each sink's
own flush, all within one deadline. A sink that fails or hangs costs its own reports and nothing else.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from typing import Protocol

from container.metrics.history import POINT_S, History, Point
from handler.telemetry.recorder import LiveRecorder, Totals

log = logging.getLogger(__name__)

INTERVAL_S = 60.0  # CloudWatch keeps one minute at best for metrics of standard resolution


class Sink(Protocol):
    """Takes reports; what it was given once it owns, to deliver, keep or drop and count."""

    def report(self, now: Totals, before: Totals) -> None: ...
    def close(self, deadline_s: float) -> None: ...


class Collector:
    """Adds a point to the history every `point_s` and reports to the sinks every `interval_s`."""

    def __init__(
        self,
        recorder: LiveRecorder,
        history: History,
        sinks: Sequence[Sink] = (),
        *,
        interval_s: float = INTERVAL_S,
        point_s: float = POINT_S,
    ) -> None:
        self._recorder = recorder
        self._history = history
        self._sinks = tuple(sinks)
        self._interval_s = interval_s
        self._point_s = min(point_s, interval_s)
        self._point_before = self._reported = Totals.nothing()
        self._ended = threading.Event()
        self._deadline_s = 0.0  # monotonic; set before _ended
        self._thread = threading.Thread(target=self._run, name="metrics-collector", daemon=True)

    def start(self) -> None:
        self._point_before = self._recorder.collect()
        self._thread.start()

    def close(self, deadline_s: float = 5.0) -> bool:
        """Report what is left and close the sinks; True when all of it was done within `deadline_s`."""
        self._deadline_s = time.monotonic() + deadline_s
        self._ended.set()
        if self._thread.ident is None:  # never started: there is still something to report
            self._end()
            return True
        self._thread.join(deadline_s)
        if self._thread.is_alive():
            log.error("metrics were still being written after %.1f s; the rest is lost", deadline_s)
        return not self._thread.is_alive()

    def point(self) -> None:
        """Read the recorder once and add what happened since the last reading to the history."""
        now = self._recorder.collect()
        self._history.append(Point.between(self._point_before, now))
        self._point_before = now

    def report(self) -> None:
        """Read the recorder once and hand every sink what was recorded since the last report."""
        now, before = self._recorder.collect(), self._reported
        self._reported = now
        for sink in self._sinks:
            try:
                sink.report(now, before)
            except Exception:  # one sink's failure must not keep the report from the others
                log.exception("%s failed to take a report", type(sink).__name__)

    def _run(self) -> None:
        now_s = time.monotonic()
        next_point_s, next_report_s = now_s + self._point_s, now_s + self._interval_s
        while not self._ended.wait(max(0.0, min(next_point_s, next_report_s) - time.monotonic())):
            now_s = time.monotonic()
            if now_s >= next_point_s:
                self.point()
                next_point_s = _next(next_point_s, self._point_s, now_s)
            if now_s >= next_report_s:
                self.report()
                next_report_s = _next(next_report_s, self._interval_s, now_s)
        self._end()

    def _end(self) -> None:
        self.report()
        for sink in self._sinks:
            try:
                sink.close(max(0.0, self._deadline_s - time.monotonic()))
            except Exception:  # the remaining sinks still have something to deliver
                log.exception("%s failed to close", type(sink).__name__)


def _next(due_s: float, every_s: float, now_s: float) -> float:
    """The next due time on the same grid that lies ahead: a paused process does not catch up point by point."""
    return due_s + every_s * (1 + (now_s - due_s) // every_s)
