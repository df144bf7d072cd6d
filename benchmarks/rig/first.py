"""Seconds on a machine where others are at work: what is timed goes first.

Rule: for seconds at a time, and the group is gone afterwards. Needs root and control groups of version 1.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path("/sys/fs/cgroup/cpu")
MOST_SHARES = 262_144  # the kernel's own limit: against a dozen others it leaves each of them a half per cent of a core
PATIENCE_S = 10.0


@contextmanager
def first(*pids: int) -> Iterator[None]:
    """This process, what it starts, and others that it waits for, before all else on every core."""
    if not os.access(ROOT / "cpu.shares", os.W_OK):
        raise SystemExit(
            f"{ROOT} is not there or not to be written: going first needs root and control groups, version 1"
        )
    group = ROOT / f"mme-first-{os.getpid()}"
    group.mkdir()
    (group / "cpu.shares").write_text(str(MOST_SHARES))
    for pid in (os.getpid(), *pids):
        (group / "tasks").write_text(str(pid))
    try:
        yield
    finally:
        _leave(group)


def _leave(group: Path) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while (left := (group / "tasks").read_text().split()) and time.monotonic() < deadline:
        for thread in left:
            with contextlib.suppress(OSError):  # it has ended
                (ROOT / "tasks").write_text(thread)
    with contextlib.suppress(OSError):
        group.rmdir()
