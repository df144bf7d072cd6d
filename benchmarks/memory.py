"""Memory of an endpoint with 1,000 models, by process, and what is left of it when they are gone.

    python -m benchmarks.memory

There is no command that empties the cache, and none is needed: the budget is set to just what one large model takes,
so its load evicts all others, and the next small model's load evicts it. Everything is seen from outside.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from typing import Any

from benchmarks.rig import processes, record, segments
from benchmarks.rig.endpoints import Ours
from benchmarks.rig.warm import warm_up
from tests.rig.endpoint import free_port

BODY = segments.csv(segments.rows(1, seed=7))
MB = 1e6
SETTLE_S = 6.0  # the trimmer waits 0.2 s, reader examiners 5 s for another task
MORE_BYTES = 16 << 10  # what one measurement of a large booster may differ from the next; less than a small one takes
TARGET_TREE_MB = 450
TARGET_LEFT_MB = 15


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--segments", type=int, default=1000)
    parser.add_argument("--calls", type=int, default=20, help="of each model, over all of the runtime's threads")
    parser.add_argument("--workers", default="32", help="of the endpoint")
    chosen = parser.parse_args()
    made = segments.make(chosen.segments)
    large = segments.make_large()
    shutil.copy(large, made.models / large.name)
    try:
        figures = _measure(made, large.name, chosen.calls, chosen.workers)
    finally:
        (made.models / large.name).unlink()
    _print(figures, chosen.segments)
    record.save("memory", {"segments": chosen.segments, "workers": chosen.workers, **figures})
    is_good = figures["tree_mb"] <= TARGET_TREE_MB and figures["left_mb"] <= TARGET_LEFT_MB
    return 0 if is_good else 1


def _measure(made: segments.Segments, large: str, calls: int, workers: str) -> dict[str, Any]:
    large_bytes = _large_bytes(made, large)
    budget = large_bytes + MORE_BYTES
    flags = ("--memory", str(budget), "--workers", workers, "--admin-port", str(free_port()))
    with Ours(made.models, *flags) as ours:
        time.sleep(SETTLE_S)
        at_start = ours.memory_by_member()
        for _ in range(calls):
            warm_up(ours, made.targets, BODY)
        time.sleep(SETTLE_S)
        loaded = ours.memory_by_member()
        held = ours.resident_models()
        assert len(held) == made.n_segments, f"only {len(held)} models fit into {budget} bytes"
        caller = ours.caller()
        caller.call(large, BODY)
        assert list(ours.resident_models()) == [large]
        time.sleep(SETTLE_S)
        with_large = ours.memory_by_member()
        caller.call(made.targets[0], BODY)
        assert list(ours.resident_models()) == [made.targets[0]]
        time.sleep(SETTLE_S)
        emptied = ours.memory_by_member()
        caller.close()
        runtime_threads = len(list((processes.PROC / str(ours.runtime) / "task").iterdir()))
    return {
        "start": at_start,
        "loaded": loaded,
        "large": with_large,
        "emptied": emptied,
        "booked_bytes": sum(held.values()),
        "budget_bytes": budget,
        "runtime_threads": runtime_threads,
        "tree_mb": sum(loaded.values()) / MB,
        "left_mb": (emptied["runtime"] - at_start["runtime"]) / MB,
    }


def _large_bytes(made: segments.Segments, large: str) -> int:
    """What the cache books for the large model."""
    with Ours(made.models, "--memory", "4GiB", "--admin-port", str(free_port())) as ours:
        caller = ours.caller()
        caller.call(large, BODY)
        caller.close()
        return ours.resident_models()[large]


def _print(figures: dict[str, Any], n_segments: int) -> None:
    columns = ("start", "loaded", "large", "emptied")
    print(f"PSS in MB   {'at start':>12}{f'{n_segments} models':>14}{'one large':>12}{'emptied':>12}")
    states = [figures[column] for column in columns]
    for name in ("supervisor", "runtime", "JVM", "stubs", "examiner"):
        cells = [state.get(name, 0) / MB for state in states]
        print(f"{name:12}{cells[0]:>12.1f}{cells[1]:>14.1f}{cells[2]:>12.1f}{cells[3]:>12.1f}")
    sums = [sum(state.values()) / MB for state in states]
    print(f"{'all':12}{sums[0]:>12.1f}{sums[1]:>14.1f}{sums[2]:>12.1f}{sums[3]:>12.1f}")
    print(f"the cache's book says {figures['booked_bytes'] / MB:.1f} MB")
    print(f"tree with all loaded   {figures['tree_mb']:.0f} MB, target at most {TARGET_TREE_MB}")
    print(f"runtime over its start {figures['left_mb']:.1f} MB, target at most {TARGET_LEFT_MB}")


if __name__ == "__main__":
    sys.exit(main())
