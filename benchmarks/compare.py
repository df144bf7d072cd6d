"""Ours, stock MMS, and what one would write with uvicorn or Granian, in turn on this machine in one run.

    python -m benchmarks.compare [--segments 300] [--rounds 3]

All serve the same boosters and answer the same calls: one CSV row, segments drawn by Zipf's law, all in memory. Every
server's first answers are compared with XGBoost's. Stock MMS keeps two interpreters for each model, so it serves
`--stock-models` of them; its memory is told per model.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import xgboost

from benchmarks import record, segments
from benchmarks.endpoints import Granian, Ours, Server, StockSageMaker, Uvicorn
from benchmarks.throughput import BODY, N_DRAWS, interleaved, median
from benchmarks.warm import warm_up

N_CHECKED = 20
CALLS_EACH = 5  # after the first, so that every process of a server has loaded every model
MB = 1e6


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--segments", type=int, default=300)
    parser.add_argument("--stock-models", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0)
    chosen = parser.parse_args()
    made = segments.make(chosen.segments)
    capacity = chosen.segments
    servers: list[Server] = [
        Ours(made.models, "--memory", "1GiB"),
        StockSageMaker(made),
        Uvicorn(made.models, capacity),
        Uvicorn(made.models, capacity, n_processes=2),
        Granian(made.models, capacity),
        Granian(made.models, capacity, n_processes=2),
    ]
    figures = _measure(servers, made, chosen.stock_models, chosen.rounds, chosen.seconds)
    _print(figures)
    record.save("compare", {"segments": chosen.segments, "servers": figures})
    return 0


def _measure(
    servers: Sequence[Server], made: segments.Segments, n_stock: int, rounds: int, seconds: float
) -> dict[str, dict[str, Any]]:
    figures: dict[str, dict[str, Any]] = {}
    running: dict[str, Server] = {}
    draws: dict[str, list[str]] = {}
    with ExitStack() as closing:
        for server in servers:
            closing.enter_context(server)
            served = made.targets[:n_stock] if isinstance(server, StockSageMaker) else made.targets
            few, rest = served[: len(served) // 6], served[len(served) // 6 :]
            cold_ms = _load(server, few)
            few_mb = server.memory_bytes() / MB
            cold_ms += _load(server, rest)
            loaded_mb = server.memory_bytes() / MB
            _check(server, made, served)
            name = server.title
            running[name] = server
            draws[name] = [served[number] for number in segments.zipf(len(served), N_DRAWS)]
            figures[name] = {
                "models": len(served),
                "cold_ms": cold_ms,
                # From a sixth of the models to all: what a server takes for its first calls is not a model's.
                "model_mb": (loaded_mb - few_mb) / len(rest),
            }
            print(f"{name} is warm", file=sys.stderr)
        runs = interleaved(
            running, draws, rounds=rounds, seconds=seconds, say=lambda text: print(text, file=sys.stderr)
        )
        for name, server in running.items():
            figures[name] |= {"runs": runs[name], "busy_mb": server.memory_bytes() / MB}
    return figures


def _load(server: Server, targets: Sequence[str]) -> list[float]:
    """Get these into memory, everywhere the server keeps models; milliseconds of the first calls, one at a time."""
    start = time.perf_counter()
    server.prepare(targets)
    prepare_ms = (time.perf_counter() - start) * 1e3 / len(targets)
    caller = server.caller()
    cold_ms = []
    for target in targets:
        start = time.perf_counter()
        caller.call(target, BODY)
        cold_ms.append(prepare_ms + (time.perf_counter() - start) * 1e3)
    caller.close()
    for _ in range(CALLS_EACH * server.n_caches):
        warm_up(server, targets, BODY)
    return cold_ms


def _check(server: Server, made: segments.Segments, served: Sequence[str]) -> None:
    """A fast wrong answer is no answer."""
    row = segments.rows(1, seed=7)
    caller = server.caller()
    for target in served[:N_CHECKED]:
        answer, _ = caller.call(target, BODY)
        right = made.oracle(target).predict(xgboost.DMatrix(row, nthread=1))[0]
        assert np.float32(answer.decode()) == right, f"{server.name} answers {answer!r} for {target}, not {right}"
    caller.close()


def _print(figures: dict[str, dict[str, Any]]) -> None:
    print(f"{'':22}{'8 conn.':>10}{'p99':>10}{'1 conn. p50':>13}{'cold':>10}{'CPU':>9}{'memory':>10}{'a model':>10}")
    for name, one in figures.items():
        runs = one["runs"]
        cpu_us = statistics.median(each["cpu_us"] for each in runs)
        print(
            f"{name:22}{median(runs, 'many', 'requests_per_s'):>8.0f}/s{median(runs, 'many', 'p99_us') / 1e3:>7.1f} ms"
            f"{median(runs, 'one', 'p50_us'):>10.0f} us{statistics.median(one['cold_ms']):>7.1f} ms{cpu_us:>6.0f} us"
            f"{one['busy_mb']:>7.0f} MB{one['model_mb']:>7.2f} MB"
        )
    print("cold: first call, one at a time; for stock MMS with its registration. CPU: of the server, for each request.")


if __name__ == "__main__":
    sys.exit(main())
