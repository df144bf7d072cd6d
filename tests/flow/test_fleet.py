"""Replicas behind a balancer, as `mme fleet local` runs them: each model in one place, and nobody's call lost."""

from __future__ import annotations

import http.client
import os
import random
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.rig import boosters
from tests.rig.command import Command
from tests.rig.endpoint import needs_classes, until
from tests.rig.fleet import PATIENCE_S, Fleet, has

pytestmark = needs_classes
ROW = "0.1,0.2,0.3,0.4,0.5,0.6"
X = np.array([[float(cell) for cell in ROW.split(",")]], np.float32)
N_MODELS = 24
needs_haproxy = pytest.mark.skipif(not has("haproxy"), reason="HAProxy is not installed")


class Running(Fleet):
    """A fleet, and callers of it."""

    def __init__(self, models: Path, kind: str, n_replicas: int) -> None:
        super().__init__(models, n_replicas, "--workers", "2", "--loaders", "1", "--memory", "1MiB", kind=kind)

    def call(
        self, number: int, connection: http.client.HTTPConnection | None = None, **headers: str
    ) -> tuple[int, str]:
        one = connection or http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        named = named or {"X-Amzn-SageMaker-Target-Model": f"us/{number}.tar.gz"}
        one.request("POST", "/invocations", ROW, {"Content-Type": "text/csv", **named})
        response = one.getresponse()
        answer = response.status, response.read().decode().strip()
        if connection is None:
            one.close()
        return answer


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("fleet")
    (root / "us").mkdir()
    for number in range(N_MODELS):
        (root / "us" / f"{number}.tar.gz").write_bytes(boosters.segment_archive(number))
    return root


@pytest.fixture(scope="module")
def fleet(models: Path) -> Iterator[Running]:
    running = Running(models, "haproxy", 2)
    yield running
    running.command.close()


EXPECTED = {number: float(boosters.expected(boosters.segment(number), X)[0, 0]) for number in range(N_MODELS)}


def is_right(number: int, answer: tuple[int, str]) -> bool:
    return answer[0] == 200 and np.float32(answer[1]) == np.float32(EXPECTED[number])


class Callers:
    """Callers that never stop, each on a connection that it keeps: what they got that was not the right answer."""

    def __init__(self, fleet: Running, n_callers: int = 4) -> None:
        self._fleet = fleet
        self._stop = threading.Event()
        self.failed: Counter[str] = Counter()
        self.n_answered = 0
        self._threads = [threading.Thread(target=self._call, args=[seed]) for seed in range(n_callers)]
        for thread in self._threads:
            thread.start()

    def _call(self, seed: int) -> None:
        draw = random.Random(seed)
        connection = http.client.HTTPConnection("127.0.0.1", self._fleet.port, timeout=PATIENCE_S)
        while not self._stop.is_set():
            number = draw.randrange(N_MODELS)
            try:
                answer = self._fleet.call(number, connection)
            except (OSError, http.client.HTTPException) as error:
                self.failed[repr(error)] += 1
                connection.close()
                continue
            if is_right(number, answer):
                self.n_answered += 1
            elif answer[0] != 429:  # on a busy machine a load may take longer than a call waits in line
                self.failed[str(answer)] += 1
            time.sleep(0.005)
        connection.close()

    def __enter__(self) -> Callers:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


@needs_haproxy
def test_each_model_is_held_by_one_replica_however_its_target_is_named(fleet: Running) -> None:
    for number in range(N_MODELS):
        assert is_right(number, fleet.call(number))
        named = f"Timing=1; TargetModel = us/{number}.tar.gz , mine=2"
        assert is_right(number, fleet.call(number, X_Amzn_SageMaker_Custom_Attributes=named))
    until(lambda: len(fleet.holders()) == N_MODELS, PATIENCE_S)
    holders = fleet.holders()
    assert [len(replicas) for replicas in holders.values()] == [1] * N_MODELS
    shares = Counter(replicas[0] for replicas in holders.values())
    assert len(shares) == 2  # of 24 models each has some
    facts = fleet.facts()
    assert facts["together"]["n_models"] == facts["together"]["n_copies"] == N_MODELS
    assert facts["together"]["hit_ratio_ever"] == 0.5
    assert [one["starts"] for one in facts["replicas"]] == [1, 1]


@needs_haproxy
def test_mme_models_lists_a_fleets_models_with_their_replicas(fleet: Running) -> None:
    fleet.call(1)
    command = Command("models", "--admin", f"http://127.0.0.1:{fleet.page_port}", "--contains", "us/1.tar")
    assert command.wait() == 0
    assert "us/1.tar.gz" in command.output
    assert "replica-" in command.output
    command.close()


@needs_haproxy
def test_a_rolling_restart_under_load_loses_no_call(fleet: Running) -> None:
    before = {one["name"]: one["starts"] for one in fleet.facts()["replicas"]}
    with Callers(fleet) as callers:
        until(lambda: callers.n_answered > 100, PATIENCE_S)
        fleet.command.signal(signal.SIGHUP)
        fleet.command.wait_for("restarted")
        n_answered = callers.n_answered
        until(lambda: callers.n_answered > n_answered + 100, PATIENCE_S)
    assert not callers.failed
    after = {one["name"]: one["starts"] for one in fleet.facts()["replicas"]}
    assert after == {name: starts + 1 for name, starts in before.items()}
    said = [line for line in fleet.command.trouble.splitlines() if "restarting" in line]
    assert said == [f"mme fleet: restarting replica-{number}, {number} of 2" for number in (1, 2)]


@needs_haproxy
def test_a_replica_that_is_lost_while_others_are_restarted_is_there_again_at_the_end(fleet: Running) -> None:
    def starts() -> list[int]:
        return [one["starts"] for one in fleet.facts()["replicas"]]

    n_lines, (first, second) = len(fleet.command.lines), starts()
    fleet.command.signal(signal.SIGHUP)
    until(lambda: starts() == [first + 1, second + 1], PATIENCE_S)
    os.kill(fleet.supervisor(1), signal.SIGKILL)
    until(lambda: any(line.startswith("restarted") for line in fleet.command.lines[n_lines:]), PATIENCE_S)
    assert starts() == [first + 2, second + 1]
    until(fleet.all_there, PATIENCE_S)


@needs_haproxy
def test_a_replica_that_is_killed_moves_its_own_models_and_no_others(fleet: Running) -> None:
    for number in range(N_MODELS):
        fleet.call(number)
    until(fleet.all_there, PATIENCE_S)
    before = fleet.holders()
    victim = fleet.supervisor(1)
    with Callers(fleet) as callers:
        until(lambda: callers.n_answered > 50, PATIENCE_S)
        os.kill(victim, signal.SIGKILL)
        until(lambda: not fleet.all_there(), PATIENCE_S)
        n_answered = callers.n_answered
        until(lambda: callers.n_answered > n_answered + 100, PATIENCE_S)
        meanwhile = fleet.holders()
        until(fleet.all_there, PATIENCE_S)
    # Of four callers each may have had one call inside it, and nothing else fails.
    assert sum(callers.failed.values()) <= 4, callers.failed
    for name, replicas in before.items():
        if replicas == ["replica-2"]:
            assert "replica-2" in meanwhile[name]


@needs_haproxy
def test_ctrl_c_leaves_nothing(fleet: Running) -> None:
    fleet.command.signal(signal.SIGINT)
    assert fleet.command.wait() == 0, fleet.command.trouble
    fleet.command.assert_nothing_is_left()


@pytest.mark.parametrize("kind", ["envoy", "nginx"])
def test_other_balancers_keep_models_in_one_place_too(models: Path, kind: str) -> None:
    if not has(kind):
        pytest.skip(f"{kind} is not installed")
    running = Running(models, kind, 2)
    try:
        for number in range(8):
            assert is_right(number, running.call(number))
            named = f"a=b,TargetModel=us/{number}.tar.gz"
            assert is_right(number, running.call(number, X_Amzn_SageMaker_Custom_Attributes=named))
        until(lambda: len(running.holders()) == 8, PATIENCE_S)
        assert [len(replicas) for replicas in running.holders().values()] == [1] * 8
        running.command.signal(signal.SIGTERM)
        assert running.command.wait() == 0, running.command.trouble
        running.command.assert_nothing_is_left()
    finally:
        running.command.close()
        shutil.rmtree(running.command.temp, ignore_errors=True)
