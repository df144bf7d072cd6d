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
N_COLD = 60
MB = 1e6


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--segments", type=int, default=300)
    parser.add_argument("--stock-models", type=int, default=10)
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
            empty_bytes = server.memory_bytes()
            start = time.perf_counter()
            server.prepare(served)
            prepare_s = time.perf_counter() - start
            cold_ms = [_timed_ms(server, target) for target in served[:N_COLD]]
            if isinstance(server, StockSageMaker):
                cold_ms = [prepare_s / len(served) * 1e3] * len(served)  # its load is a call of its own
            for _ in range(server.n_caches * 4):  # each process of a server loads for itself
                warm_up(server, served, BODY)
            _check(server, made, served)
            name = server.title
            running[name] = server
            draws[name] = [served[number] for number in segments.zipf(len(served), N_DRAWS)]
            figures[name] = {
                "models": len(served),
                "cold_ms": cold_ms,
                "empty_mb": empty_bytes / MB,
                "loaded_mb": server.memory_bytes() / MB,
            }
            print(f"{name} is warm", file=sys.stderr)
        runs = interleaved(
            running, draws, rounds=rounds, seconds=seconds, say=lambda text: print(text, file=sys.stderr)
        )
        for name, server in running.items():
            figures[name] |= {"runs": runs[name], "busy_mb": server.memory_bytes() / MB}
    return figures


def _timed_ms(server: Server, target: str) -> float:
    caller = server.caller()
    start = time.perf_counter()
    caller.call(target, BODY)
    ms = (time.perf_counter() - start) * 1e3
    caller.close()
    return ms


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
        per_model_mb = (one["busy_mb"] - one["empty_mb"]) / one["models"]
        print(
            f"{name:22}{median(runs, 'many', 'requests_per_s'):>8.0f}/s{median(runs, 'many', 'p99_us') / 1e3:>7.1f} ms"
            f"{median(runs, 'one', 'p50_us'):>10.0f} us{statistics.median(one['cold_ms']):>7.1f} ms{cpu_us:>6.0f} us"
            f"{one['busy_mb']:>7.0f} MB{per_model_mb:>7.2f} MB"
        )
    print("cold: first call, one at a time; for stock MMS its registration. CPU: of the server, for each request.")


if __name__ == "__main__":
    sys.exit(main())
