"""The kernel's word that memory runs short, for a thread that waits for it.

    cgroup v2     a trigger on memory.pressure: tasks of the group stood still for STALL_US of WINDOW_US (PSI)
    cgroup v1     memory.pressure_level "medium", through an eventfd: reclaim takes what is in use
    the machine   the same trigger on /proc/pressure/memory

Rule: this is an early word and no more. Where it cannot be had (cgroups mounted read-only, as in most containers; an old
kernel) the thread that waits is woken by the clock alone.

Source: the kernel's Documentation/accounting/psi.rst and admin-guide/cgroup-v1/memory.rst, section 11.
"""

from __future__ import annotations

import contextlib
import os
import select
from pathlib import Path

from container.limits.memory import Limit

# A process without CAP_SYS_RESOURCE may set triggers with windows of a multiple of 2 s only.
WINDOW_US = 2_000_000
STALL_US = 100_000
LEVEL = "medium"


class Pressure:
    """What is to be heard of one limit; `close` when done.

    source   the file that tells; None where none does
    """

    def __init__(self, limit: Limit, root: Path = Path("/")) -> None:
        self._poll = select.poll()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._poll.register(self._wake, select.POLLIN)
        self._told: int | None = None
        self._open: list[int] = [self._wake]
        self.source: Path | None = None
        with contextlib.suppress(OSError):
            self._listen(limit, root)

    def _listen(self, limit: Limit, root: Path) -> None:
        if limit.source == "cgroup v1" and limit.folder is not None:
            path = limit.folder / "memory.pressure_level"
            level = self._keep(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
            told = self._keep(os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK))
            (limit.folder / "cgroup.event_control").write_text(f"{told} {level} {LEVEL}")
            events = select.POLLIN
        else:
            path = limit.folder / "memory.pressure" if limit.folder is not None else root / "proc/pressure/memory"
            told = self._keep(os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC))
            os.write(told, b"some %d %d\0" % (STALL_US, WINDOW_US))
            events = select.POLLPRI
        self._poll.register(told, events)
        self._told, self.source = told, path

    def _keep(self, descriptor: int) -> int:
        self._open.append(descriptor)
        return descriptor

    def wait(self, timeout_s: float) -> bool:
        """Whether the kernel has said so; returns at the latest after timeout_s, and at once after `wake`."""
        has_said = False
        for descriptor, events in self._poll.poll(timeout_s * 1000):
            if descriptor != self._told:
                continue
            if events & (select.POLLERR | select.POLLNVAL | select.POLLHUP):  # the group is gone
                self._poll.unregister(descriptor)
                self._told = self.source = None
                continue
            has_said = True
            if events & select.POLLIN:
                with contextlib.suppress(BlockingIOError):
                    os.eventfd_read(descriptor)
        return has_said

    def wake(self) -> None:
        """Have `wait` return at once, now and ever after. From any thread."""
        os.eventfd_write(self._wake, 1)

    def close(self) -> None:
        for descriptor in self._open:
            os.close(descriptor)
        self._open.clear()
