"""Log lines that would come too often.

Rule: what fails, fails for every model; one line in a while says it, and the figures say how often.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable


class Throttle:
    """Says when a line is due again. Threads that ask at the same moment may both be told yes; that is one line more."""

    def __init__(self, every_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._every_s = every_s
        self._clock = clock
        self._quiet_until = -math.inf

    def is_due(self) -> bool:
        """Whether to say it now; no for the next `every_s` seconds after a yes."""
        now = self._clock()
        if now < self._quiet_until:
            return False
        self._quiet_until = now + self._every_s
        return True
