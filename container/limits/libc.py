"""What we ask of the C library and, through prctl(2), of the kernel, that Python has no way to."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import signal
import struct

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
# sched_setattr(2), which libc has no function for until 2.41, and its struct: size, policy, flags, niceness, priority, slice.
_SCHED_SETATTR = {"x86_64": 314, "aarch64": 274}
_SCHED_ATTR = struct.Struct("=IIQiIQQQ")
_SCHED_FLAG_RESET_ON_FORK = 1
SHORTEST_SLICE_NS = 100_000  # the kernel's
_M_TRIM_THRESHOLD = -1
_M_TOP_PAD = -2
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8


class _Mallinfo(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
        )
    ]  # fmt: skip


_libc = ctypes.CDLL(None)
_libc.mallinfo2.restype = _Mallinfo
_libc.malloc.restype = ctypes.c_void_p
_libc.malloc.argtypes = [ctypes.c_size_t]
_libc.free.argtypes = [ctypes.c_void_p]


def end_with_parent(number: signal.Signals) -> None:
    """Between fork and exec: the kernel sends this process the signal when the thread that started it ends."""
    _libc.prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)


def adopt_orphans() -> None:
    """Children whose parents die become this process's instead of init's."""
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def take_short_turns(thread: int) -> None:
    """A thread of our user, that works for a moment and waits, gets the processor when it has work, though another is in the
    middle of its slice, which is 3 ms. It gets no more of the processor than before. What it starts has ordinary slices.
    Linux 6.12 and later; others leave everything as it was.

    thread   its id in the system; 0 for the caller
    """
    number = _SCHED_SETATTR.get(platform.machine())
    if number is None:
        return
    with contextlib.suppress(OSError):  # it has ended
        if os.sched_getscheduler(thread) != os.SCHED_OTHER:  # somebody has settled that for us
            return
        niceness = os.getpriority(os.PRIO_PROCESS, thread)
        wanted = (_SCHED_ATTR.size, os.SCHED_OTHER, _SCHED_FLAG_RESET_ON_FORK, niceness, 0, SHORTEST_SLICE_NS, 0, 0)
        _libc.syscall(number, thread, _SCHED_ATTR.pack(*wanted), 0)


def allocated_bytes() -> int:
    """What malloc has given out in this process and not got back; blocks in per-thread caches count as given out."""
    info = _libc.mallinfo2()
    allocated: int = info.uordblks + info.hblkhd
    return allocated


def trim() -> None:
    """Give free memory back to the system."""
    _libc.malloc_trim(0)


def keep_heap(mmap_from_bytes: int, trim_from_bytes: int, grow_by_bytes: int | None = None) -> None:
    """Blocks below `mmap_from_bytes` come from the heap, and its end goes back only when so much of it is free.

    grow_by_bytes  more than is asked for comes from the system each time; None leaves that as it was
    """
    _libc.mallopt(_M_MMAP_THRESHOLD, mmap_from_bytes)
    _libc.mallopt(_M_TRIM_THRESHOLD, trim_from_bytes)
    if grow_by_bytes is not None:
        _libc.mallopt(_M_TOP_PAD, grow_by_bytes)


def share_heap() -> None:
    """All threads allocate from one heap, and what one leaves another takes. Before any other thread has allocated: libc
    finds out then how many heaps there may be, for good."""
    _libc.mallopt(_M_ARENA_MAX, 1)


def touch_heap(n_bytes: int) -> None:
    """Have so many bytes of the heap, written to once."""
    block = _libc.malloc(n_bytes)
    ctypes.memset(block, 1, n_bytes)
    _libc.free(block)
