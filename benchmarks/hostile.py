"""Strangers who mean no good, beside callers who do: `python -m benchmarks.hostile [--rounds 3] [--mix SECONDS]`.

Twenty models in memory are called 200 times a second, at random moments and timed from when each call was due; now and then
a model that is not. Quiet, then beside one attack, quiet, beside the next: printed is p99 beside each against p99 of the
quiet just before and after. With --mix the attacks come at random, up to three at a time, for that long.

The attackers are a process of their own that yields to the endpoint, as S3 is: they stand for other machines. With
--elsewhere they attack another endpoint of this machine, which says how much of a figure is the cores' and not ours.

Targets: beside each attack p99 is at most three times the quiet one; no wrong answer; no honest call fails but with 429 or
503 and Retry-After; the same processes are there at the end, all doors say well, and memory has not grown.
"""

from __future__ import annotations

import argparse
import http.client
import json
import multiprocessing
import os
import random
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

from benchmarks.rig import record, storms
from benchmarks.rig.attacks import ATTACKS, Mark
from benchmarks.rig.endpoints import Ours
from benchmarks.rig.open_load import Call, Client, percentile_ms
from benchmarks.rig.s3_server import LocalS3
from benchmarks.rig.strangers import stand_aside
from benchmarks.rig.verdicts import Verdicts
from tests.rig import boosters
from tests.rig.endpoint import free_port

N_HOT, N_COLD = 20, 40
N_ROUNDS = 100
RATE = 200.0
COLD_SHARE = 0.01
LATENCY_S = 0.03
TARGET_RATIO = 3.0
SETTLE_S = 2.0
PATIENCE_S = 60.0
MORE_MB = 40.0
MANY = "many.tar.gz"


class Attackers:
    """A process that attacks for as long as the `with` block lasts."""

    def __init__(self, mark: Mark, names: Sequence[str]) -> None:
        context = multiprocessing.get_context("spawn")
        self._stop: Event = context.Event()
        self._process = context.Process(target=_attack, args=[mark, list(names), self._stop], daemon=True)

    def __enter__(self) -> None:
        self._process.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._process.join(5)
        self._process.kill()  # it may be waiting for an answer, which nobody else does any more
        self._process.join()


def _attack(mark: Mark, names: Sequence[str], stop: Event) -> None:
    stand_aside()
    over = threading.Event()
    for name in names:
        threading.Thread(target=ATTACKS[name], args=[mark, over], daemon=True).start()
    stop.wait()
    over.set()
    time.sleep(1.0)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=8.0, help="beside each attack, and of each quiet between")
    parser.add_argument(
        "--mix", type=float, default=0.0, help="seconds of attacks at random, in the place of one by one"
    )
    parser.add_argument("--only", choices=sorted(ATTACKS), action="append", help="these attacks alone")
    parser.add_argument(
        "--rounds", type=int, default=1, help="of all attacks, one after another; the middle one is judged"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--elsewhere", action="store_true", help="attack another endpoint, and measure this one")
    chosen = parser.parse_args()
    made = storms.make(N_HOT + N_COLD, N_ROUNDS)
    targets = [f"{number}.tar.gz" for number in range(N_HOT + N_COLD)]
    with tempfile.TemporaryDirectory() as kept:
        models = Path(kept)
        for target, archive in zip(targets, made.archives, strict=True):
            (models / target).write_bytes(archive)
        (models / MANY).write_bytes(_many())
        with LocalS3(models, LATENCY_S) as s3, ExitStack() as closing:
            ours = closing.enter_context(_endpoint(s3))
            attacked = closing.enter_context(_endpoint(s3)) if chosen.elsewhere else ours
            run = _Run(ours, attacked, made, targets, random.Random(chosen.seed))
            names = chosen.only or sorted(ATTACKS)
            figures = (
                run.mixed(names, chosen.mix) if chosen.mix else run.one_by_one(names, chosen.seconds, chosen.rounds)
            )
            run.judge_end()
    record.save(
        "hostile", {"seed": chosen.seed, "elsewhere": chosen.elsewhere, **figures, "verdicts": run.verdicts.lines}
    )
    return run.verdicts.exit_status


def _endpoint(s3: LocalS3) -> Ours:
    flags = ("--s3-endpoint-url", s3.url, "--admin-port", str(free_port()), "--memory", "512MiB")
    return Ours(s3.location, *flags, environment=s3.environment)


def _many() -> bytes:
    classes = boosters.train(n_features=1, n_rounds=2, max_depth=2, objective="multi:softprob", num_class=10)
    return boosters.archive({"xgboost-model": boosters.document(classes)})


class _Run:
    """`ours` is called and judged, `attacked` is attacked."""

    def __init__(
        self, ours: Ours, attacked: Ours, made: storms.Made, targets: Sequence[str], choice: random.Random
    ) -> None:
        self._ours = ours
        self._attacked = attacked
        self._made = made
        self._targets = targets
        self._choice = choice
        self._mark = Mark(attacked.port, attacked.admin_port, targets[0], MANY)
        self.verdicts = Verdicts()
        for endpoint in (ours, attacked):
            for target in [*targets[:N_HOT], MANY]:
                assert _status(endpoint.port, target) in {200, 424}
        self._pids = self._members()

    def _members(self) -> dict[str, list[int]]:
        return {name: pids for name, pids in self._ours.members().items() if name in {"JVM", "runtime", "supervisor"}}

    def _target(self) -> str:
        cold = self._choice.random() < COLD_SHARE
        return self._choice.choice(self._targets[N_HOT:] if cold else self._targets[:N_HOT])

    def _calls(self, client: Client, over: Callable[[float], bool]) -> list[Call]:
        return client.open(self._target, RATE, over)

    def one_by_one(self, names: Sequence[str], seconds: float, n_rounds: int) -> dict[str, Any]:
        figures: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
        with Client(self._ours.port, storms.ROW.encode()) as client:
            self._calls(client, lambda since: since >= seconds)  # compiles what Java will need
            before = self._calls(client, lambda since: since >= seconds)
            for name in [*names] * n_rounds:
                with Attackers(self._mark, [name]):
                    time.sleep(SETTLE_S)
                    calls = self._calls(client, lambda since: since >= seconds)
                well_s = self._well_again_s()
                after = self._calls(client, lambda since: since >= seconds)
                quiet_ms = percentile_ms([*_hot(before), *_hot(after)], 99)
                p99_ms = percentile_ms(_hot(calls), 99)
                ratio = p99_ms / quiet_ms
                figures[name].append(
                    {
                        "p99_ms": p99_ms,
                        "quiet_p99_ms": quiet_ms,
                        "ratio": ratio,
                        "statuses": dict(Counter(call.status for call in calls)),
                        "well_again_s": well_s,
                    }
                )
                self._judge(name, calls)
                print(f"{name} p99 {p99_ms:.1f} ms, quiet {quiet_ms:.1f}: {ratio:.1f}", flush=True)
                before = after
        for name, rounds in figures.items():
            one = sorted(rounds, key=lambda one: one["ratio"])[n_rounds // 2]
            figure = f"{one['p99_ms']:.1f} ms, quiet {one['quiet_p99_ms']:.1f}: {one['ratio']:.1f}"
            self.verdicts.say(f"{name} p99", figure, f"at most {TARGET_RATIO:g}", one["ratio"] <= TARGET_RATIO)
        return {"attacks": figures}

    def mixed(self, names: Sequence[str], seconds: float) -> dict[str, Any]:
        done: Counter[str] = Counter()
        looks: list[float] = []
        ends = time.monotonic() + seconds

        def attack() -> None:
            while time.monotonic() < ends:
                some = self._choice.sample(names, self._choice.randint(1, min(3, len(names))))
                done.update(some)
                with Attackers(self._mark, some):
                    time.sleep(min(self._choice.uniform(3, 20), max(0.1, ends - time.monotonic())))
                looks.append(self._ours.memory_bytes() / 1e6)

        with Client(self._ours.port, storms.ROW.encode()) as client:
            attacking = client.start(attack)
            calls = self._calls(client, lambda _: not attacking.is_alive())
        self._judge("mix", calls)
        third = max(1, len(looks) // 3)
        middle, last = statistics.median(looks[third : 2 * third] or looks), statistics.median(looks[-third:])
        figure = f"{last:.0f} MB in the last third, {middle:.0f} in the one before"
        self.verdicts.say("memory", figure, f"{MORE_MB:g} MB more at most", last - middle <= MORE_MB)
        print(f"done           {dict(done)}")
        statuses = dict(Counter(call.status for call in calls))
        return {
            "seconds": seconds,
            "done": done,
            "statuses": statuses,
            "memory_mb": looks,
            "p99_ms": percentile_ms(_hot(calls), 99),
        }

    def _judge(self, name: str, calls: Sequence[Call]) -> None:
        wrong = [
            c for c in calls if c.status == 200 and self._made.number(c.body) != int(c.target.removesuffix(".tar.gz"))
        ]
        failed = Counter(call.status for call in calls if call.status not in {200, 429, 503})
        self.verdicts.say(f"{name} wrong", f"{len(wrong)} of {len(calls)}", "none", not wrong)
        self.verdicts.say(f"{name} failed", str(dict(failed)) if failed else "none", "none but 429 and 503", not failed)

    def _well_again_s(self) -> float | None:
        """How long until every door of who was attacked says well and a warm call is answered."""
        began = time.monotonic()
        while time.monotonic() - began < PATIENCE_S:
            doors = [
                _get(self._attacked.port, "/ping"),
                _get(self._attacked.admin_port, "/healthz"),
                _get(self._attacked.admin_port, "/readyz"),
            ]
            if doors == [200] * 3 and _status(self._attacked.port, self._targets[0]) == 200:
                return time.monotonic() - began
            time.sleep(0.2)
        return None

    def judge_end(self) -> None:
        well_s = self._well_again_s()
        figure = "not within a minute" if well_s is None else f"after {well_s:.1f} s"
        self.verdicts.say("well again", figure, f"within {PATIENCE_S:g} s", well_s is not None)
        colds = Counter(_status(self._ours.port, target) for target in self._targets)
        self.verdicts.say("every model", json.dumps(colds), "200", set(colds) == {200})
        same = self._members() == self._pids
        self.verdicts.say("processes", "the same" if same else "others", "the same", same)
        members = {name: round(n_bytes / 1e6) for name, n_bytes in self._ours.memory_by_member().items()}
        print(f"memory         {members} MB")


def _hot(calls: Sequence[Call]) -> list[Call]:
    """Those of models in memory."""
    return [call for call in calls if int(call.target.removesuffix(".tar.gz")) < N_HOT]


def _status(port: int, target: str) -> int:
    caller = storms.Caller(port)
    try:
        return caller.call(target).status
    finally:
        caller.close()


def _get(port: int, path: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    with suppress(OSError, http.client.HTTPException):
        connection.request("GET", path)
        return connection.getresponse().status
    return 0


if __name__ == "__main__":
    os.environ.setdefault("AWS_EC2_METADATA_DISABLED", "true")
    sys.exit(main())
