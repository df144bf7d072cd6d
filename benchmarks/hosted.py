"""Hosted mode at its promised size: `python -m benchmarks.hosted scale|churn|restart|stall`.

scale    N models loaded through POST /models, each asked, all deleted: times, memory, threads, descriptors
churn    threads that load, invoke and unload M models at random; every answer is checked
restart  the runtime killed with N models loaded: when each answers again
stall    invokes of a warm model while others are loaded and unloaded: their latency

Models have about 70 KB and differ; each answer is compared with what XGBoost's own package says.
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
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import xgboost

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

    def is_right(self, number: int, answer: bytes) -> bool:
        return bool(np.isclose(float(answer), self._expected[number % len(self._expected)], rtol=1e-5))


class Served:
    """`mme serve --hosted` as a process tree."""

    def __init__(self, port: int, scratch: str, flags: Iterable[str]) -> None:
        self.port = port
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
            kind = kind or ("examiner" if "container.worker.examiner" in line else "")
            kind = kind or ("supervisor" if one.pid == self._process.pid else "stub")
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


def _tell(what: str, served: Served) -> float:
    tree = served.tree()
    total = sum(row[1] for row in tree.values())
    print(
        f"{what:28} {total:8.1f} MB PSS   " + "  ".join(f"{kind} {row}" for kind, row in sorted(tree.items())),
        flush=True,
    )
    return total


def _each(what: str, n_models: int, n_threads: int, port: int, step: Callable[[Caller, int], bool]) -> None:
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
    print(
        f"{what:28} {total:8.1f} s   p50 {p50:.1f} ms  p99 {p99:.1f} ms  max {max(took):.1f} ms  failed {len(failed)}",
        flush=True,
    )


def scale(chosen: argparse.Namespace, served: Served, models: Models) -> int:
    before = _tell("start", served)
    _each("load", chosen.models, chosen.threads, served.port, lambda c, n: c.load(n, models)[0] == 200)
    _tell("loaded", served)

    def ask(caller: Caller, number: int) -> bool:
        status, answer = caller.invoke(number, models)
        return status == 200 and models.is_right(number, answer)

    _each("invoke", chosen.models, chosen.threads, served.port, ask)
    _tell("asked", served)
    _each("delete", chosen.models, chosen.threads, served.port, lambda c, n: c.unload(n)[0] == 200)
    _tell("deleted", served)
    time.sleep(chosen.settle)
    after = _tell(f"deleted, {chosen.settle:.0f} s later", served)
    print(f"{'grown by':28} {after - before:8.1f} MB")
    return 0


CONTRACT = {"load": {200, 409, 507}, "invoke": {200, 404, 503}, "unload": {200, 404}}


def churn(chosen: argparse.Namespace, served: Served, models: Models) -> int:
    _tell("start", served)
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
            except OSError as error:
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
        print(f"{what:8} {status}  {n_calls}")
    print("slowest, ms:", dict(slowest))
    print(f"wrong: {len(wrong)}", *wrong[:10], sep="\n  ")
    caller = Caller(served.port)
    print("ping:", caller.call("GET", "/ping"))
    for number in range(chosen.models):
        caller = Caller(served.port)
        caller.unload(number)
    print("left:", Caller(served.port).call("GET", "/models"))
    time.sleep(chosen.settle)
    _tell(f"deleted, {chosen.settle:.0f} s later", served)
    return 1 if wrong else 0


def restart(chosen: argparse.Namespace, served: Served, models: Models) -> int:
    _each("load", chosen.models, chosen.threads, served.port, lambda c, n: c.load(n, models)[0] == 200)
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
    print(
        f"all {chosen.models} answer again after {time.perf_counter() - start:.1f} s, {len(pending)} never; {dict(statuses)}"
    )
    return 1 if pending else 0


def stall(chosen: argparse.Namespace, served: Served, models: Models) -> int:
    Caller(served.port).load(0, models)
    callers = [Caller(served.port) for _ in range(chosen.connections)]
    is_over = threading.Event()

    def disturb(numbers: range) -> None:
        caller = Caller(served.port)
        while not is_over.is_set():
            for number in numbers:
                caller.load(number, models)
                caller.unload(number)

    for what, n_disturbing in (("quiet", 0), ("loads and unloads", chosen.threads)):
        share = (chosen.models - 1) // max(1, n_disturbing)
        threads = [
            threading.Thread(target=disturb, args=[range(1 + k * share, 1 + (k + 1) * share)])
            for k in range(n_disturbing)
        ]
        for thread in threads:
            thread.start()
        took = []
        until = time.monotonic() + chosen.seconds
        while time.monotonic() < until:
            for caller in callers:
                start = time.perf_counter()
                status, answer = caller.invoke(0, models)
                took.append((time.perf_counter() - start) * 1e3)
                if status != 200 or not models.is_right(0, answer):
                    raise SystemExit(f"wrong: {status} {answer!r}")
        is_over.set()
        for thread in threads:
            thread.join()
        p50, p99, worst = np.percentile(took, [50, 99, 100])
        print(
            f"{what:28} {len(took)} invokes over {len(callers)} connections: p50 {p50:.2f}  p99 {p99:.2f}  max {worst:.1f} ms"
        )
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["scale", "churn", "restart", "stall"])
    parser.add_argument("--models", type=int, help="default 1000 for scale, else 50")
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--settle", type=float, default=75, help="Java keeps idle threads for 60 s")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--port", type=int, default=21480)
    chosen, flags = parser.parse_known_args()
    chosen.models = chosen.models or (1000 if chosen.what == "scale" else 50)
    with tempfile.TemporaryDirectory(prefix="mb-") as directory:
        models = Models(Path(directory) / "models", chosen.models)
        print(f"{chosen.models} models of {models.mean_bytes / 1000:.0f} KB")
        served = Served(chosen.port, directory, flags)
        try:
            run = {"scale": scale, "churn": churn, "restart": restart, "stall": stall}[chosen.what]
            return run(chosen, served, models)
        finally:
            served.stop()


if __name__ == "__main__":
    sys.exit(main())
