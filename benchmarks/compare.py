"""Ours, stock MMS, and what one would write with uvicorn or Granian, in turn on this machine in one run.

    python -m benchmarks.compare [--segments 1000] [--rounds 3] [--seconds 5]

All serve the same boosters and answer the same calls: CSV, segments drawn by Zipf's law, all in memory; first one row over
8 connections and over one, then calls at random moments (ours and Granian's), then a hundred rows. Every server's first
answers are compared with XGBoost's. The echo is stock MMS around a handler that gives the body back: what MMS itself costs.
Stock MMS keeps two interpreters for each model, so it serves `--stock-models` of them; its memory is told per model. Cold
calls of ours are held against a bare GetObject from the same local S3; those of the others read a directory.

Ends with 1 when a target is missed. Ratios are of single rounds, and medians over them.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import numpy as np
import xgboost

from benchmarks import cold
from benchmarks.rig import record, segments
from benchmarks.rig.endpoints import Echo, Granian, Ours, Server, StockSageMaker, Uvicorn
from benchmarks.rig.open_load import Client, percentile_ms
from benchmarks.rig.s3_server import LocalS3
from benchmarks.rig.verdicts import Verdict, exit_status
from benchmarks.rig.warm import warm_up
from benchmarks.throughput import BODY, HUNDRED, MANY, N_DRAWS, ONE, best_echo, interleaved, median, median_ratio
from tests.rig.faulty_s3 import ENVIRONMENT

N_CHECKED = 20
CALLS_EACH = 5  # times the server's processes
MB = 1e6

OURS, ECHO, STOCK = Ours.name, Echo.name, StockSageMaker.name
UVICORN, GRANIAN_2 = Uvicorn.name, f"{Granian.name}, 2 processes"
# How many times the others' requests a second over 8 connections ours is to answer.
THROUGHPUT = {ECHO: 3.0, GRANIAN_2: 5.0, UVICORN: 8.0, STOCK: 5.0}
P50_TO_ECHO = 0.5  # on one connection
P99_TO_P50 = 4.0  # over 8 connections, of ours alone
CPU_US = 45.0  # of the whole tree for a request
OPEN_PER_S, OPEN_P99_MS = 2000.0, 2.0  # calls at random moments, and their p99
ROWS_TO_UVICORN = 3.0
MEMORY_TO_UVICORN, JVM_MB = 1.25, 100.0  # the whole tree, to one process with the same boosters and a JVM beside it


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--segments", type=int, default=1000)
    parser.add_argument("--stock-models", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=5, help="of each measurement")
    parser.add_argument("--echo-workers", type=int, default=0, help="0 tries 1 to 4 and takes the best")
    parser.add_argument("--cold", type=int, default=120, help="first calls, behind some that are not counted")
    chosen = parser.parse_args()
    cold_figures = _cold(segments.make(chosen.cold + cold.N_WARM_UP))
    made = segments.make(chosen.segments)
    draws = [made.targets[number] for number in segments.zipf(made.n_segments, N_DRAWS)]
    echo_workers = chosen.echo_workers or best_echo(draws)
    capacity = chosen.segments
    servers: list[Server] = [
        Ours(made.models, "--memory", "1GiB"),
        Echo(echo_workers),
        StockSageMaker(made),
        Uvicorn(made.models, capacity),
        Uvicorn(made.models, capacity, n_processes=2),
        Granian(made.models, capacity),
        Granian(made.models, capacity, n_processes=2),
    ]
    figures = _measure(servers, made, chosen.stock_models, chosen.rounds, chosen.seconds)
    verdicts = _verdicts(figures, cold_figures["above_ms"])
    _print(figures, cold_figures, echo_workers)
    facts = {"segments": chosen.segments, "servers": figures, "cold": cold_figures, "echo_workers": echo_workers}
    record.save("compare", {**facts, "verdicts": [one.facts() for one in verdicts]})
    return exit_status(verdicts)


def _cold(made: segments.Segments) -> dict[str, float]:
    os.environ.update(ENVIRONMENT)
    with LocalS3(made.models) as s3:
        calls = cold.interleaved(made.targets, s3)
    medians = {name: statistics.median(call[name] for call in calls) for name in calls[0]}
    return {**medians, "above_ms": medians["cold_ms"] - medians["get_ms"], "n_calls": len(calls)}


def _measure(
    servers: Sequence[Server], made: segments.Segments, n_stock: int, rounds: int, seconds: int
) -> dict[str, dict[str, Any]]:
    served = {
        server.title: made.targets[:n_stock] if isinstance(server, StockSageMaker) else made.targets
        for server in servers
    }
    figures = {}
    for server in servers:  # alone: pages of libraries that several servers have in common would count for none of them
        with server:
            figures[server.title] = _fill(server, made, served[server.title])
            _say(f"{server.title} alone: {figures[server.title]['busy_mb']:.0f} MB")
    draws = {
        name: [targets[number] for number in segments.zipf(len(targets), N_DRAWS)] for name, targets in served.items()
    }
    with ExitStack() as closing:
        running: dict[str, Server] = {}
        for server in servers:
            running[server.title] = closing.enter_context(server)
            if not isinstance(server, Echo):
                server.prepare(served[server.title])
                _call_all(server, served[server.title])
            _say(f"{server.title} is warm")
        runs = interleaved(running, draws, rounds=rounds, seconds=seconds, say=_say, loads=(MANY, ONE))
        # The echo would give a hundred rows back, which is nobody's measure.
        scoring = {name: server for name, server in running.items() if name != ECHO}
        opens = _open(running, draws, rounds, seconds)
        hundreds = interleaved(scoring, draws, rounds=rounds, seconds=seconds, say=_say, loads=(HUNDRED,))
    for name, p99s_ms in opens.items():
        figures[name]["open_p99_ms"] = statistics.median(p99s_ms)
    for name in running:
        figures[name]["runs"] = [
            one | more for one, more in zip(runs[name], hundreds.get(name, [{}] * rounds), strict=True)
        ]
    return figures


def _open(running: dict[str, Server], draws: dict[str, list[str]], rounds: int, seconds: int) -> dict[str, list[float]]:
    """p99 of calls at random moments, timed from when each was due: ours and who comes nearest, in turn."""
    p99s_ms: dict[str, list[float]] = {OURS: [], GRANIAN_2: []}
    for number in range(rounds):
        for name in (OURS, GRANIAN_2)[:: 1 if number % 2 else -1]:
            choose = partial(random.Random(number).choice, draws[name])
            with Client(running[name].port, BODY) as client:
                calls = client.open(choose, OPEN_PER_S, lambda since: since >= seconds)
            assert {call.status for call in calls} == {200}
            p99s_ms[name].append(percentile_ms(calls, 99))
        _say(
            f"round {number + 1}  open load, p99: "
            + "  ".join(f"{name} {ms[-1]:.2f} ms" for name, ms in p99s_ms.items())
        )
    return p99s_ms


def _fill(server: Server, made: segments.Segments, served: Sequence[str]) -> dict[str, Any]:
    """All models into memory, and what that took."""
    if isinstance(server, Echo):
        return {"busy_mb": server.memory_bytes() / MB}
    n_few = max(1, len(served) // 6)
    few, rest = served[:n_few], served[n_few:]
    cold_ms = _load(server, few)
    few_mb = server.memory_bytes() / MB
    cold_ms += _load(server, rest)
    loaded_mb = server.memory_bytes() / MB
    _check(server, made, served)
    return {
        "models": len(served),
        "cold_ms": cold_ms,
        "busy_mb": loaded_mb,
        # From a sixth of the models to all: what a server takes for its first calls is not a model's.
        "model_mb": (loaded_mb - few_mb) / len(rest),
    }


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
    _call_all(server, targets)
    return cold_ms


def _call_all(server: Server, targets: Sequence[str]) -> None:
    """So often that every process of the server has every model."""
    for _ in range(CALLS_EACH * server.n_caches):
        warm_up(server, targets, BODY)


def _check(server: Server, made: segments.Segments, served: Sequence[str]) -> None:
    """A fast wrong answer is no answer."""
    caller = server.caller()
    for load, n_rows in ((MANY, 1), (HUNDRED, 100)):
        matrix = xgboost.DMatrix(segments.rows(n_rows, seed=7), nthread=1)
        for target in served[:N_CHECKED]:
            answer, _ = caller.call(target, load.body)
            scores = np.array(answer.split(), np.float32)
            right = made.oracle(target).predict(matrix)
            assert np.array_equal(scores, right), f"{server.name} answers {answer[:80]!r} for {target}, not {right[:4]}"
    caller.close()


def _verdicts(figures: dict[str, dict[str, Any]], above_ms: float) -> list[Verdict]:
    runs = {name: one["runs"] for name, one in figures.items()}
    ours = runs[OURS]
    return [
        *(
            Verdict(
                f"requests a second, 8 connections, to {name}",
                median_ratio(ours, runs[name], "many", "requests_per_s"),
                "at least",
                least,
                "{:.2f} x",
            )
            for name, least in THROUGHPUT.items()
        ),
        Verdict(
            "p50, one connection, to the echo",
            median_ratio(ours, runs[ECHO], "one", "p50_us"),
            "at most",
            P50_TO_ECHO,
            "{:.2f} x",
        ),
        Verdict(
            "p99 to p50, 8 connections",
            statistics.median(run["many"]["p99_us"] / run["many"]["p50_us"] for run in ours),
            "at most",
            P99_TO_P50,
            "{:.2f} x",
        ),
        Verdict(
            "CPU a request, whole tree",
            median(ours, "many", "cpu_us"),
            "at most",
            CPU_US,
            "{:.1f} us",
        ),
        Verdict(
            f"p99, {OPEN_PER_S:,.0f} calls a second at random moments",
            figures[OURS]["open_p99_ms"],
            "at most",
            OPEN_P99_MS,
            "{:.2f} ms",
        ),
        Verdict(
            f"the same, to {GRANIAN_2}'s",
            figures[OURS]["open_p99_ms"],
            "at most",
            figures[GRANIAN_2]["open_p99_ms"],
            "{:.2f} ms",
        ),
        Verdict(
            f"rows a second, bodies of 100, to {UVICORN}",
            median_ratio(ours, runs[UVICORN], "hundred", "requests_per_s"),
            "at least",
            ROWS_TO_UVICORN,
            "{:.2f} x",
        ),
        Verdict(
            f"PSS of the tree, {figures[OURS]['models']:,} models; {UVICORN}'s x {MEMORY_TO_UVICORN:g} + {JVM_MB:g}",
            figures[OURS]["busy_mb"],
            "at most",
            MEMORY_TO_UVICORN * figures[UVICORN]["busy_mb"] + JVM_MB,
            "{:.0f} MB",
        ),
        Verdict("a cold call above a bare GetObject, median", above_ms, "at most", cold.TARGET_MS, "{:.1f} ms"),
    ]


def _print(figures: dict[str, dict[str, Any]], cold_figures: dict[str, float], echo_workers: int) -> None:
    heads = ("8 conn.", "p50", "p99", "1 conn. p50", "CPU", "100 rows", "cold", "memory", "models", "each")
    print(f"{'':22}" + "".join(f"{head:>12}" for head in heads))
    for name, one in figures.items():
        runs = one["runs"]
        cells = [
            f"{median(runs, 'many', 'requests_per_s'):,.0f}/s",
            f"{median(runs, 'many', 'p50_us') / 1e3:.2f} ms",
            f"{median(runs, 'many', 'p99_us') / 1e3:.1f} ms",
            f"{median(runs, 'one', 'p50_us'):.0f} us",
            f"{median(runs, 'many', 'cpu_us'):.0f} us",
        ]
        if "models" in one:
            cells += [
                f"{median(runs, 'hundred', 'requests_per_s') * 100:,.0f}/s",
                f"{statistics.median(one['cold_ms']):.1f} ms",
            ]
        cells += [""] * (7 - len(cells)) + [f"{one['busy_mb']:.0f} MB"]
        if "models" in one:
            cells += [f"{one['models']:,}", f"{one['model_mb']:.2f} MB"]
        print(f"{name:22}" + "".join(f"{cell:>12}" for cell in cells))
    print(
        f"The echo runs {echo_workers} workers. CPU is the server's, for each request; memory is PSS of the whole tree. Cold"
    )
    print("here is from a directory, one at a time, for stock MMS with its registration. From S3, ours:")
    print(f"{cold_figures['cold_ms']:.1f} ms, a bare GetObject {cold_figures['get_ms']:.1f} ms")


def _say(text: str) -> None:
    print(text, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
