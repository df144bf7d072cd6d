"""The beat at which figures are published and alarms looked at: every ten platform seconds, on the dot.

Rule: who publishes figures of a span comes before who reads them, so a beat runs its parts in the order they were added.
"""

from __future__ import annotations

import datetime
import logging
import math
from collections.abc import Callable

from container.platform.clock import Clock

BEAT_S = 10  # CloudWatch's shortest period of an alarm but 1 s, which no SageMaker metric has
ROUNDING_S = 1e-3  # a clock's, so that a beat that comes a microsecond early is not asked for again
MAX_BEHIND_S = 3600  # of a clock that jumped; what is older is skipped

log = logging.getLogger(__name__)


class Pulse:
    """Parts get the time of the beat: a multiple of ten seconds."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._parts: list[Callable[[datetime.datetime], None]] = []
        self._last_s = math.floor(clock.now().timestamp() / BEAT_S) * BEAT_S

    def add(self, part: Callable[[datetime.datetime], None]) -> None:
        self._parts.append(part)

    def start(self) -> None:
        now_s = self._clock.now().timestamp()
        self._clock.call_later(max(self._last_s + BEAT_S - now_s, 0.0), self._beat)

    def _beat(self) -> None:
        """One beat for each ten seconds that have gone by: a machine that was busy may have missed some."""
        now_s = self._clock.now().timestamp() + ROUNDING_S
        self._last_s = max(self._last_s, math.floor(now_s / BEAT_S) * BEAT_S - MAX_BEHIND_S)
        while self._last_s + BEAT_S <= now_s:
            self._last_s += BEAT_S
            at = datetime.datetime.fromtimestamp(self._last_s, datetime.UTC)
            for part in self._parts:
                try:
                    part(at)
                except Exception:
                    log.exception("a part of the platform failed at %s", at)
        self.start()
