"""Figures with the machine and commit behind them, one JSON file for each benchmark in `out/`."""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.rig.segments import OUT

_START_LOAD = os.getloadavg()


def machine() -> dict[str, Any]:
    """Where and when a figure was taken. The load averages of the first and the last minute say who else was at work."""
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
        "kernel": platform.release(),
        "autogroup": _autogroup(),
        "python": platform.python_version(),
        "commit": _commit(),
        "load_before": [round(value, 1) for value in _START_LOAD],
        "load_after": [round(value, 1) for value in os.getloadavg()],
        "command": " ".join(["python", "-m", f"benchmarks.{Path(sys.argv[0]).stem}", *sys.argv[1:]]),
    }


def save(name: str, figures: dict[str, Any]) -> Path:
    """Write out/NAME.json: the figures, and `machine`."""
    OUT.mkdir(exist_ok=True)
    path = OUT / f"{name}.json"
    path.write_text(json.dumps({"machine": machine(), **figures}, indent=1) + "\n")
    print(f"written  {path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}", file=sys.stderr)
    return path


def load(name: str) -> dict[str, Any] | None:
    path = OUT / f"{name}.json"
    figures: dict[str, Any] | None = json.loads(path.read_text()) if path.exists() else None
    return figures


def _cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _autogroup() -> bool:
    """Whether the kernel shares the cores out by session, which it does not inside of a container: see sched(7)."""
    path = Path("/proc/sys/kernel/sched_autogroup_enabled")
    return path.exists() and path.read_text().strip() == "1"


def _commit() -> str:
    found = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"
