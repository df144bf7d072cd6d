"""Throughput and latency, as a ratio to the same MMS with a handler that gives the body back.

    python -m benchmarks.throughput [--rounds 5] [--seconds 5] [--before CHECKOUT]

Both servers run all the time and are measured in turn, so that what else the machine does meets both. One CSV row of 6
numbers per call; ours draws from 1,000 segments by Zipf's law, all in memory. With --before the same endpoint of another
checkout, set up, is a third: what has been gained since. Ends with 1 when a target is missed.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.rig import record, segments, wrk
from benchmarks.rig.endpoints import Echo, Ours, Server
from benchmarks.rig.verdicts import Verdict, exit_status
from benchmarks.rig.warm import warm_up

CONNECTIONS, MANY_CONNECTIONS = 8, 64
TO_ECHO, P50_TO_ECHO = 3.0, 0.5  # requests a second over 8 connections; p50 on one
CPU_US = 45.0  # of the whole tree, for a request
TO_BEFORE = 3.0  # requests a second over 64 connections
N_DRAWS = 20_000
# After six, Java still compiled through the first run: its p99 was 5.8 times p50, and in the next three 2.2 to 3.6.
WARM_UP_S = 10
BODY = segments.csv(segments.rows(1, seed=7))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--segments", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=5, help="of each measurement")
    parser.add_argument("--echo-workers", type=int, default=0, help="0 tries 1 to 4 and takes the best")
    parser.add_argument("--before", type=Path, help="another checkout, set up, to be measured beside this one")
    chosen = parser.parse_args()
    made = segments.make(chosen.segments)
    draws = [made.targets[number] for number in segments.zipf(chosen.segments, N_DRAWS)]
    echo_workers = chosen.echo_workers or best_echo(draws)
    servers: dict[str, Server] = {"ours": Ours(made.models, "--memory", "1GiB"), "echo": Echo(echo_workers)}
    if chosen.before is not None:
        servers["before"] = Ours(made.models, "--memory", "1GiB", before=chosen.before)
    with ExitStack() as running:
        for server in servers.values():
            running.enter_context(server)
            if isinstance(server, Ours):
                warm_up(server, made.targets, BODY)
        figures = interleaved(
            servers, draws, rounds=chosen.rounds, seconds=chosen.seconds, say=_say, loads=(MANY, ONE, SIXTY_FOUR)
        )
    verdicts = _verdicts(figures)
    _print(figures, echo_workers)
    record.save(
        "throughput", {"runs": figures, "echo_workers": echo_workers, "verdicts": [v.facts() for v in verdicts]}
    )
    return exit_status(verdicts)


def _verdicts(figures: dict[str, list[dict[str, Any]]]) -> list[Verdict]:
    ours, echo = figures["ours"], figures["echo"]
    fast = median_ratio(ours, echo, "many", "requests_per_s")
    quick = median_ratio(ours, echo, "one", "p50_us")
    verdicts = [
        Verdict("requests a second, 8 connections, to the echo", fast, "at least", TO_ECHO, "{:.2f} x"),
        Verdict("p50, one connection, to the echo", quick, "at most", P50_TO_ECHO, "{:.2f} x"),
        Verdict("CPU a request, whole tree", median(ours, "many", "cpu_us"), "at most", CPU_US, "{:.1f} us"),
    ]
    if "before" in figures:
        gained = median_ratio(ours, figures["before"], "sixty_four", "requests_per_s")
        verdicts.append(
            Verdict("requests a second, 64 connections, to before", gained, "at least", TO_BEFORE, "{:.2f} x")
        )
    return verdicts


def best_echo(draws: Sequence[str]) -> int:
    """How many workers suit the echo best on this machine: whoever is compared shall be at its best."""
    speeds = {}
    for workers in (1, 2, 3, 4):
        with Echo(workers) as echo:
            _measure(echo, draws, MANY, 2)
            speeds[workers] = _measure(echo, draws, MANY, 3)["requests_per_s"]
            _say(f"echo with {workers} workers: {speeds[workers]:.0f}/s")
    return max(speeds, key=speeds.__getitem__)


@dataclass(frozen=True, slots=True)
class Load:
    """What wrk does to a server, and the name under which its figures stand."""

    name: str
    connections: int
    body: bytes


MANY, ONE = Load("many", CONNECTIONS, BODY), Load("one", 1, BODY)
SIXTY_FOUR = Load("sixty_four", MANY_CONNECTIONS, BODY)
HUNDRED = Load("hundred", CONNECTIONS, segments.csv(segments.rows(100, seed=7)))


def interleaved(
    servers: dict[str, Server],
    draws: Sequence[str] | dict[str, list[str]],
    *,
    rounds: int,
    seconds: int,
    say: Callable[[str], None],
    loads: Sequence[Load] = (MANY, ONE),
) -> dict[str, list[dict[str, Any]]]:
    """A B A B ...: in each round every server under the first load, then every server under the next.

    draws     targets in the order of the calls; by server, where not all have the same
    returns   by server, a list of rounds, each with a run by the load's name: wrk's figures and `cpu_us`, the server's CPU
              for each request
    """
    own = draws if isinstance(draws, dict) else dict.fromkeys(servers, draws)
    for name, server in servers.items():
        _measure(server, own[name], loads[0], WARM_UP_S)
    figures: dict[str, list[dict[str, Any]]] = {name: [{} for _ in range(rounds)] for name in servers}
    names = list(servers)
    for number in range(rounds):
        for load in loads:
            for name in names[number % len(names) :] + names[: number % len(names)]:  # who is first changes
                figures[name][number][load.name] = _measure(servers[name], own[name], load, seconds)
        for name in names:
            runs = figures[name][number].items()
            say(
                f"round {number + 1}  {name:24}"
                + "".join(f"{key} {run['requests_per_s']:6.0f}/s  " for key, run in runs)
            )
    return figures


def _measure(server: Server, draws: Sequence[str], load: Load, seconds: int) -> dict[str, Any]:
    calls = [(server.path(target), target) for target in draws]
    before_s = server.cpu_s()
    run = wrk.run(server.port, calls, load.body, connections=load.connections, seconds=seconds)
    return {**asdict(run), "cpu_us": (server.cpu_s() - before_s) / run.requests * 1e6}


def median_ratio(ours: list[dict[str, Any]], theirs: list[dict[str, Any]], part: str, figure: str) -> float:
    """The median over rounds of ours to theirs in the same round, which noise that lasts for seconds does not move."""
    return statistics.median(float(a[part][figure] / b[part][figure]) for a, b in zip(ours, theirs, strict=True))


def median(rounds: list[dict[str, Any]], part: str, figure: str) -> float:
    return statistics.median(float(one[part][figure]) for one in rounds)


def _print(figures: dict[str, list[dict[str, Any]]], echo_workers: int) -> None:
    heads = ("8 connections", "p50", "p99", "CPU", "1 connection", "p50", "64 connections", "p99")
    print(f"{'':8}" + "".join(f"{head:>15}" for head in heads))
    for name, rounds in figures.items():
        cells = (
            f"{median(rounds, 'many', 'requests_per_s'):,.0f}/s",
            f"{median(rounds, 'many', 'p50_us'):.0f} us",
            f"{median(rounds, 'many', 'p99_us'):.0f} us",
            f"{median(rounds, 'many', 'cpu_us'):.1f} us",
            f"{median(rounds, 'one', 'requests_per_s'):,.0f}/s",
            f"{median(rounds, 'one', 'p50_us'):.0f} us",
            f"{median(rounds, 'sixty_four', 'requests_per_s'):,.0f}/s",
            f"{median(rounds, 'sixty_four', 'p99_us'):.0f} us",
        )
        print(f"{name:8}" + "".join(f"{cell:>15}" for cell in cells))
    if "before" in figures:
        for load in ("many", "one", "sixty_four"):
            gained = median_ratio(figures["ours"], figures["before"], load, "requests_per_s")
            cpu = median_ratio(figures["ours"], figures["before"], load, "cpu_us")
            p50 = median_ratio(figures["ours"], figures["before"], load, "p50_us")
            print(f"of before, {load}: {gained:.2f} x the requests a second, {cpu:.2f} the CPU, {p50:.2f} the p50")
    generator_us = median(figures["ours"], "many", "generator_cpu_us")
    print(f"echo runs {echo_workers} workers; wrk itself takes {generator_us:.1f} us of CPU a request, so it could")
    print(f"send {1e6 / generator_us:,.0f}/s if it had a core to itself")


def _say(text: str) -> None:
    print(text, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
