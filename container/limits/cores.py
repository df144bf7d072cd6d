"""How much processor time there is.

Source: the kernel's Documentation/admin-guide/cgroup-v2.rst (cpu.max) and scheduler/sched-bwc.rst (cgroup v1).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from container.limits.cgroups import folders_v1, folders_v2


def container_cores(root: Path = Path("/")) -> float:
    """Cores this process may keep busy: those it may run on, or less where a cgroup has a quota. Above 0."""
    quotas = [*_set(folders_v2(root), _quota_v2), *_set(folders_v1(root, "cpu"), _quota_v1)]
    return min([float(len(os.sched_getaffinity(0))), *quotas])


def _set(folders: Iterable[Path], quota: Callable[[Path], float]) -> Iterator[float]:
    """The quotas of those groups that have one."""
    for folder in folders:
        try:
            n_cores = quota(folder)
        except (OSError, ValueError, ZeroDivisionError):  # no such file in this group, or "max"
            continue
        if n_cores > 0:
            yield n_cores


def _quota_v2(folder: Path) -> float:
    """cpu.max: `50000 100000` is half a core, `max 100000` none."""
    quota_us, period_us = (folder / "cpu.max").read_text().split()
    return int(quota_us) / int(period_us)


def _quota_v1(folder: Path) -> float:
    """cpu.cfs_quota_us: -1 is none."""
    return int((folder / "cpu.cfs_quota_us").read_text()) / int((folder / "cpu.cfs_period_us").read_text())
