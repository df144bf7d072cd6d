"""A fleet held against one cache as large as all its own, and against a balancer that takes turns:

    python -m benchmarks.fleet [affinity] [hot] [kill] [rolling] [capture] [--segments 4000] [--balancers LIST]

affinity   hit ratio under Zipf(1.1): one endpoint with all the memory; four with a quarter each behind each balancer; the
           same four, called in turns. Target: within 2 points of the one, 15 points over turns.
hot        p99 of the same fleet when all models are called alike, and when few are called most. Target: at most 1.5 times.
kill       one of four killed under load; each has a warm list, noted every 5 s. Target: only calls inside it fail, no wrong
           answer, at most 1/4 + 5 % of the models are then somewhere else, the hit ratio is back within 2 points after 60 s.
rolling    the same ones, all warm, restarted one after another under load. Target: no call fails.
capture    calls a second with and without --capture at share 1, in turns, and what a call takes of the processors, by which
           the ratio can be told on a busy machine. Target: at least 0.95 of none.

Every answer is held against XGBoost's own for that model.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import signal
import sys
import tarfile
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import xgboost

from benchmarks.rig import record, segments, wrk
from benchmarks.rig.open_load import Call, Client, percentile_ms
from benchmarks.rig.processes import cpu_s
from benchmarks.rig.segments import OUT
from tests.rig.endpoint import Endpoint, free_port, until
from tests.rig.fleet import Fleet

N_REPLICAS = 4
EXPONENT = 1.1
ROW = "0.1,0.2,0.3,0.4,0.5,0.6"
X = np.array([[float(cell) for cell in ROW.split(",")]], np.float32)
PATIENCE_S = 300.0
LOADERS = ("--loaders", "2", "--max-age", "0")
AS_MANY = ("--loaders", "8")  # as four replicas have
NOTED = ("--warm-interval", "5")
PARTS = ("affinity", "hot", "kill", "rolling", "capture")


class Shop:
    """Small models, each with answers of its own: one forest, and a base score for each."""

    def __init__(self, n_segments: int) -> None:
        self.root = OUT / f"fleet-{n_segments}"
        self.targets = [f"{number:05}.tar.gz" for number in range(n_segments)]
        document = json.loads(_booster().save_raw("json"))
        self.root.mkdir(parents=True, exist_ok=True)
        for number, target in enumerate(self.targets):
            if not (self.root / target).exists():
                document["learner"]["learner_model_param"]["base_score"] = f"[{number}E0]"
                booster = xgboost.Booster(model_file=bytearray(json.dumps(document).encode()))
                (self.root / target).write_bytes(_archive(bytes(booster.save_raw("ubj"))))
        answers = OUT / f"fleet-{n_segments}.answers.npy"
        if not answers.exists():
            np.save(answers, np.array([_oracle(self.root / target) for target in self.targets], np.float32))
        self._answers = dict(zip(self.targets, np.load(answers), strict=True))

    def is_right(self, call: Call) -> bool:
        return call.status == 200 and np.float32(float(call.body)) == self._answers[call.target]

    def memory(self, n_models: float) -> str:
        """A --memory for so many; each is booked with what `measure` found."""
        return str(int(n_models * self.model_bytes))

    model_bytes = 0.0

    def measure(self) -> None:
        """What the cache books for one model."""
        with tempfile.TemporaryDirectory(prefix="f-") as scratch, _endpoint(self, scratch, "64MiB") as one:
            for target in self.targets[:20]:
                one.post(target, ROW)
            facts = one.post(self.targets[0], ROW)
            assert facts.status == 200
            now = _admin(one.admin_port, "/status.json")["now"]
            self.model_bytes = now["loaded_bytes"] / now["loaded_models"]


def _booster() -> xgboost.Booster:
    draw = np.random.default_rng(0)
    x = draw.random((400, 6), dtype=np.float32)
    return xgboost.train({"max_depth": 5, "nthread": 1, "base_score": 0.5}, xgboost.DMatrix(x, x.sum(axis=1)), 20)


def _archive(document: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as tar:
        info = tarfile.TarInfo("xgboost-model")
        info.size = len(document)
        tar.addfile(info, io.BytesIO(document))
    return buffer.getvalue()


def _oracle(path: Path) -> float:
    with tarfile.open(path) as tar:
        member = tar.extractfile("xgboost-model")
        assert member is not None
        booster = xgboost.Booster({"nthread": 1}, model_file=bytearray(member.read()))
    return float(booster.predict(xgboost.DMatrix(X))[0])


class AdminEndpoint(Endpoint):
    admin_port = 0


@contextmanager
def _endpoint(shop: Shop, scratch: str, memory: str, *flags: str) -> Iterator[AdminEndpoint]:
    admin = free_port()
    one = AdminEndpoint(shop.root, Path(scratch), "--memory", memory, "--admin-port", str(admin), *LOADERS, *flags)
    one.admin_port = admin
    with one:
        yield one


def _admin(port: int, path: str) -> Any:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as answer:
        return json.load(answer)


@contextmanager
def _fleet(shop: Shop, kind: str, *flags: str) -> Iterator[Fleet]:
    memory = shop.memory(len(shop.targets) / N_REPLICAS)
    one = Fleet(shop.root, N_REPLICAS, "--memory", memory, *LOADERS, *flags, kind=kind)
    try:
        yield one
    finally:
        one.command.signal(signal.SIGTERM)
        one.command.wait()
        one.stop()


def _sequence(targets: Sequence[str]) -> Callable[[], str]:
    each = iter(targets)
    return lambda: next(each, targets[-1])


def _zipf(shop: Shop, n: int, seed: int) -> list[str]:
    return [shop.targets[at] for at in segments.zipf(len(shop.targets), n, EXPONENT, seed)]


def _calls(ports: Sequence[int], targets: Sequence[str], per_s: float) -> list[Call]:
    """All targets in order, in turns over the ports, at random moments."""
    found: list[list[Call]] = [[] for _ in ports]

    def ask(at: int, port: int) -> None:
        own = targets[at :: len(ports)]
        with Client(port, ROW.encode(), 16) as client:
            n_asked = 0

            def choose() -> str:
                nonlocal n_asked
                n_asked += 1
                return own[min(n_asked, len(own)) - 1]

            found[at] = client.open(choose, per_s / len(ports), lambda _: n_asked >= len(own))

    threads = [threading.Thread(target=ask, args=pair) for pair in enumerate(ports)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [call for calls in found for call in calls]


def _ask_each(ports: Sequence[int], targets: Sequence[str], per_s: float) -> None:
    """Until each has answered once, whoever was asked: a model that was not ready in time would be a miss later on."""
    left = set(targets)
    while left:
        some = sorted(left)
        random.Random(0).shuffle(some)
        left -= {call.target for call in _calls(ports, some, per_s) if call.status == 200}


def _ratio(calls: Sequence[Call]) -> float:
    answered = [call for call in calls if call.status == 200]
    return sum(call.is_hit for call in answered) / len(answered)


def _trouble(shop: Shop, calls: Sequence[Call]) -> dict[str, int]:
    failed = Counter(str(call.status) for call in calls if call.status != 200)
    wrong = sum(not shop.is_right(call) for call in calls if call.status == 200)
    return {"wrong": wrong, **failed}


# -- the parts ---------------------------------------------------------------------------------------------------------


def affinity(shop: Shop, kinds: Sequence[str], per_s: float, n_calls: int) -> dict[str, Any]:
    settle, measured = _zipf(shop, n_calls, 1), _zipf(shop, n_calls, 2)
    figures: dict[str, Any] = {}

    def measure(name: str, ports: Sequence[int]) -> None:
        _ask_each(ports, shop.targets, per_s)
        _calls(ports, settle, per_s)
        calls = _calls(ports, measured, per_s)
        figures[name] = {"hit_ratio": round(_ratio(calls), 4), "p99_ms": round(percentile_ms(calls, 99), 1),
                         "trouble": _trouble(shop, calls)}  # fmt: skip
        print(f"{name:<12}{figures[name]}", flush=True)

    with (
        tempfile.TemporaryDirectory(prefix="f-") as scratch,
        _endpoint(shop, scratch, shop.memory(len(shop.targets)), *AS_MANY) as one,
    ):
        measure("one", [one.port])
    for kind in kinds:
        with _fleet(shop, kind) as fleet:
            measure(kind, [fleet.port])
            if kind == kinds[0]:
                held = fleet.all_models()
                figures[kind]["held_twice"] = sum(len(replicas) > 1 for replicas in held.values())
    with _fleet(shop, kinds[0]) as fleet:
        measure("turns", fleet.ports())
    return figures


def hot(shop: Shop, kinds: Sequence[str], per_s: float, n_calls: int) -> dict[str, Any]:
    few = shop.targets[: len(shop.targets) // 10]
    draw = random.Random(3)
    alike = [draw.choice(few) for _ in range(n_calls)]
    skewed = [few[at] for at in segments.zipf(len(few), n_calls, EXPONENT, 4)]
    figures: dict[str, Any] = {}
    for kind in kinds:
        with _fleet(shop, kind) as fleet:
            _calls([fleet.port], [*few, *skewed], per_s)
            rounds = []
            for _ in range(3):
                pair = [percentile_ms(_calls([fleet.port], one, per_s), 99) for one in (alike, skewed)]
                rounds.append(pair)
            even, uneven = (float(np.median([pair[at] for pair in rounds])) for at in (0, 1))
            figures[kind] = {"p99_alike_ms": round(even, 1), "p99_zipf_ms": round(uneven, 1),
                             "ratio": round(uneven / even, 2)}  # fmt: skip
        print(f"{kind:<12}{figures[kind]}", flush=True)
    return figures


def kill(shop: Shop, kind: str, per_s: float) -> dict[str, Any]:
    once = list(shop.targets)
    random.Random(0).shuffle(once)
    # Without the list a replica that had all of its models is asked for too few of them in a minute to have them again.
    with tempfile.TemporaryDirectory(prefix="f-") as kept, _fleet(shop, kind, "--warm", kept, *NOTED) as fleet:
        _calls([fleet.port], once, per_s)
        before = _ratio(_calls([fleet.port], _zipf(shop, 2000, 5), per_s))
        held = fleet.all_models()
        killed_at = 0.0

        def end_one() -> None:
            nonlocal killed_at
            killed_at = time.monotonic()
            os.kill(fleet.supervisor(2), signal.SIGKILL)

        timer = threading.Timer(5.0, end_one)
        timer.start()
        meanwhile: dict[str, list[str]] = {}
        watch = threading.Timer(9.0, lambda: meanwhile.update(fleet.all_models()))
        watch.start()
        calls = _calls([fleet.port], _zipf(shop, int(75 * per_s), 6), per_s)
        watch.join()
        late = [call for call in calls if call.due - killed_at > 60.0]
        failed = [call for call in calls if call.status not in (200, 429)]
        moved = [
            name for name, replicas in held.items()
            if name in meanwhile and replicas == ["replica-2"]
        ]  # fmt: skip
        strayed = [
            name for name, replicas in held.items()
            if replicas != ["replica-2"] and name in meanwhile and not set(replicas) & set(meanwhile[name])
        ]  # fmt: skip
        inside = [call for call in failed if call.due <= killed_at + 0.2 and call.ended >= killed_at]
        return {
            "calls": len(calls), "per_s": per_s, "trouble": _trouble(shop, calls), "failed": len(failed),
            "failed_inside": len(inside), "models_of_the_killed": round(sum(r == ["replica-2"] for r in held.values())
                                                                        / len(held), 4),
            "moved_and_asked_for": len(moved), "strayed": len(strayed), "hit_ratio_before": round(before, 4),
            "hit_ratio_after_60_s": round(_ratio(late), 4) if late else None,
        }  # fmt: skip


def rolling(shop: Shop, kind: str, per_s: float) -> dict[str, Any]:
    with (
        tempfile.TemporaryDirectory(prefix="f-") as kept,
        _fleet(shop, kind, "--warm", kept, *NOTED) as fleet,
        Client(fleet.port, ROW.encode(), 32) as client,
    ):
        _ask_each([fleet.port], shop.targets, per_s)
        targets = _zipf(shop, 100_000, 7)
        is_over = threading.Event()

        def restart() -> None:
            time.sleep(2.0)
            fleet.command.signal(signal.SIGHUP)
            until(lambda: any(line.startswith("restarted") for line in fleet.command.lines), PATIENCE_S)
            time.sleep(2.0)
            is_over.set()

        restarting = threading.Thread(target=restart)
        restarting.start()
        calls = client.open(_sequence(targets), per_s, lambda _: is_over.is_set())
        restarting.join()
        return {"calls": len(calls), "per_s": per_s, "trouble": _trouble(shop, calls)}


def capture(shop: Shop, seconds: int, rounds: int) -> dict[str, Any]:
    """Three endpoints, two of them without capture: what those differ by is noise. The first round warms the JVMs up."""
    few = [("/invocations", target) for target in shop.targets[:50]]
    with ExitStack() as closing:
        folders = [closing.enter_context(tempfile.TemporaryDirectory(prefix="f-")) for _ in range(4)]
        capturing = ("--capture", folders[3], "--capture-interval", "5")
        flags = {"none": (), "again": (), "capture": capturing}
        ends = {
            name: closing.enter_context(_endpoint(shop, scratch, "64MiB", *flags[name]))
            for name, scratch in zip(flags, folders, strict=False)
        }
        n_calls = {name: len(few) for name in ends}
        for one in ends.values():
            for _, target in few:
                one.post(target, ROW)
        found: list[dict[str, tuple[float, float]]] = []
        for number in range(rounds + 1):
            order = sorted(ends, key=lambda name: (list(ends).index(name) + number) % len(ends))
            found.append({})
            for name in order:
                before = cpu_s(ends[name].pid)
                run = wrk.run(ends[name].port, few, ROW.encode(), connections=16, seconds=seconds)
                found[-1][name] = run.requests_per_s, (cpu_s(ends[name].pid) - before) / run.requests * 1e6
                n_calls[name] += run.requests
        ends["capture"].stop()
        lines, is_valid = _captured(Path(folders[3]))

    def median(of: Callable[[dict[str, tuple[float, float]]], float]) -> float:
        return float(np.median([of(one) for one in found[1:]]))

    return {
        "per_s": {name: round(median(lambda one: one[name][0])) for name in ends},  # noqa: B023  now
        "ratio": round(median(lambda one: one["capture"][0] / one["none"][0]), 3),
        "ratio_of_none": round(median(lambda one: one["again"][0] / one["none"][0]), 3),
        "cpu_us_a_call": {name: round(median(lambda one: one[name][1]), 1) for name in ends},  # noqa: B023  now
        "ratio_by_cpu": round(median(lambda one: one["none"][1] / one["capture"][1]), 3),
        "ratio_of_none_by_cpu": round(median(lambda one: one["none"][1] / one["again"][1]), 3),
        "calls": n_calls["capture"], "captured": lines, "all_valid": is_valid,
    }  # fmt: skip


def _captured(root: Path) -> tuple[int, bool]:
    from container.capture import layout
    from container.capture.lines import parse
    from handler.stores import open_store

    store = open_store(str(root))
    found = [parse(line) for one in layout.files(store) for line in store.fetch(one.target).data.splitlines()]
    return len(found), len({one.event_id for one in found}) == len(found)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], default=[], metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--segments", type=int, default=4000)
    parser.add_argument("--balancers", default="haproxy")
    parser.add_argument("--per-second", type=float, default=250.0)
    parser.add_argument("--calls", type=int, default=8000)
    parser.add_argument("--seconds", type=int, default=4, help="of each run with and without capture")
    parser.add_argument("--rounds", type=int, default=8, help="of such runs")
    chosen = parser.parse_args()
    kinds = chosen.balancers.split(",")
    shop = Shop(chosen.segments)
    shop.measure()
    todo = chosen.parts or PARTS
    figures: dict[str, Any] = {}
    works: dict[str, Callable[[], dict[str, Any]]] = {
        "affinity": lambda: affinity(shop, kinds, chosen.per_second, chosen.calls),
        "hot": lambda: hot(shop, kinds, chosen.per_second, chosen.calls // 4),
        "kill": lambda: kill(shop, kinds[0], chosen.per_second),
        "rolling": lambda: rolling(shop, kinds[0], chosen.per_second),
        "capture": lambda: capture(shop, chosen.seconds, chosen.rounds),
    }
    for part in todo:
        figures[part] = works[part]()
        print(f"{part:<12}{json.dumps(figures[part])}", flush=True)
    record.save("fleet", {"segments": chosen.segments, **figures})
    return 0


if __name__ == "__main__":
    sys.exit(main())
