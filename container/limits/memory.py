"""How much memory there is, and how much of it is in use.

Source: the kernel's Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from container.limits.cgroups import folders_v1, folders_v2

# What the JVM takes besides its heap (metaspace, code cache, thread stacks), the supervisor, the
# examiner and one reader at work, and the interpreter with boto3. Measured with benchmarks/memory.py, rounded up.
JVM_EXTRA_BYTES = 110 << 20
PROCESSES_BYTES = 130 << 20
# Of what is left, for request bodies, downloads and artifacts under examination.
HEADROOM = 0.10
MIN_BUDGET_BYTES = 32 << 20

# A cgroup v1 without a limit says 2**63 rounded down to a page.
_UNLIMITED_BYTES = 1 << 60


@dataclass(frozen=True, slots=True)
class Limit:
    """The memory this container may use, and who says so.

    folder   of the cgroup that sets it; None for the machine's own
    """

    n_bytes: int
    source: str
    folder: Path | None = field(default=None, compare=False)


def container_limit(root: Path = Path("/")) -> Limit:
    """The tightest limit on this process: cgroup v2, cgroup v1, or else the machine's memory."""
    limits = [
        _machine(root),
        *_limits(folders_v2(root), "memory.max", "cgroup v2"),
        *_limits(folders_v1(root, "memory"), "memory.limit_in_bytes", "cgroup v1"),
    ]
    return min(limits, key=lambda limit: limit.n_bytes)


def _limits(folders: Iterable[Path], name: str, source: str) -> Iterator[Limit]:
    for folder in folders:
        try:
            text = (folder / name).read_text().strip()
        except OSError:
            continue
        if text.isdigit() and int(text) < _UNLIMITED_BYTES:
            yield Limit(int(text), source, folder)


def _machine(root: Path) -> Limit:
    return Limit(_table(root / "proc/meminfo").get("MemTotal", _UNLIMITED_BYTES >> 10) * 1024, "the machine")


def used_bytes(limit: Limit, root: Path = Path("/")) -> int:
    """Of what the limit allows, what is in use and could not simply be dropped: pages of files are not counted.

    raises   OSError when the cgroup is gone
    """
    if limit.folder is None:
        memory = _table(root / "proc/meminfo")
        return (memory["MemTotal"] - memory["MemAvailable"]) * 1024
    kept = _table(limit.folder / "memory.stat")
    if limit.source == "cgroup v2":
        charged = int((limit.folder / "memory.current").read_text())
        return charged - kept["inactive_file"] - kept["active_file"]
    charged = int((limit.folder / "memory.usage_in_bytes").read_text())
    return charged - kept["total_inactive_file"] - kept["total_active_file"]


def _table(path: Path) -> dict[str, int]:
    """Files of the kernel with a name and a number on each line: `MemTotal:  16000 kB`, `inactive_file 4096`."""
    rows = (line.split() for line in path.read_text().splitlines())
    return {row[0].rstrip(":"): int(row[1]) for row in rows if len(row) > 1}


def model_budget(limit_bytes: int, jvm_bytes: int) -> int:
    """What a container of this size leaves for models. `jvm_bytes` is what it may take in heap and direct buffers."""
    left = limit_bytes - jvm_bytes - JVM_EXTRA_BYTES - PROCESSES_BYTES
    return max(MIN_BUDGET_BYTES, int(left * (1 - HEADROOM)))


def process_resident_bytes() -> int:
    """What this process holds in memory now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096
