"""How much processor time there is.

Source: the kernel's Documentation/admin-guide/cgroup-v2.rst (cpu.max) and scheduler/sched-bwc.rst (cgroup v1).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from container.worker.cgroups import folders, own_groups


def container_cores(root: Path = Path("/")) -> float:
    """Cores this process may keep busy: those it may run on, or less where a cgroup has a quota. Above 0."""
    return min([float(len(os.sched_getaffinity(0))), *_quotas(root)])


def _quotas(root: Path) -> Iterator[float]:
    own = own_groups(root)
    if "" in own:
        yield from _above_zero(root / "sys/fs/cgroup", own[""], _quota_v2)
    if "cpu" in own:
        yield from _above_zero(root / "sys/fs/cgroup/cpu", own["cpu"], _quota_v1)


def _above_zero(mount: Path, group: str, quota: Callable[[Path], float]) -> Iterator[float]:
    for folder in folders(mount, group):
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
