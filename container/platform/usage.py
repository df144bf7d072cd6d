"""What processes take of this machine: a process and all that it started, by /proc.

Rule: measured at most once a real second, however fast the platform's minutes go by; between two looks the last one holds.
Memory is what is theirs alone: pages that processes share, of libraries for one, are nobody's.

Source: proc(5): utime, stime, cutime, cstime, starttime of stat; resident and shared of statm.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

LOOK_EVERY_S = 1.0
FOLDER_EVERY_S = 10.0
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
# Of what comes after the name in stat, where the third field of proc(5) is the first here.
_PARENT, _TIMES, _BEGAN = 1, (11, 12, 13, 14), 19


@dataclass(frozen=True, slots=True)
class Use:
    """cores: how many processors were busy, on average since the look before, or since it began."""

    cores: float
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class _Process:
    parent: int
    cpu_s: float
    began_s: float  # of the machine's uptime
    memory_bytes: int


class Machine:
    """One thread asks. proc: where the kernel tells. clock_s: the machine's uptime, as starttime counts it."""

    def __init__(
        self,
        proc: Path = Path("/proc"),
        clock_s: Callable[[], float] = lambda: time.clock_gettime(time.CLOCK_BOOTTIME),
    ) -> None:
        self._proc = proc
        self._clock_s = clock_s
        self._looked_s = float("-inf")
        self._processes: dict[int, _Process] = {}
        self._before: dict[int, tuple[float, float]] = {}  # process -> when, and its tree's seconds by then
        self._uses: dict[int, Use] = {}
        self._folders: dict[Path, tuple[float, int]] = {}

    def use(self, pids: Iterable[int]) -> dict[int, Use]:
        """Of each tree whose root is there."""
        if not self._proc.is_dir():  # not Linux
            return {}
        now_s = self._clock_s()
        if now_s - self._looked_s >= LOOK_EVERY_S:
            self._looked_s = now_s
            self._processes = dict(self._look())
            self._uses = {}
            children: dict[int, list[int]] = {}
            for pid, one in self._processes.items():
                children.setdefault(one.parent, []).append(pid)
            before, self._before = self._before, {}
            for pid in pids:
                if pid in self._processes:
                    self._uses[pid] = self._used(pid, children, before.get(pid), now_s)
        return {pid: self._uses[pid] for pid in pids if pid in self._uses}

    def folder_bytes(self, folder: Path) -> int:
        """What its files have, as it was up to ten real seconds ago."""
        now_s = self._clock_s()
        at_s, n_bytes = self._folders.get(folder, (float("-inf"), 0))
        if now_s - at_s >= FOLDER_EVERY_S:
            n_bytes = sum(_sizes(folder))
            self._folders = {one: told for one, told in self._folders.items() if one.exists()}
            self._folders[folder] = now_s, n_bytes
        return n_bytes

    def _used(self, root: int, children: dict[int, list[int]], before: tuple[float, float] | None, now_s: float) -> Use:
        tree, left = [], [root]
        while left:
            pid = left.pop()
            tree.append(self._processes[pid])
            left += children.get(pid, ())
        cpu_s = sum(one.cpu_s for one in tree)
        self._before[root] = now_s, cpu_s
        since_s, spent_s = before or (tree[0].began_s, 0.0)
        # A child that ended unseen takes its seconds with it.
        cores = max(0.0, cpu_s - spent_s) / max(now_s - since_s, 1 / _TICKS)
        return Use(cores, sum(one.memory_bytes for one in tree))

    def _look(self) -> Iterator[tuple[int, _Process]]:
        for name in os.listdir(self._proc):
            if not name.isdigit():
                continue
            try:
                stat = (self._proc / name / "stat").read_text().rpartition(")")[2].split()
                pages = (self._proc / name / "statm").read_text().split()
            except OSError:  # it has just ended
                continue
            ticks = sum(int(stat[at]) for at in _TIMES)
            alone = max(0, int(pages[1]) - int(pages[2])) * _PAGE_BYTES
            yield int(name), _Process(int(stat[_PARENT]), ticks / _TICKS, int(stat[_BEGAN]) / _TICKS, alone)


def _sizes(folder: Path) -> Iterator[int]:
    for here, _, names in os.walk(folder):
        for name in names:
            try:
                yield os.lstat(Path(here, name)).st_size
            except OSError:  # it has just gone
                continue
