"""Models loaded, scored with and evicted, over and over on all threads: does the process grow?

    python -m benchmarks.leak [--cycles 300000]

The runtime's own cache, loader, handle pool and trimmer in a process of its own, with as many threads as the runtime has,
on artifacts that were examined once and come from the disk tier: what is repeated is what happens in the runtime's memory.
The cache holds 4 of 64 models; only calls that found theirs gone are counted as cycles.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

from benchmarks.rig import processes, record, segments
from benchmarks.rig.assembled import assembled
from container import environments
from handler.cache.model_cache import ModelCache
from handler.errors import ModelNotReady, NoRoom
from handler.telemetry.recorder import MODEL_LOADING_TIME, LiveRecorder

N_MODELS = 64
N_HELD = 4
THREADS = 16
TARGET_MB = 15.0
ONE_PROCESS = "--in-this-process"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--cycles", type=int, default=300_000)
    parser.add_argument("--first", type=int, default=10_000, help="cycles before the first look")
    parser.add_argument("--looks", type=int, default=20)
    parser.add_argument(ONE_PROCESS, action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if not chosen.in_this_process:
        # malloc reads its settings from the environment at start
        command = [sys.executable, "-m", "benchmarks.leak", *sys.argv[1:], ONE_PROCESS]
        return subprocess.run(command, env=environments.runtime_environment(os.environ), check=False).returncode
    with tempfile.TemporaryDirectory() as directory:
        figures = _measure(chosen.cycles, chosen.first, chosen.looks, Path(directory))
    print(f"{figures['cycles']} cycles on {THREADS} threads, {figures['loads']} loads")
    for cycles, resident in figures["looks"]:
        print(f"after {cycles:>8} cycles {resident / 1e6:>8.1f} MB resident")
    print(f"grown by {figures['grown_mb']:.1f} MB since the first look, target at most {TARGET_MB:g}")
    record.save("leak", figures)
    return 0 if figures["grown_mb"] <= TARGET_MB else 1


def _measure(cycles: int, first: int, n_looks: int, directory: Path) -> dict[str, Any]:
    made = segments.make(N_MODELS)
    recorder = LiveRecorder()
    with assembled(made, directory, recorder, n_threads=THREADS) as models:
        cache = models.cache
        largest = max(models.loader.prepare(target).n_bytes for target in made.targets)
        cache.resize(N_HELD * largest)
        steps = [first] + [first + (cycles - first) * number // n_looks for number in range(1, n_looks + 1)]
        looks: list[tuple[int, int]] = []
        callers = [_Caller(cache, made.targets, number) for number in range(THREADS)]
        done = 0
        for step in steps:
            _run(callers, (step - done) // THREADS)
            done = step
            looks.append((done, processes.resident_bytes(os.getpid())))
            print(f"{done} cycles, {looks[-1][1] / 1e6:.1f} MB", file=sys.stderr)
        for caller in callers:
            caller.close()
        n_resting = models.parts.boosters.handles.n_resting
    return {
        "cycles": done,
        "loads": recorder.collect().count(MODEL_LOADING_TIME),
        "threads": THREADS,
        "looks": looks,
        "grown_mb": (looks[-1][1] - looks[0][1]) / 1e6,
        "resting_handles": n_resting,
    }


class _Caller:
    """One thread that lives from the first cycle to the last, as a connection's does."""

    def __init__(self, cache: ModelCache, targets: list[str], number: int) -> None:
        self._cache = cache
        self._draw = random.Random(number)
        self._targets = targets
        self._row = segments.rows(1)
        self._cycles = 0
        self._go = threading.Semaphore(0)
        self.done = threading.Event()
        self._is_over = False
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def start(self, cycles: int) -> None:
        self._cycles = cycles
        self.done.clear()
        self._go.release()

    def close(self) -> None:
        self._is_over = True
        self._go.release()
        self._thread.join()

    def _serve(self) -> None:
        while True:
            self._go.acquire()
            if self._is_over:
                return
            for _ in range(self._cycles):
                self._cycle()
            self.done.set()

    def _cycle(self) -> None:
        """Score with models until one had to be loaded for it."""
        while True:
            try:
                with self._cache.borrow(self._draw.choice(self._targets), 60.0) as borrowed:
                    borrowed.model.predict(self._row)
                    if not borrowed.is_hit:
                        return
            except (ModelNotReady, NoRoom):  # 16 borrowers and room for 4: somebody has to wait
                continue


def _run(callers: list[_Caller], cycles: int) -> None:
    for caller in callers:
        caller.start(cycles)
    for caller in callers:
        caller.done.wait()


if __name__ == "__main__":
    sys.exit(main())
