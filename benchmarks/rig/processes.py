"""What a tree of processes takes: memory by member, CPU in all. Read from /proc.

Rule: memory is PSS, a page shared by n processes counts 1/n for each, so members add up to the whole.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

PROC = Path("/proc")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def family(root: int) -> list[int]:
    """A process and all below it."""
    children: dict[int, list[int]] = defaultdict(list)
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            fields = _stat(int(entry))
            if fields:
                children[int(fields[1])].append(int(entry))
    found, pending = [], [root]
    while pending:
        pid = pending.pop()
        found.append(pid)
        pending += children[pid]
    return found


def pss_bytes(pid: int) -> int:
    """Proportional set size; 0 when the process has ended."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("Pss:"))


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def members(root: int, role: Callable[[str], str]) -> dict[str, list[int]]:
    """The tree's processes by what they are. `role` names a process by its command line."""
    named: dict[str, list[int]] = defaultdict(list)
    for pid in family(root):
        named[role(command_line(pid))].append(pid)
    return dict(named)


def memory_by_member(root: int, role: Callable[[str], str]) -> dict[str, int]:
    """PSS in bytes of each kind of member."""
    return {name: sum(map(pss_bytes, pids)) for name, pids in members(root, role).items()}


def cpu_s(root: int) -> float:
    """CPU seconds of the tree so far, members that have ended and been waited for included."""
    return sum(map(own_cpu_s, family(root)))


def own_cpu_s(pid: int) -> float:
    """CPU seconds of one process, and of its children that have ended and been waited for."""
    fields = _stat(pid)
    return sum(map(int, fields[11:15])) / _TICKS_PER_S if fields else 0.0  # utime stime cutime cstime


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def is_running(pid: int) -> bool:
    """Whether a process is there and is no zombie."""
    fields = _stat(pid)
    return bool(fields) and fields[0] != "Z"


def _stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat behind the name: [0] is the state, [1] the parent."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
