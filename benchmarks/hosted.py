"""Hosted mode at its promised size: `python -m benchmarks.hosted scale|churn|restart|stall|calls`.

scale    1,000 models loaded through POST /models, each asked, all deleted: times, memory, threads, descriptors, sockets
churn    8 threads that load, invoke and unload 50 models at random for five minutes; every answer is checked
restart  the runtime killed with 50 models loaded: when each answers again
calls    warm invokes of 50 models beside those of --before, another checkout, set up: requests a second, p50, CPU
stall    invokes of a warm model while others are loaded and unloaded, and while one large model is: their latency

Models have about 70 KB and differ; each answer is compared with what XGBoost's own package says. Flags that are not listed
here go to `mme serve`. Ends with 1 where a target is missed; figures go to out/hosted-WHAT.json.
"""

from __future__ import annotations

import argparse
import collections
import http.client
import json
import os
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import xgboost

from benchmarks.rig import record
from benchmarks.rig.endpoints import Hosted, Server
from benchmarks.throughput import Load, interleaved, median, median_ratio

# What has been promised.
LOAD_ALL_S = 60.0
LOADED_MB = 900.0
GROWN_MB = 40.0
CALLS_RATIO, P50_RATIO = 3.0, 0.4  # to the commit before calls went past MMS
STALL_RATIO = 3.0  # of p99 with and without loads beside it, which also compete for the processors
STALL_FLOOR_MS = 50.0
# Pools start their threads on first use, and log and sockets open their descriptors; none for each model.
FEW_THREADS, FEW_DESCRIPTORS = 24, 16
CALM_S = 2.0  # after readiness MMS starts and ends a metric collector

N_DIFFERENT = 16
N_FEATURES = 20
JSON = {"Content-Type": "application/json"}
CSV = {"Content-Type": "text/csv"}


class Models:
    """Bundles on disk: model `m7` is `<root>/m7/model/xgboost-model`."""

    def __init__(self, root: Path, n_models: int) -> None:
        rng = np.random.default_rng(0)
        x = rng.random((800, N_FEATURES), dtype=np.float32)
        self.row = rng.random((1, N_FEATURES), dtype=np.float32)
        self.body = ",".join(map(str, self.row[0].tolist()))
        self._expected: list[float] = []
        documents: list[bytes] = []
        for seed in range(min(N_DIFFERENT, n_models)):
            y = (x @ np.random.default_rng(seed).random(N_FEATURES, dtype=np.float32)) * (1 + seed)
            booster = xgboost.train({"max_depth": 5, "nthread": 2}, xgboost.DMatrix(x, y), 24)
            self._expected.append(float(booster.predict(xgboost.DMatrix(self.row))[0]))
            documents.append(bytes(booster.save_raw("ubj")))
        self.mean_bytes = statistics.mean(map(len, documents))
        self.paths = [root / f"m{number}" / "model" for number in range(n_models)]
        for number, path in enumerate(self.paths):
            path.mkdir(parents=True)
            (path / "xgboost-model").write_bytes(documents[number % len(documents)])

    def add_large(self) -> int:
        """A model that takes seconds to load; its number."""
        rng = np.random.default_rng(1)
        data = xgboost.DMatrix(rng.random((6000, N_FEATURES)), rng.random(6000))
        booster = xgboost.train({"max_depth": 12, "nthread": 2, "min_child_weight": 0}, data, 240)
        path = self.paths[0].parent.parent / "large" / "model"
        path.mkdir(parents=True)
        (path / "xgboost-model").write_bytes(bytes(booster.save_raw("ubj")))
        self.paths.append(path)
        return len(self.paths) - 1

    def is_right(self, number: int, answer: bytes) -> bool:
        return bool(np.isclose(float(answer), self._expected[number % len(self._expected)], rtol=1e-5))


class Served:
    """`mme serve --hosted` as a process tree."""

    def __init__(self, port: int, scratch: str, flags: Iterable[str]) -> None:
        self.port = port
        self.scratch = Path(scratch)
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "container.operate.main", "serve", "--hosted", "--log-level", "warning"),
                *("--port", str(port), "--scratch", scratch, *flags),
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self._process.stdout.readline()

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(60)

    @property
    def supervisor(self) -> psutil.Process:
        return psutil.Process(self._process.pid)

    @property
    def runtime(self) -> psutil.Process:
        return next(one for one in self.supervisor.children() if "container.worker" in one.cmdline())

    def tree(self) -> dict[str, tuple[int, float, int, int]]:
        """By kind: processes, MB of PSS, threads, descriptors."""
        sums: dict[str, list[float]] = {}
        for one in [self.supervisor, *self.supervisor.children(recursive=True)]:
            try:
                row = (1, _pss_mb(one.pid), one.num_threads(), one.num_fds())
                line = one.cmdline()
            except (psutil.Error, OSError):
                continue
            kind = "jvm" if "-Dmodel_server_home" in " ".join(line) else "runtime" if "container.worker" in line else ""
            kind = kind or ("examiner" if "container.examine.examiner" in line else "")
            kind = kind or ("supervisor" if one.pid == self._process.pid else "other")
            sums[kind] = [a + b for a, b in zip(sums.get(kind, [0, 0, 0, 0]), row, strict=True)]
        return {kind: (int(n), round(mb, 1), int(t), int(d)) for kind, (n, mb, t, d) in sums.items()}


def _pss_mb(pid: int) -> float:
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    match = re.search(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)
    return int(match[1]) / 1024 if match else 0.0


class Caller:
    """One kept connection to the container."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)

    def call(
        self, method: str, path: str, body: str | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, bytes]:
        self._connection.request(method, path, body, headers or {})
        response = self._connection.getresponse()
        return response.status, response.read()

    def load(self, number: int, models: Models) -> tuple[int, bytes]:
        body = json.dumps({"model_name": f"m{number}", "url": str(models.paths[number])})
        return self.call("POST", "/models", body, JSON)

    def invoke(self, number: int, models: Models) -> tuple[int, bytes]:
        return self.call("POST", f"/models/m{number}/invoke", models.body, CSV)

    def unload(self, number: int) -> tuple[int, bytes]:
        return self.call("DELETE", f"/models/m{number}")


@dataclass
class Report:
    """Figures, printed as they come, and targets that were missed."""

    figures: dict[str, Any] = field(default_factory=dict)
    missed: list[str] = field(default_factory=list)

    def tell(self, name: str, text: str, value: object) -> None:
        print(f"{name:28} {text}", flush=True)
        self.figures[name] = value

    def expect(self, what: str, is_met: bool | np.bool_) -> None:
        is_met = bool(is_met)
        print(f"{'met' if is_met else 'MISSED':28} {what}", flush=True)
        self.figures.setdefault("targets", {})[what] = is_met
        if not is_met:
            self.missed.append(what)

    def memory(self, name: str, served: Served) -> dict[str, tuple[int, float, int, int]]:
        tree = served.tree()
        total = sum(row[1] for row in tree.values())
        self.tell(
            name, f"{total:8.1f} MB PSS   " + "  ".join(f"{kind} {row}" for kind, row in sorted(tree.items())), tree
        )
        return tree


def _mb(tree: dict[str, tuple[int, float, int, int]]) -> float:
    return sum(row[1] for row in tree.values())


def _each(
    report: Report, what: str, n_models: int, n_threads: int, port: int, step: Callable[[Caller, int], bool]
) -> float:
    """Seconds for all. Every step has to be fine."""
    local = threading.local()
    took: list[float] = []
    failed: list[int] = []

    def one(number: int) -> None:
        if not hasattr(local, "caller"):
            local.caller = Caller(port)
        start = time.perf_counter()
        is_fine = step(local.caller, number)
        took.append((time.perf_counter() - start) * 1e3)
        if not is_fine:
            failed.append(number)

    start = time.perf_counter()
    with ThreadPoolExecutor(n_threads) as executor:
        list(executor.map(one, range(n_models)))
    total = time.perf_counter() - start
    p50, p99 = np.percentile(took, [50, 99])
    report.tell(
        what,
        f"{total:8.1f} s   p50 {p50:.1f} ms  p99 {p99:.1f} ms  max {max(took):.1f} ms  failed {len(failed)}",
        {"s": total, "p50_ms": p50, "p99_ms": p99, "max_ms": max(took), "failed": len(failed)},
    )
    report.expect(f"{what}: all {n_models} right", not failed)
    return total


def scale(chosen: argparse.Namespace, served: Served, models: Models) -> Report:
    report = Report()
    time.sleep(CALM_S)
    before = report.memory("start", served)
    load_s = _each(report, "load", chosen.models, chosen.threads, served.port, lambda c, n: c.load(n, models)[0] == 200)
    report.expect(f"load: at most {LOAD_ALL_S:.0f} s", load_s <= LOAD_ALL_S)
    report.memory("loaded", served)

    def ask(caller: Caller, number: int) -> bool:
        status, answer = caller.invoke(number, models)
        return status == 200 and models.is_right(number, answer)

    _each(report, "invoke", chosen.models, chosen.threads, served.port, ask)
    asked = report.memory("asked", served)
    report.expect(f"asked: the whole tree at most {LOADED_MB:.0f} MB", _mb(asked) <= LOADED_MB)
    _each(report, "delete", chosen.models, chosen.threads, served.port, lambda c, n: c.unload(n)[0] == 200)
    report.memory("deleted", served)
    time.sleep(chosen.settle)
    after = report.memory(f"deleted, {chosen.settle:.0f} s later", served)
    grown = _mb(after) - _mb(before)
    report.tell("grown by", f"{grown:8.1f} MB", grown)
    report.expect(f"memory within {GROWN_MB:.0f} MB of the start", grown <= GROWN_MB)
    _expect_nothing_left(report, served, before, after)
    return report


def _expect_nothing_left(
    report: Report,
    served: Served,
    before: dict[str, tuple[int, float, int, int]],
    after: dict[str, tuple[int, float, int, int]],
) -> None:
    threads, descriptors = (
        sum(row[column] for row in after.values()) - sum(row[column] for row in before.values()) for column in (2, 3)
    )
    report.expect(f"no thread left ({threads} more, in pools)", threads <= FEW_THREADS)
    report.expect(f"no descriptor left ({descriptors} more)", descriptors <= FEW_DESCRIPTORS)
    report.expect("no other process left", "other" not in after)
    sockets = [path.name for path in served.scratch.glob("mme-*/tmp/.mms.sock.*")]
    report.expect(f"no socket left ({len(sockets)})", not sockets)


CONTRACT = {"load": {200, 409, 507}, "invoke": {200, 404, 503}, "unload": {200, 404}}


def churn(chosen: argparse.Namespace, served: Served, models: Models) -> Report:
    report = Report()
    time.sleep(CALM_S)
    before = report.memory("start", served)
    counts: collections.Counter[tuple[str, int]] = collections.Counter()
    wrong: list[str] = []
    slowest = collections.Counter[str]()
    until = time.monotonic() + chosen.seconds

    def work(seed: int) -> None:
        choice = random.Random(seed)
        caller = Caller(served.port)
        while time.monotonic() < until:
            number = choice.randrange(chosen.models)
            what = choice.choices(["load", "invoke", "unload"], [3, 6, 2])[0]
            start = time.perf_counter()
            try:
                if what == "load":
                    status, answer = caller.load(number, models)
                elif what == "invoke":
                    status, answer = caller.invoke(number, models)
                else:
                    status, answer = caller.unload(number)
            except (OSError, http.client.HTTPException) as error:
                wrong.append(f"{what} m{number}: {error!r}")
                caller = Caller(served.port)
                continue
            counts[what, status] += 1
            slowest[what] = max(slowest[what], round((time.perf_counter() - start) * 1e3))
            if status not in CONTRACT[what]:
                wrong.append(f"{what} m{number}: {status} {answer!r}")
            if what == "invoke" and status == 200 and not models.is_right(number, answer):
                wrong.append(f"m{number} answered {answer!r}")

    threads = [threading.Thread(target=work, args=[seed]) for seed in range(chosen.threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for (what, status), n_calls in sorted(counts.items()):
        report.tell(f"{what} {status}", str(n_calls), n_calls)
    report.tell("slowest, ms", str(dict(slowest)), dict(slowest))
    report.tell("wrong", "\n  ".join([str(len(wrong)), *wrong[:10]]), wrong)
    report.expect("every answer right or a status of the contract", not wrong)
    report.expect("healthy at the end", Caller(served.port).call("GET", "/ping")[0] == 200)
    for number in range(chosen.models):
        Caller(served.port).unload(number)
    listed = json.loads(Caller(served.port).call("GET", "/models")[1])
    report.expect("no model left", listed == {"models": []})
    time.sleep(chosen.settle)
    after = report.memory(f"deleted, {chosen.settle:.0f} s later", served)
    _expect_nothing_left(report, served, before, after)
    return report


def restart(chosen: argparse.Namespace, served: Served, models: Models) -> Report:
    report = Report()
    _each(report, "load", chosen.models, chosen.threads, served.port, lambda c, n: c.load(n, models)[0] == 200)
    os.kill(served.runtime.pid, signal.SIGKILL)
    start = time.perf_counter()
    pending = set(range(chosen.models))
    statuses: collections.Counter[int] = collections.Counter()
    while pending and time.perf_counter() - start < 120:
        for number in sorted(pending):
            try:
                status, answer = Caller(served.port).invoke(number, models)
            except OSError:
                status, answer = 0, b""
            statuses[status] += 1
            if status == 200 and models.is_right(number, answer):
                pending.discard(number)
    took = time.perf_counter() - start
    report.tell("all answer again after", f"{took:8.1f} s   calls by status {dict(statuses)}", took)
    report.expect(f"all {chosen.models} answer again", not pending)
    return report


def stall(chosen: argparse.Namespace, served: Served, models: Models) -> Report:
    report = Report()
    large = models.add_large()
    Caller(served.port).load(0, models)
    callers = [Caller(served.port) for _ in range(chosen.connections)]
    is_over = threading.Event()
    large_ms: list[float] = []

    def small(numbers: range) -> None:
        caller = Caller(served.port)
        while not is_over.is_set():
            for number in numbers:
                caller.load(number, models)
                caller.unload(number)

    def one_large() -> None:
        caller = Caller(served.port)
        while not is_over.is_set():
            start = time.perf_counter()
            status, answer = caller.load(large, models)
            large_ms.append((time.perf_counter() - start) * 1e3)
            if status != 200:
                raise SystemExit(f"the large model was not loaded: {status} {answer!r}")
            caller.unload(large)

    share = (chosen.models - 1) // chosen.threads
    ranges = [range(1 + k * share, 1 + (k + 1) * share) for k in range(chosen.threads)]
    p99s: dict[str, float] = {}
    for what, disturbers in (
        ("quiet", []),
        ("loads and unloads", [threading.Thread(target=small, args=[numbers]) for numbers in ranges]),
        ("a large model's loads", [threading.Thread(target=one_large)]),
    ):
        is_over.clear()
        for thread in disturbers:
            thread.start()
        took = _invokes(callers, models, time.monotonic() + chosen.seconds)
        is_over.set()
        for thread in disturbers:
            thread.join()
        p50, p99, worst = np.percentile(took, [50, 99, 100])
        p99s[what] = p99
        report.tell(
            what,
            f"{len(took)} invokes over {len(callers)} connections: p50 {p50:.2f}  p99 {p99:.2f}  max {worst:.1f} ms",
            {"invokes": len(took), "p50_ms": p50, "p99_ms": p99, "max_ms": worst},
        )
        if disturbers:
            limit = max(STALL_FLOOR_MS, STALL_RATIO * p99s["quiet"])
            report.expect(f"{what}: p99 at most {limit:.1f} ms", p99 <= limit)
    report.tell("large model", f"{len(large_ms)} loads of {statistics.mean(large_ms):.0f} ms", large_ms)
    limit = max(STALL_FLOOR_MS, statistics.mean(large_ms) / 2)
    report.expect(f"no invoke waits for the large model's load: none over {limit:.0f} ms", worst < limit)
    return report


def _invokes(callers: list[Caller], models: Models, until: float) -> list[float]:
    """Milliseconds of each invoke of model 0, one connection after the other."""
    took = []
    while time.monotonic() < until:
        for caller in callers:
            start = time.perf_counter()
            status, answer = caller.invoke(0, models)
            took.append((time.perf_counter() - start) * 1e3)
            if status != 200 or not models.is_right(0, answer):
                raise SystemExit(f"wrong: {status} {answer!r}")
    return took


def calls(chosen: argparse.Namespace, flags: Sequence[str]) -> Report:
    """Servers of its own, in turn, with the rounds and loads of `throughput`."""
    report = Report()
    with tempfile.TemporaryDirectory(prefix="mb-") as directory:
        models = Models(Path(directory), chosen.models)
        names = [f"m{number}" for number in range(chosen.models)]
        servers: dict[str, Server] = {"ours": Hosted(directory, *flags)}
        if chosen.before is not None:
            servers["before"] = Hosted(directory, *flags, before=chosen.before)
        body = models.body.encode()
        loads = [Load("many", 8, body), Load("one", 1, body), Load("sixty_four", 64, body)]
        with ExitStack() as running:
            for server in servers.values():
                running.enter_context(server)
                server.prepare(names)
            figures = interleaved(
                servers, names, rounds=chosen.rounds, seconds=int(chosen.seconds), say=print, loads=loads
            )
            for name, server in servers.items():
                report.tell(f"{name}, memory", f"{server.memory_bytes() / 1e6:8.1f} MB PSS", server.memory_bytes())
    report.figures["runs"] = figures
    for load in loads:
        for name, rounds in figures.items():
            figure = {
                what: median(rounds, load.name, what) for what in ("requests_per_s", "p50_us", "p99_us", "cpu_us")
            }
            report.tell(
                f"{name}, {load.connections} connections",
                "{requests_per_s:8,.0f}/s   p50 {p50_us:.0f} us  p99 {p99_us:.0f} us  CPU {cpu_us:.1f} us".format(
                    **figure
                ),
                figure,
            )
    if "before" in figures:
        gained = median_ratio(figures["ours"], figures["before"], "many", "requests_per_s")
        report.expect(f"8 connections: at least {CALLS_RATIO:g} x before's ({gained:.2f})", gained >= CALLS_RATIO)
        p50 = median_ratio(figures["ours"], figures["before"], "one", "p50_us")
        report.expect(f"one connection: p50 at most {P50_RATIO:g} of before's ({p50:.2f})", p50 <= P50_RATIO)
    return report


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["scale", "churn", "restart", "stall", "calls"])
    parser.add_argument("--models", type=int, help="default 1000 for scale, else 50")
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--seconds", type=float, help="default 300 for churn, else 20")
    parser.add_argument(
        "--settle", type=float, default=85, help="Java keeps idle threads for 60 s, and tidies up behind them"
    )
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--port", type=int, default=21480)
    parser.add_argument("--before", type=Path, help="of calls: another checkout, set up")
    parser.add_argument("--rounds", type=int, default=5, help="of calls")
    chosen, flags = parser.parse_known_args()
    chosen.models = chosen.models or (1000 if chosen.what == "scale" else 50)
    chosen.seconds = chosen.seconds or {"churn": 300.0, "calls": 5.0}.get(chosen.what, 20.0)
    if chosen.what == "calls":
        report = calls(chosen, flags)
        record.save("hosted-calls", report.figures)
        return 1 if report.missed else 0
    with tempfile.TemporaryDirectory(prefix="mb-") as directory:
        models = Models(Path(directory) / "models", chosen.models)
        print(f"{chosen.models} models of {models.mean_bytes / 1000:.0f} KB")
        served = Served(chosen.port, directory, flags)
        try:
            report = {"scale": scale, "churn": churn, "restart": restart, "stall": stall}[chosen.what](
                chosen, served, models
            )
        finally:
            served.stop()
    record.save(f"hosted-{chosen.what}", report.figures)
    return 1 if report.missed else 0


if __name__ == "__main__":
    sys.exit(main())
