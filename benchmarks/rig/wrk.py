"""Load from `wrk` (Debian: apt-get install wrk), which spends a tenth of the CPU that Python would.

Rule: its own CPU is measured in every run, because on few cores it is taken from the server.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Run:
    """One run. Latencies in microseconds, from request written to response read.

    requests           answered
    generator_cpu_us   CPU of wrk itself for each request; its ceiling on one core is 1e6 / this
    """

    requests: int
    requests_per_s: float
    p50_us: int
    p90_us: int
    p99_us: int
    p999_us: int
    max_us: int
    generator_cpu_us: float


class LoadFailed(Exception):
    """Not every answer was 200: then the figures mean nothing."""


def run(port: int, calls: Sequence[tuple[str, str]], body: bytes, *, connections: int, seconds: int) -> Run:
    """Post `body` again and again over kept connections.

    calls   (path, target) in the order in which they are used, over and over
    raises  LoadFailed when an answer was not 200 or a connection broke
    """
    program = shutil.which("wrk")
    if program is None:
        raise SystemExit("wrk is not installed; on Debian: apt-get install wrk")
    with tempfile.TemporaryDirectory() as scratch:
        lines, posted = Path(scratch) / "calls", Path(scratch) / "body"
        lines.write_text("".join(f"{path} {target}\n" for path, target in calls))
        posted.write_bytes(body)
        before = _children_cpu_s()
        done = subprocess.run(
            [
                *(program, "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "60s"),
                *("-s", str(Path(__file__).with_name("wrk.lua")), f"http://127.0.0.1:{port}"),
                *("--", str(lines), str(posted)),
            ],
            capture_output=True,
            text=True,
            check=True,
        )
        spent_s = _children_cpu_s() - before
    said = json.loads(done.stdout.strip().splitlines()[-1])
    if said["bad_status"] or said["broken"] or not said["requests"]:
        raise LoadFailed(f"{said['bad_status']} answers were not 200, {said['broken']} never came: {done.stdout}")
    return Run(
        requests=said["requests"],
        requests_per_s=said["requests"] / said["seconds"],
        p50_us=said["p50_us"],
        p90_us=said["p90_us"],
        p99_us=said["p99_us"],
        p999_us=said["p999_us"],
        max_us=said["max_us"],
        generator_cpu_us=spent_s / said["requests"] * 1e6,
    )


def _children_cpu_s() -> float:
    times = os.times()
    return times.children_user + times.children_system
