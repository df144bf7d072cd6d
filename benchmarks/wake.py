"""From the start of a container to its first answer, and the first minute after it, with the warm list and without.

    python -m benchmarks.wake [--models 1000] [--rounds 2] [--seconds 60] [--latency 0] [--first] [--before CHECKOUT]

An endpoint is called by Zipf's law until it has noted its busiest models beside the live ones, and stopped. Then copies are
started in turns: one that knows nothing, one that preloads the list before it says ready (and, with --before, one of
another checkout that does). The artifacts are on an S3 of this machine that takes next to nothing of it.

ready and answered   seconds from the start; the second is when the busiest model has answered
CPU                  seconds of the tree until then, by member. On two idle cores the wall takes at least half of it
--first              where others are at work: until they have answered, the copies and S3 go first (root; see rig/first.py)
first minute         share of hits among calls that were answered, and those told to call again

Target: with the list, answered within 4 s of two idle cores. Every answer is held against XGBoost's own.
"""

from __future__ import annotations

import argparse
import re
import statistics
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import xgboost

from benchmarks.rig import processes, record, segments
from benchmarks.rig.endpoints import Caller, Ours
from benchmarks.rig.first import first
from benchmarks.rig.open_load import Call, Client, percentile_ms
from benchmarks.rig.quick_s3 import QuickS3
from benchmarks.rig.s3_server import BUCKET
from benchmarks.rig.warm import warm_up

TARGET_S = 4.0
EXPONENT = 1.1
ROW = segments.rows(1, seed=7)
BODY = segments.csv(ROW)
WARM = f"s3://{BUCKET}/warm/"
_READY = re.compile(rb"ready after ([\d.]+) s")
_PRELOADED = re.compile(rb"preloaded (\d+) models")


class Wake:
    """The endpoint that is woken, on one S3."""

    def __init__(self, made: segments.Segments, s3: QuickS3, per_s: float) -> None:
        self._made, self._s3, self._per_s = made, s3, per_s
        self._answers: dict[str, np.float32] = {}

    def endpoint(self, *flags: str, before: Path | None = None) -> Ours:
        source = ("--s3-endpoint-url", self._s3.url, "--memory", "1GiB", "--max-age", "0")
        return Ours(self._s3.location, *source, *flags, environment=self._s3.environment, before=before)

    @property
    def flags(self) -> tuple[str, ...]:
        return ("--warm", WARM, "--warm-models", str(self._made.n_segments), "--replica", "one")

    def note(self) -> None:
        """Have the list written: all models asked for, and some more than others."""
        with self.endpoint(*self.flags) as one:
            warm_up(one, self._made.targets, BODY)
            self._load(one, self._zipf(2 * self._made.n_segments, 1))

    def wake(self, seconds: float, *flags: str, before: Path | None = None, is_first: bool = False) -> dict[str, Any]:
        with ExitStack() as closing:
            with first(self._s3.pid) if is_first else nullcontext():
                began = time.monotonic()
                one = closing.enter_context(self.endpoint(*flags, before=before))
                caller = Caller(one)
                caller.call_until_ready(self._zipf(1, 2)[0], BODY)
                answered_s = time.monotonic() - began
                caller.close()
                cpu_s = _cpu_by_member(one)
            log = (one.scratch / "log").read_bytes()
            ready, preloaded = _READY.search(log), _PRELOADED.search(log)
            assert ready is not None
            calls = self._load(one, self._zipf(int(seconds * self._per_s), 2))
        answered = [call for call in calls if call.status == 200]
        return {
            "ready_s": float(ready[1]),
            "preloaded": 0 if preloaded is None else int(preloaded[1]),
            "answered_s": round(answered_s, 2),
            "cpu_s": round(sum(cpu_s.values()), 2),
            "cpu_by_member_s": cpu_s,
            "hits": round(sum(call.is_hit for call in answered) / max(1, len(answered)), 4),
            "calls": len(calls),
            "p99_ms": round(percentile_ms(calls, 99), 1),
            "trouble": self._trouble(calls),
        }

    def _zipf(self, n: int, seed: int) -> list[str]:
        return [self._made.targets[at] for at in segments.zipf(self._made.n_segments, n, EXPONENT, seed)]

    def _load(self, one: Ours, targets: Sequence[str]) -> list[Call]:
        if not targets:
            return []
        left = iter(targets)
        n_begun = 0

        def choose() -> str:
            nonlocal n_begun
            n_begun += 1
            return next(left, targets[-1])

        with Client(one.port, BODY) as client:
            return client.open(choose, self._per_s, lambda _: n_begun >= len(targets))

    def _trouble(self, calls: Sequence[Call]) -> dict[str, int]:
        wrong = sum(
            bool(np.float32(float(call.body)) != self._answer(call.target)) for call in calls if call.status == 200
        )
        return {"wrong": wrong, **Counter(str(call.status) for call in calls if call.status != 200)}

    def _answer(self, target: str) -> np.float32:
        if target not in self._answers:
            self._answers[target] = np.float32(self._made.oracle(target).predict(xgboost.DMatrix(ROW))[0])
        return self._answers[target]


def _cpu_by_member(one: Ours) -> dict[str, float]:
    """Readers count for the examiner that forked them."""
    found: dict[str, float] = {}
    for name, pids in one.members().items():
        found[name] = round(sum(processes.own_cpu_s(pid) for pid in pids), 2)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=60.0, help="of calls after the first; 0 leaves them out")
    parser.add_argument("--per-second", type=float, default=100.0)
    parser.add_argument("--latency", type=float, default=0.0, help="seconds that each answer of S3 takes")
    parser.add_argument("--first", action="store_true", help="the copies go before all else on this machine")
    parser.add_argument("--before", type=Path, help="another checkout, set up, started in turns with this one")
    chosen = parser.parse_args()
    made = segments.make(chosen.models)
    rounds: dict[str, list[dict[str, Any]]] = {}
    with QuickS3(made.models, chosen.latency) as s3:
        wake = Wake(made, s3, chosen.per_second)
        wake.note()
        ways: dict[str, tuple[tuple[str, ...], Path | None]] = {"cold": ((), None), "warm": (wake.flags, None)}
        if chosen.before is not None:
            ways["warm, before"] = (wake.flags, chosen.before)
        for n in range(chosen.rounds):
            for name, (flags, before) in ways.items() if n % 2 == 0 else reversed(ways.items()):
                seen = wake.wake(chosen.seconds, *flags, before=before, is_first=chosen.first)
                rounds.setdefault(name, []).append(seen)
                print(f"{name:<14}{seen}", flush=True)
    figures = {name: _medians(seen) for name, seen in rounds.items()}
    for name, one in figures.items():
        print(f"{name:<14}answered {one['answered_s']:.2f} s, {one['cpu_s']:.2f} s of CPU, hits {one['hits']:.1%}")
    print(f"target        answered within {TARGET_S:g} s of two idle cores")
    record.save("wake", {"models": chosen.models, "latency_s": chosen.latency, "medians": figures, "rounds": rounds})
    return 0 if any(one["trouble"]["wrong"] for seen in rounds.values() for one in seen) == 0 else 1


def _medians(seen: Sequence[dict[str, Any]]) -> dict[str, float]:
    return {name: statistics.median(one[name] for one in seen) for name in ("ready_s", "answered_s", "cpu_s", "hits")}


if __name__ == "__main__":
    sys.exit(main())
