"""All exporters on for ten minutes: every line valid, no count lost, and what the exporters cost.

    python -m benchmarks.telemetry [--seconds 600] [--rates 50 500 0] [--rounds 40]

First an endpoint with EMF on stdout, PutMetricData to a local CloudWatch, Prometheus scraped and the status page read,
called at several rates one after the other, and stopped as a platform stops it; then its counts against the client's.
Then endpoints with the exporters on and with them off, under full load in turn in one run. Off is measured twice: what
those two differ by is the noise.
"""

from __future__ import annotations

import argparse
import http
import itertools
import json
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.rig import exporters, record, segments, wrk
from benchmarks.rig.cloudwatch_server import LocalCloudWatch
from benchmarks.rig.endpoints import CallFailed, Ours
from benchmarks.rig.verdicts import Verdict, exit_status
from benchmarks.rig.warm import warm_up
from benchmarks.throughput import CONNECTIONS, N_DRAWS

BODY = segments.csv(segments.rows(1, seed=7))
MISSING = "missing.tar.gz"
MISSING_EVERY = 100  # calls of a client, one names a segment that is not there
READ_EVERY_S = 5.0  # Prometheus' scrape and the page; Prometheus' own default is a minute
REPORTS_A_RATE = 4  # at least, however short the run
COST_INTERVAL_S = 5.0  # twelve times as often as shipped, so that what is measured is no less than what is paid
LEAST_THROUGHPUT = 0.97
# A report's lines depend on how wide the distributions are, which more requests reach further into, but not without end.
MOST_LINES = 1.5


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--segments", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=600.0, help="of the run with all exporters on")
    parser.add_argument(
        "--rates", type=int, nargs="+", default=[50, 500, 0], help="calls a second; 0: what it can take"
    )
    parser.add_argument("--interval", type=float, default=10.0, help="seconds between reports in that run")
    parser.add_argument("--rounds", type=int, default=40, help="of open against shut")
    parser.add_argument(
        "--round-seconds", type=int, default=1, help="many short rounds: what else happens meets all alike"
    )
    chosen = parser.parse_args()
    made = segments.make(chosen.segments)
    interval_s = max(1.0, min(chosen.interval, chosen.seconds / len(chosen.rates) / REPORTS_A_RATE))
    run = run_open(made, chosen.rates, chosen.seconds, interval_s)
    cost = _cost(made, chosen.rounds, chosen.round_seconds)
    _print(run, cost)
    verdicts = _verdicts(run, cost)
    record.save("telemetry", {**run, "cost": cost, "verdicts": [one.facts() for one in verdicts]})
    return exit_status(verdicts)


# ------------------------------------------------------------------------------------------------------- counts and lines


@dataclass(frozen=True, slots=True)
class Phase:
    """One rate's part of the run. Times are seconds since the epoch."""

    rate: int
    begin_s: float
    end_s: float
    calls: int

    @property
    def per_s(self) -> float:
        return self.calls / (self.end_s - self.begin_s)


def run_open(made: segments.Segments, rates: Sequence[int], seconds: float, interval_s: float) -> dict[str, Any]:
    """An endpoint with all exporters on, called at each rate for its share of the time and then stopped; what all counted."""
    with tempfile.TemporaryDirectory() as scratch, LocalCloudWatch() as cloudwatch:
        lines_at = Path(scratch) / "stdout"
        flags = ("--memory", "1GiB", *exporters.flags(cloudwatch, interval_s))
        clients = _Clients(made)
        with Ours(made.models, *flags, environment=exporters.SWITCHES, output=lines_at) as ours, _readers(ours):
            phases = [clients.run(ours, rate, seconds / len(rates)) for rate in rates]
            time.sleep(0.2)  # an answer may be out a moment before it is in the book
            prometheus = exporters.of_prometheus(ours)
            timeline = json.loads(ours.admin("/status.json"))["history"]
        log = exporters.EmfLog(lines_at)
        sent = exporters.of_cloudwatch(cloudwatch)
        dropped = cloudwatch.total("ReportsDropped", "Sum", exporters.DIMENSIONS)
    return {
        "seconds": seconds,
        "interval_s": interval_s,
        "phases": [{**asdict(phase), "per_s": phase.per_s, **_report_size(phase, log, interval_s)} for phase in phases],
        "n_lines": len(log.sound),
        "problems": log.problems[:20],
        "n_problems": len(log.problems),
        "dropped": dropped,
        "counts": {
            "client": clients.counts(),
            "EMF": log.counts(),
            "CloudWatch": sent,
            "Prometheus": prometheus,
        },
        "timeline": timeline,
    }


@contextmanager
def _readers(server: Ours) -> Iterator[None]:
    """Prometheus and an operator with the page open."""
    is_over = threading.Event()

    def read() -> None:
        while not is_over.wait(READ_EVERY_S):
            server.admin("/metrics")
            server.admin("/status.json")

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield
    finally:
        is_over.set()
        reader.join()


class _Clients:
    """Callers on kept connections, and what they saw."""

    def __init__(self, made: segments.Segments) -> None:
        self._made = made
        self._draws = [made.targets[number] for number in segments.zipf(made.n_segments, N_DRAWS)]
        self._seen: Counter[str] = Counter()
        self._targets: set[str] = set()
        self._lock = threading.Lock()

    def counts(self) -> dict[str, int]:
        return {name: self._seen[name] for name in ("calls", "found", "hits", "refused")} | {
            "loads": len(self._targets)
        }

    def run(self, server: Ours, rate: int, seconds: float) -> Phase:
        """`rate` calls a second from all callers together, for so long."""
        begin_s, calls_before = time.time(), self._seen["calls"]
        ends_s = time.monotonic() + seconds
        callers = [
            threading.Thread(target=self._call, args=(server, number, rate / CONNECTIONS, ends_s))
            for number in range(CONNECTIONS)
        ]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
        phase = Phase(rate, begin_s, time.time(), self._seen["calls"] - calls_before)
        print(f"{phase.per_s:.0f} calls a second for {seconds:.0f} s", file=sys.stderr)
        return phase

    def _call(self, server: Ours, number: int, rate: float, ends_s: float) -> None:
        seen: Counter[str] = Counter()
        targets = set()
        caller = server.caller()
        due_s = time.monotonic()
        for at in itertools.count(number * N_DRAWS // CONNECTIONS):
            if rate:
                due_s += 1 / rate
                time.sleep(max(0.0, min(due_s, ends_s) - time.monotonic()))
            if time.monotonic() >= ends_s:
                break
            seen["calls"] += 1
            target = MISSING if at % MISSING_EVERY == 0 else self._draws[at % N_DRAWS]
            try:
                told = caller.call(target, BODY)[1]
            except CallFailed as error:
                if target != MISSING and error.status != http.HTTPStatus.TOO_MANY_REQUESTS:
                    raise
                seen["refused"] += 400 <= error.status < 500
                continue
            seen["found"] += 1
            seen["hits"] += told.startswith("cache=hit")
            targets.add(target)
        caller.close()
        with self._lock:
            self._seen += seen
            self._targets |= targets


def _report_size(phase: Phase, log: exporters.EmfLog, interval_s: float) -> dict[str, float]:
    """Lines and bytes of one report, over those that speak of this phase alone."""
    reports: dict[int, list[int]] = defaultdict(list)
    for line, document in log.sound:
        reports[document["_aws"]["Timestamp"]].append(len(line))
    inside = [sizes for at_ms, sizes in reports.items() if phase.begin_s + interval_s <= at_ms / 1e3 <= phase.end_s]
    return {
        "reports": len(inside),
        "lines_each": statistics.mean(map(len, inside)) if inside else 0.0,
        "bytes_each": statistics.mean(map(sum, inside)) if inside else 0.0,
    }


# ------------------------------------------------------------------------------------------------------------------- cost


def _cost(made: segments.Segments, rounds: int, seconds: int) -> dict[str, Any]:
    """Open and shut in turn, who is first changing: throughput and CPU a request, as ratios within a round."""
    draws = [("/invocations", made.targets[number]) for number in segments.zipf(made.n_segments, N_DRAWS)]
    figures: dict[str, list[dict[str, float]]] = {"open": [], "shut": [], "shut again": []}
    with ExitStack() as closing:
        cloudwatch = closing.enter_context(LocalCloudWatch())
        opened = Ours(
            made.models,
            "--memory",
            "1GiB",
            *exporters.flags(cloudwatch, COST_INTERVAL_S),
            environment=exporters.SWITCHES,
        )
        servers = {
            "open": closing.enter_context(opened),
            "shut": closing.enter_context(Ours(made.models, "--memory", "1GiB")),
            "shut again": closing.enter_context(Ours(made.models, "--memory", "1GiB")),
        }
        closing.enter_context(_readers(opened))
        for server in servers.values():
            warm_up(server, made.targets, BODY)
            wrk.run(server.port, draws, BODY, connections=CONNECTIONS, seconds=3)  # the JVM compiles
        names = list(servers)
        for number in range(rounds):
            for name in names[number % len(names) :] + names[: number % len(names)]:
                before_s = servers[name].cpu_s()
                run = wrk.run(servers[name].port, draws, BODY, connections=CONNECTIONS, seconds=seconds)
                cpu_us = (servers[name].cpu_s() - before_s) / run.requests * 1e6
                figures[name].append({"requests_per_s": run.requests_per_s, "cpu_us": cpu_us})
            print(
                f"round {number + 1}",
                *(f"{figures[name][-1]['requests_per_s']:.0f}/s" for name in names),
                file=sys.stderr,
            )
    return {
        "rounds": figures,
        "throughput": _ratios(figures, "open", "requests_per_s"),
        "cpu": _ratios(figures, "open", "cpu_us"),
        "noise": _ratios(figures, "shut again", "requests_per_s"),
        "cpu_noise": _ratios(figures, "shut again", "cpu_us"),
    }


def _ratios(figures: dict[str, list[dict[str, float]]], name: str, figure: str) -> dict[str, float]:
    """The open one to the mean of both shut ones, or one shut one to the other, round by round: median and quartiles."""
    ratios = []
    for one, shut, again in zip(figures[name], figures["shut"], figures["shut again"], strict=True):
        others = shut[figure] if name == "shut again" else (shut[figure] + again[figure]) / 2
        ratios.append(one[figure] / others)
    quartiles = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    return {"median": quartiles[1], "low": quartiles[0], "high": quartiles[2]}


# ---------------------------------------------------------------------------------------------------------------- verdict


def _verdicts(run: dict[str, Any], cost: dict[str, Any]) -> list[Verdict]:
    slow, fast = (pick(run["phases"], key=lambda phase: phase["per_s"]) for pick in (min, max))
    return [
        Verdict("lines that CloudWatch would not take as they are", run["n_problems"], "at most", 0, "{:.0f}"),
        *exporters.verdicts(run["counts"]),
        Verdict("reports dropped", run["dropped"], "at most", 0, "{:.0f}"),
        Verdict(
            f"lines of a report at {fast['per_s']:,.0f}/s to those at {slow['per_s']:,.0f}/s",
            fast["lines_each"] / slow["lines_each"],
            "at most",
            MOST_LINES,
            "{:.2f} x",
        ),
        Verdict(
            "throughput with all exporters on to that with all off",
            cost["throughput"]["median"],
            "at least",
            LEAST_THROUGHPUT,
            "{:.3f} x",
        ),
    ]


def _print(run: dict[str, Any], cost: dict[str, Any]) -> None:
    exporters.print_counts(run["counts"])
    print(f"{run['n_lines']} lines in {run['seconds']:.0f} s, a report every {run['interval_s']:g} s")
    for phase in run["phases"]:
        print(
            f"{phase['per_s']:>8,.0f} calls/s  {phase['lines_each']:.1f} lines and {phase['bytes_each']:,.0f} bytes a "
            f"report, over {phase['reports']} reports"
        )
    for problem in run["problems"]:
        print(f"wrong     {problem}")
    for words, name in (("open / shut", ""), ("shut again / shut", "noise")):
        per_s, cpu = cost[name or "throughput"], cost[f"cpu_{name}" if name else "cpu"]
        print(
            f"{words:18} throughput {per_s['median']:.3f} ({per_s['low']:.3f} to {per_s['high']:.3f})   "
            f"CPU a request {cpu['median']:.3f} ({cpu['low']:.3f} to {cpu['high']:.3f})"
        )
    print("medians of the rounds, and the middle half of them; the second line is noise and nothing else")


if __name__ == "__main__":
    sys.exit(main())
