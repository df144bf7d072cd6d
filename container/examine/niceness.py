"""Letting others have the processor first.

Outside of containers Linux shares the processor out by session (autogroup, see sched(7)), and a process's niceness counts
only against its own session. So a process that is to yield to the whole endpoint gets a session of its own, which yields as a
whole.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

_AUTOGROUP = Path("/proc/self/autogroup")
# The kernel takes ten such settings a second from all its users together and answers EAGAIN to more.
_TRIES, _PAUSE_S = 5, 0.1


def yield_to_others(niceness: int) -> None:
    """This process, and what it starts from now on, run where others leave room: 0 yields to nobody, 19 to everybody. Who
    yields more already goes on doing so. Where the kernel does not take a session's setting, the process's own has to do."""
    niceness = max(niceness, os.nice(0))
    os.nice(niceness - os.nice(0))
    with contextlib.suppress(PermissionError):  # it leads its session already
        os.setsid()
    for _ in range(_TRIES):
        try:
            _AUTOGROUP.write_text(str(niceness))
        except BlockingIOError:
            time.sleep(_PAUSE_S)
        except OSError:  # a kernel without it, or /proc is not to be written
            return
        else:
            return
