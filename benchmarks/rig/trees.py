"""A command's whole process tree measured: CPU seconds, wall time, peak memory (PSS)."""

from __future__ import annotations

import os
import resource
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Figure:
    cpu_s: float
    wall_s: float
    peak_mb: float


def measured(command: list[str]) -> Figure:
    """A command's whole process tree, which it has waited for itself."""
    environment = {**os.environ, "OMP_WAIT_POLICY": "passive"}  # spinning threads would be counted as work
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # installed, nobody compiles what is imported anew each time
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    peak = 0.0
    is_over = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not is_over.wait(0.1):
            peak = max(peak, family_pss_mb(process.pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    status = process.wait()
    wall_s = time.perf_counter() - began
    is_over.set()
    watcher.join()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert status == 0, command
    return Figure(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall_s, peak)


def family_pss_mb(pid: int) -> float:
    pending, kb = [pid], 0
    while pending:
        one = pending.pop()
        try:
            for task in Path(f"/proc/{one}/task").iterdir():
                pending += map(int, (task / "children").read_text().split())
            lines = Path(f"/proc/{one}/smaps_rollup").read_text().splitlines()
        except (OSError, ValueError):
            continue
        kb += next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)
    return kb / 1024
