"""Everything evicted at once: `python -m benchmarks.giveback [--segments 1000]`.

The runtime's own cache, loader, handle pool and trimmer in a process of its own, with its malloc settings, hold a thousand
examined models that eight threads have scored with. Then the budget is cut to nothing, as the guard does when somebody
else takes the memory. Target: a second later at least 95 % of what the models had taken is the system's again. That is
looked at the second time: of the first thousand models some 2 KB each stay, tables and object arenas that the next use.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.leak import ONE_PROCESS
from benchmarks.rig import processes, record, segments
from benchmarks.rig.assembled import assembled
from benchmarks.rig.verdicts import Verdicts
from container import environments
from handler.telemetry.recorder import LiveRecorder

THREADS = 8
WITHIN_S = 1.0
TARGET = 0.95


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--segments", type=int, default=1000)
    parser.add_argument(ONE_PROCESS, action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if not chosen.in_this_process:
        # malloc reads its settings from the environment at start
        command = [sys.executable, "-m", "benchmarks.giveback", *sys.argv[1:], ONE_PROCESS]
        return subprocess.run(command, env=environments.runtime_environment(os.environ), check=False).returncode
    with tempfile.TemporaryDirectory() as directory:
        figures = _measure(chosen.segments, Path(directory))
    print(f"taken          {figures['taken_bytes'] / 1e6:.1f} MB resident by {chosen.segments:,} models")
    print(f"book           {figures['booked_bytes'] / 1e6:.1f} MB")
    print(f"evicted        in {figures['evict_ms']:.0f} ms; looked at {WITHIN_S:g} s after the beginning")
    print(
        f"kept for good  {figures['first_kept_bytes'] / 1e6:.1f} MB the first time, by the interpreter and the metrics"
    )
    verdicts = Verdicts()
    share = figures["back_bytes"] / figures["taken_bytes"]
    verdicts.say(
        "given back",
        f"{share:.1%}, {(figures['taken_bytes'] - figures['back_bytes']) / 1e6:.1f} MB kept",
        f"at least {TARGET:.0%} within {WITHIN_S:g} s",
        share >= TARGET,
    )
    record.save("giveback", {"segments": chosen.segments, **figures, "verdicts": verdicts.lines})
    return verdicts.exit_status


def _measure(n_segments: int, directory: Path) -> dict[str, Any]:
    made = segments.make(n_segments)
    row = segments.rows(1)
    with (
        assembled(made, directory, LiveRecorder(), n_threads=2 * THREADS) as models,  # so that none is turned away
        ThreadPoolExecutor(THREADS) as callers,
    ):
        cache, trimmer = models.cache, models.parts.trimmer

        def score(target: str) -> None:
            with cache.borrow(target, 60.0) as borrowed:
                borrowed.model.predict(row)

        list(callers.map(score, made.targets[: THREADS * 2]))  # threads and handles are there before the first look
        rounds = []
        for _ in range(2):
            cache.resize(0)
            trimmer.trim_now()
            before = processes.resident_bytes(os.getpid())
            cache.resize(4 << 30)
            for _ in range(4):
                list(callers.map(score, made.targets))
            loaded, booked = processes.resident_bytes(os.getpid()), cache.resident_bytes
            began = time.monotonic()
            cache.resize(0)
            evict_s = time.monotonic() - began
            time.sleep(max(0.0, began + WITHIN_S - time.monotonic()))
            rounds.append((loaded - before, loaded - processes.resident_bytes(os.getpid())))
    (first_taken, first_back), (taken, back) = rounds
    return {
        "booked_bytes": booked,
        "taken_bytes": taken,
        "back_bytes": back,
        "first_kept_bytes": first_taken - first_back,
        "evict_ms": evict_s * 1000,
    }


if __name__ == "__main__":
    sys.exit(main())
