"""Processes that stand for other machines: S3, cold callers, attackers; and callers who are timed.

Niceness does not do for them. A process of any niceness keeps a core for its slice, 3 ms, when somebody else wakes (Linux 6.6
and later); one of SCHED_IDLE gives it up at once. See sched(7).
"""

from __future__ import annotations

import os
from contextlib import suppress

from container.examine.niceness import yield_to_others


def stand_aside() -> None:
    """This process, and what it starts from now on, threads included, run only where the endpoint leaves room."""
    yield_to_others(19)
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def come_first() -> None:
    """This thread, and those it starts from now on, get a core at once, as they would on another machine: what a caller is
    timed for is the server's work and not his own wait for a core. Without the right to it nothing changes."""
    with suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
