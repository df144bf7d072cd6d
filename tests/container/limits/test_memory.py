"""Limits as cgroups write them, and memory that really goes back."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from container.limits.malloc import Trimmer
from container.limits.memory import MIN_BUDGET_BYTES, Limit, container_limit, model_budget, used_bytes

MIB = 1 << 20
MEMINFO = "MemTotal:       16000000 kB\nMemFree:         1000000 kB\n"


def machine(root: Path, files: dict[str, str]) -> Path:
    for name, text in ({"proc/meminfo": MEMINFO} | files).items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({}, Limit(16_000_000 * 1024, "the machine")),
        (
            {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "1073741824\n"},
            Limit(1 << 30, "cgroup v2"),
        ),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "max\n"}, Limit(16_000_000 * 1024, "the machine")),
        (
            {
                "proc/self/cgroup": "0::/a/b\n",
                "sys/fs/cgroup/a/b/memory.max": "max\n",
                "sys/fs/cgroup/a/memory.max": "536870912\n",
            },
            Limit(512 * MIB, "cgroup v2"),
        ),
        (
            {
                "proc/self/cgroup": "4:cpu,memory:/docker/abc\n1:name=systemd:/x\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "268435456\n",
            },
            Limit(256 * MIB, "cgroup v1"),
        ),
        (
            {
                "proc/self/cgroup": "4:memory:/\n0::/\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
                "sys/fs/cgroup/unified/memory.max": "100000000\n",
            },
            Limit(100_000_000, "cgroup v2"),
        ),
    ],
)
def test_the_tightest_limit_counts(tmp_path: Path, files: dict[str, str], limit: Limit) -> None:
    assert container_limit(machine(tmp_path, files)) == limit


@pytest.mark.parametrize(
    ("files", "used"),
    [
        ({"proc/meminfo": MEMINFO + "MemAvailable:   4000000 kB\n"}, 12_000_000 * 1024),
        (
            {
                "proc/self/cgroup": "0::/\n",
                "sys/fs/cgroup/memory.max": "1000000\n",
                "sys/fs/cgroup/memory.current": "700000\n",
                "sys/fs/cgroup/memory.stat": "anon 1\ninactive_file 100000\nactive_file 50000\n",
            },
            550_000,
        ),
        (
            {
                "proc/self/cgroup": "4:memory:/a\n",
                "sys/fs/cgroup/memory/a/memory.limit_in_bytes": "1000000\n",
                "sys/fs/cgroup/memory/a/memory.usage_in_bytes": "700000\n",
                "sys/fs/cgroup/memory/a/memory.stat": (
                    "inactive_file 1\ntotal_inactive_file 100000\ntotal_active_file 60000\n"
                ),
            },
            540_000,
        ),
    ],
)
def test_what_is_used_leaves_out_pages_of_files(tmp_path: Path, files: dict[str, str], used: int) -> None:
    root = machine(tmp_path, files)
    assert used_bytes(container_limit(root), root) == used


def test_this_machine_has_a_limit_and_uses_less() -> None:
    limit = container_limit()
    assert 0 < used_bytes(limit) < limit.n_bytes


def test_a_trim_gives_back_what_was_freed_before_it() -> None:
    trimmer = Trimmer(pause_s=1000)
    trimmer.trim_now()
    assert trimmer.n_trims == 1
    trimmer.close()


def test_the_budget_is_what_the_other_processes_leave() -> None:
    assert 500 * MIB < model_budget(1024 * MIB, 192 * MIB) < 700 * MIB
    assert model_budget(100 * MIB, 192 * MIB) == MIN_BUDGET_BYTES


def test_freed_models_are_memory_again_soon_after() -> None:
    """In a process of its own, since the allocator belongs to the whole process."""
    script = """
import time
from container.limits.malloc import Trimmer
from container.limits.memory import process_resident_bytes
from handler.predictor import HandlePool
from tests.rig import boosters
document = boosters.document(boosters.train(n_rounds=200))
pool, trimmer = HandlePool(), Trimmer()
before = process_resident_bytes()
held = [pool.load(document) for _ in range(300)]
grown = process_resident_bytes() - before
for booster in held:
    pool.rest(booster)
    trimmer.freed(grown // 300)
deadline = time.monotonic() + 20
while process_resident_bytes() - before > grown * 0.1 and time.monotonic() < deadline:
    time.sleep(0.01)
print(grown, process_resident_bytes() - before, trimmer.n_trims)
trimmer.close()
"""
    from container import environments

    run = subprocess.run(
        [sys.executable, "-c", script],
        env=environments.runtime_environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    grown, left, trims = map(int, run.stdout.split())
    assert grown > 20 * MIB
    assert left < grown * 0.1
    assert trims >= 1


def test_closing_the_trimmer_ends_its_thread() -> None:
    trimmer = Trimmer(pause_s=1000)
    trimmer.freed(1)
    trimmer.close()
    assert not trimmer._thread.is_alive()
