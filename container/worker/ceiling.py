"""How many hosted models this container's limits hold: each is a process, threads and descriptors besides its memory.

Rule: a limit that is passed is a crash, in whichever process meets it first; so it is worked out before, and the load that
would pass it is answered with 507.
"""

from __future__ import annotations

import resource
from dataclasses import dataclass
from pathlib import Path

# Of one model, in the JVM (measured at 1,000 models with benchmarks/hosted.py): a stub's three pipes and its worker's socket;
# and threads: a server's, a worker's, a stub's reaper and the readers of its two streams.
JVM_DESCRIPTORS = 5
JVM_THREADS = 5
# All that the limit on processes counts: these, the stub itself and the runtime's thread.
TASKS = JVM_THREADS + 2
# Java objects of one model: mostly the readers' buffers.
HEAP_BYTES = 100 * 1024
# All memory of one model besides its booster: the above with its stacks, the stub, the runtime's thread.
WORKER_BYTES = 640 * 1024

# What is there with no model loaded.
BASE_DESCRIPTORS = 400
BASE_TASKS = 150
BASE_HEAP_BYTES = 64 << 20  # bodies of requests in flight, too


@dataclass(frozen=True, slots=True)
class Ceiling:
    """How many models, and which limit says so."""

    n_models: int
    source: str


def model_ceiling(jvm_heap_bytes: int, root: Path = Path("/")) -> Ceiling:
    """The lowest of the ceilings that descriptors, threads and the JVM's heap set."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    found = [
        Ceiling(
            (descriptors - BASE_DESCRIPTORS) // JVM_DESCRIPTORS,
            f"as many as fit in {descriptors} descriptors (ulimit -n)",
        ),
        Ceiling(
            (jvm_heap_bytes - BASE_HEAP_BYTES) // HEAP_BYTES,
            f"as many as fit in {jvm_heap_bytes} bytes of Java heap (--jvm-heap)",
        ),
    ]
    for limit, source in _task_limits(root):
        found.append(Ceiling((limit - BASE_TASKS) // TASKS, f"as many as fit in {limit} tasks ({source})"))
    lowest = min(found, key=lambda ceiling: ceiling.n_models)
    return Ceiling(max(1, lowest.n_models), lowest.source)


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
