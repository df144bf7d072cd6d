"""More models than memory: are all answers right, is the budget kept, is the least recently used the one to go?

    python -m benchmarks.thrash [--calls 20000]

Through the real MMS, and seen from outside: answers are compared with XGBoost's own for that segment and row, memory is
read from the endpoint's metrics while it works, and a serial trace is compared with a reference cache call by call.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xgboost

from benchmarks.rig import processes, record, segments
from benchmarks.rig.endpoints import Caller, CallFailed, Ours
from benchmarks.rig.warm import warm_up
from tests.rig.endpoint import free_port

N_ROWS = 64  # different rows asked for
SHARE = 3  # one model in so many fits into the budget
LOOK_S = 0.05
NOT_READY = 429


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--segments", type=int, default=300)
    parser.add_argument("--calls", type=int, default=20_000)
    parser.add_argument("--serial-calls", type=int, default=2_000)
    parser.add_argument("--threads", type=int, default=16)
    chosen = parser.parse_args()
    made = segments.make(chosen.segments)
    oracle = Oracle(made)
    sizes = _sizes(made)
    budget = sum(sizes.values()) // SHARE
    flags = ("--memory", str(budget), "--admin-port", str(free_port()))
    with Ours(made.models, *flags) as ours:
        serial = _serial(ours, made, oracle, sizes, budget, chosen.serial_calls)
        storm = _storm(ours, made, oracle, budget, chosen.calls, chosen.threads)
        counted = {
            "invocations": ours.figure("mme_invocations_total"),
            "evictions": ours.figure("mme_evictions_total"),
        }
        if storm["failures"]:
            print("the endpoint's log:", *ours.last_lines(), sep="\n", file=sys.stderr)
    figures = {"budget_bytes": budget, "model_bytes": statistics.mean(sizes.values()), "counted": counted}
    _print(serial, storm, budget)
    record.save("thrash", {"segments": chosen.segments, "serial": serial, "storm": storm, **figures})
    is_good = not (serial["differences"] or storm["wrong"] or storm["over_budget"] or storm["failures"])
    return 0 if is_good else 1


class Oracle:
    """What each segment answers to each of a few rows, by XGBoost's own package."""

    def __init__(self, made: segments.Segments) -> None:
        block = segments.rows(N_ROWS, seed=3)
        matrix = xgboost.DMatrix(block, nthread=1)
        self.bodies = [segments.csv(row[np.newaxis]) for row in block]
        self._answers = {target: made.oracle(target).predict(matrix) for target in made.targets}

    def is_right(self, target: str, row: int, answer: bytes) -> bool:
        """Equal to the last bit: the answer's decimals read back as the float32 that XGBoost gave."""
        return bool(np.float32(answer.decode()) == self._answers[target][row])


class ReferenceCache:
    """Least recently used first out, by bytes, in twenty lines that can be checked by reading."""

    def __init__(self, sizes: dict[str, int], budget: int) -> None:
        self._sizes = sizes
        self._budget = budget
        self._held: OrderedDict[str, int] = OrderedDict()
        self.evictions = 0

    def call(self, target: str) -> bool:
        """Whether it was a hit."""
        if target in self._held:
            self._held.move_to_end(target)
            return True
        while sum(self._held.values()) + self._sizes[target] > self._budget:
            self._held.popitem(last=False)
            self.evictions += 1
        self._held[target] = self._sizes[target]
        return False


def _sizes(made: segments.Segments) -> dict[str, int]:
    """What the cache books for each segment, from an endpoint with room for all."""
    with Ours(made.models, "--memory", "4GiB", "--admin-port", str(free_port())) as ours:
        warm_up(ours, made.targets, segments.csv(segments.rows(1)))
        return ours.resident_models()


def _serial(
    ours: Ours, made: segments.Segments, oracle: Oracle, sizes: dict[str, int], budget: int, n_calls: int
) -> dict[str, Any]:
    """One call at a time, hit or miss compared with the reference."""
    reference = ReferenceCache(sizes, budget)
    differences = wrong = hits = 0
    caller = ours.caller()
    for number, segment in enumerate(segments.zipf(made.n_segments, n_calls, seed=1)):
        target, row = made.targets[segment], number % N_ROWS
        answer, told = caller.call(target, oracle.bodies[row])
        is_hit = told == "cache=hit"
        hits += is_hit
        differences += is_hit != reference.call(target)
        wrong += not oracle.is_right(target, row, answer)
    caller.close()
    evictions = round(ours.figure("mme_evictions_total"))
    differences += abs(evictions - reference.evictions)
    return {
        "calls": n_calls,
        "hits": hits,
        "evictions": evictions,
        "reference_evictions": reference.evictions,
        "differences": differences,
        "wrong": wrong,
    }


@dataclass
class _Tally:
    """What the callers of a storm have seen."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    told: Counter[str] = field(default_factory=Counter)
    hit_us: list[float] = field(default_factory=list)
    miss_us: list[float] = field(default_factory=list)


def _storm(
    ours: Ours, made: segments.Segments, oracle: Oracle, budget: int, n_calls: int, n_threads: int
) -> dict[str, Any]:
    """Many callers at once, every answer checked, memory watched."""
    draws = segments.zipf(made.n_segments, n_calls, seed=2)
    tally = _Tally()
    threads = [
        threading.Thread(target=_call_all, args=(ours.caller(), made, oracle, draws[start::n_threads].tolist(), tally))
        for start in range(n_threads)
    ]
    cpu_before, start = ours.cpu_s(), time.monotonic()
    for thread in threads:
        thread.start()
    timeline = _watch(ours, threads, tally)
    seconds = time.monotonic() - start
    most = max(point["resident_bytes"] for point in timeline)
    return {
        "calls": n_calls,
        "threads": n_threads,
        "seconds": seconds,
        "cpu_us_per_call": (ours.cpu_s() - cpu_before) / n_calls * 1e6,
        "wrong": tally.told["wrong"],
        "failures": tally.told["failed"],
        "not_ready": tally.told["not ready"],
        "hits": tally.told["hit"],
        "misses": tally.told["miss"],
        "most_resident_bytes": most,
        "looks": len(timeline),
        "over_budget": sum(point["resident_bytes"] > budget for point in timeline),
        "most_runtime_pss": max(point["runtime_pss"] for point in timeline),
        "hit_us": _percentiles(tally.hit_us),
        "miss_us": _percentiles(tally.miss_us),
        "timeline": timeline,
    }


def _call_all(caller: Caller, made: segments.Segments, oracle: Oracle, draws: Sequence[int], tally: _Tally) -> None:
    for number, segment in enumerate(draws):
        target, row = made.targets[segment], number % N_ROWS
        start = time.perf_counter()
        try:
            answer, told = _until_ready(caller, target, oracle.bodies[row], tally)
        except CallFailed as error:
            print(error, file=sys.stderr)
            with tally.lock:
                tally.told["failed"] += 1
            continue
        us = (time.perf_counter() - start) * 1e6
        is_hit = told == "cache=hit"
        with tally.lock:
            tally.told["hit" if is_hit else "miss"] += 1
            (tally.hit_us if is_hit else tally.miss_us).append(us)
            if not oracle.is_right(target, row, answer):
                tally.told["wrong"] += 1
    caller.close()


def _until_ready(caller: Caller, target: str, body: bytes, tally: _Tally) -> tuple[bytes, str]:
    """As an SDK does: "not ready" is tried again."""
    while True:
        try:
            return caller.call(target, body)
        except CallFailed as error:
            if error.status != NOT_READY:
                raise
            with tally.lock:
                tally.told["not ready"] += 1


def _watch(ours: Ours, threads: Sequence[threading.Thread], tally: _Tally) -> list[dict[str, float]]:
    """Looks at the endpoint until all callers have ended."""
    timeline: list[dict[str, float]] = []
    runtime = ours.runtime
    start = time.monotonic()
    while any(thread.is_alive() for thread in threads):
        with tally.lock:
            hits, misses = tally.told["hit"], tally.told["miss"]
        timeline.append(
            {
                "at_s": time.monotonic() - start,
                "hits": hits,
                "misses": misses,
                "resident_bytes": ours.figure("mme_loaded_model_bytes"),
                "loaded_models": ours.figure("mme_loaded_model_count"),
                "runtime_pss": processes.pss_bytes(runtime),
            }
        )
        time.sleep(LOOK_S)
    return timeline


def _percentiles(values: Sequence[float]) -> dict[str, float]:
    return {f"p{share}": float(np.percentile(values, share)) for share in (50, 90, 99)} if values else {}


def _print(serial: dict[str, Any], storm: dict[str, Any], budget: int) -> None:
    print(f"serial   {serial['calls']} calls, {serial['hits']} hits, {serial['evictions']} evictions; reference cache")
    print(
        f"         {serial['reference_evictions']} evictions; {serial['differences']} differences, {serial['wrong']} wrong"
    )
    print(
        f"storm    {storm['calls']} calls of {storm['threads']} threads in {storm['seconds']:.0f} s: {storm['hits']} hits,"
    )
    print(f"         {storm['misses']} misses, {storm['not_ready']} told to call again, {storm['failures']} failed")
    print(f"answers  {storm['wrong']} differ from the segment's own booster")
    print(f"memory   at most {storm['most_resident_bytes'] / 1e6:.2f} MB of a budget of {budget / 1e6:.2f} MB")
    print(f"         in {storm['looks']} looks, {storm['over_budget']} over it")


if __name__ == "__main__":
    sys.exit(main())
