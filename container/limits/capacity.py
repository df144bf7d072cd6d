"""How many hosted models this container's limits hold: each is threads and descriptors besides its memory.

Rule: a limit that is passed is a crash, in whichever process meets it first; so it is worked out before, and the load that
would pass it is answered with 507.
"""

from __future__ import annotations

import resource
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Cost:
    """What one loaded model takes, measured at 1,000 models with benchmarks/hosted.py.

    descriptors   of the process that needs most of them
    tasks         processes and threads, of all processes together
    heap_bytes    Java objects
    worker_bytes  all memory besides its booster: the above, stacks and sockets
    """

    descriptors: int
    tasks: int
    heap_bytes: int
    worker_bytes: int


# A worker of MMS's and its connection's thread in the runtime, which also listens for it.
OF_MODEL = Cost(descriptors=2, tasks=2, heap_bytes=32 * 1024, worker_bytes=320 * 1024)

# What is there with no model loaded.
BASE_DESCRIPTORS = 400
BASE_TASKS = 150
BASE_HEAP_BYTES = 64 << 20  # bodies of requests in flight, too


@dataclass(frozen=True, slots=True)
class Capacity:
    """How many models, and which limit says so."""

    n_models: int
    source: str


def model_capacity(cost: Cost, jvm_heap_bytes: int, root: Path = Path("/")) -> Capacity:
    """The lowest of the capacities that descriptors, threads and the JVM's heap set."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    found = [
        Capacity(
            (descriptors - BASE_DESCRIPTORS) // cost.descriptors,
            f"as many as fit in {descriptors} descriptors (ulimit -n)",
        ),
        Capacity(
            (jvm_heap_bytes - BASE_HEAP_BYTES) // cost.heap_bytes,
            f"as many as fit in {jvm_heap_bytes} bytes of Java heap (--jvm-heap)",
        ),
    ]
    for limit, source in _task_limits(root):
        found.append(Capacity((limit - BASE_TASKS) // cost.tasks, f"as many as fit in {limit} tasks ({source})"))
    lowest = min(found, key=lambda capacity: capacity.n_models)
    return Capacity(max(1, lowest.n_models), lowest.source)


def _task_limits(root: Path) -> list[tuple[int, str]]:
    """Limits on processes and threads, of the container, of this user and of the machine."""
    limits = []
    own, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    if own != resource.RLIM_INFINITY:
        limits.append((own, "ulimit -u"))
    for name in ("sys/fs/cgroup/pids.max", "sys/fs/cgroup/pids/pids.max", "proc/sys/kernel/threads-max"):
        try:
            text = (root / name).read_text().strip()
        except OSError:
            continue
        if text.isdigit():
            limits.append((int(text), name.rpartition("/")[2]))
    return limits
