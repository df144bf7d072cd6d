"""Every scenario of the locustfile, headless, against a real endpoint."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.endpoint import Endpoint

# Looked for and not imported: Locust replaces the sockets of whoever imports it.
pytestmark = pytest.mark.skipif(importlib.util.find_spec("locust") is None, reason="Locust is not installed")

ROOT = Path(__file__).resolve().parents[2]
SCENARIOS = ("warm", "zipf", "cold-storm", "over-memory", "hot-update", "rows-100")
N_SEGMENTS = 6
SECONDS = 3
SEGMENT_BYTES = 100_000  # about what one takes in memory


@dataclass(frozen=True)
class Outcome:
    """Locust's exit status, and its table: requests and failures by row."""

    status: int
    requests: dict[str, int]
    failures: int


class Locusts:
    """Locust processes on one endpoint, started together and then waited for."""

    def __init__(self, out: Path) -> None:
        self._environment = {**os.environ, "SEGMENTS": str(N_SEGMENTS), "BENCHMARKS_OUT": str(out)}
        self._running: dict[tuple[str, str], subprocess.Popen[str]] = {}

    def start(self, scenario: str, user: str, endpoint: Endpoint) -> None:
        self._running[scenario, user] = subprocess.Popen(
            [
                *(sys.executable, "-m", "locust", "-f", "benchmarks/locustfile.py", user, "--headless", "--json"),
                *("--host", f"http://127.0.0.1:{endpoint.port}", "--scenario", scenario, "--update-every", "0.5"),
                *("--users", "1" if user == "Boto3User" else "4", "--spawn-rate", "100", "--run-time", f"{SECONDS}s"),
            ],
            cwd=ROOT,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def outcomes(self) -> dict[tuple[str, str], Outcome]:
        found = {}
        while self._running:
            key, process = self._running.popitem()
            table = json.loads(process.communicate(timeout=60)[0])
            rows = {row["name"]: row["num_requests"] for row in table}
            found[key] = Outcome(process.returncode, rows, sum(row["num_failures"] for row in table))
        return found


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[tuple[str, str], Outcome]]:
    out = tmp_path_factory.mktemp("out")
    laid_out = subprocess.run(
        [sys.executable, "-m", "benchmarks.segments", "--segments", str(N_SEGMENTS)],
        cwd=ROOT,
        env={**os.environ, "BENCHMARKS_OUT": str(out)},
        capture_output=True,
        text=True,
        check=True,
    )
    models = Path(laid_out.stdout.split()[-1])
    roomy_at, tight_at = (Path(tempfile.mkdtemp(prefix="mt-")) for _ in range(2))
    locusts = Locusts(out)
    tight_bytes = str(N_SEGMENTS // 3 * SEGMENT_BYTES)
    with (
        Endpoint(models, roomy_at, "--max-age", "1") as roomy,
        Endpoint(models, tight_at, "--memory", tight_bytes) as tight,
    ):
        locusts.start("cold-storm", "FastUser", roomy)
        found = locusts.outcomes()
        for scenario in ("warm", "hot-update", "rows-100"):  # a few at a time, so that each gets some of the processor
            locusts.start(scenario, "FastUser", roomy)
        found |= locusts.outcomes()
        locusts.start("zipf", "FastUser", roomy)
        locusts.start("zipf", "Boto3User", roomy)
        locusts.start("over-memory", "FastUser", tight)
        yield found | locusts.outcomes()
    shutil.rmtree(roomy_at)
    shutil.rmtree(tight_at)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_every_scenario_runs_and_no_call_fails(outcomes: dict[tuple[str, str], Outcome], scenario: str) -> None:
    outcome = outcomes[scenario, "FastUser"]
    assert (outcome.status, outcome.failures) == (0, 0)
    assert sum(outcome.requests.values()) > 0


def test_a_storm_calls_each_segment_once_and_ends(outcomes: dict[tuple[str, str], Outcome]) -> None:
    assert outcomes["cold-storm", "FastUser"].requests == {"cold": N_SEGMENTS}


def test_a_working_set_over_memory_keeps_loading(outcomes: dict[tuple[str, str], Outcome]) -> None:
    assert outcomes["over-memory", "FastUser"].requests["cold"] > N_SEGMENTS


def test_boto3s_users_are_served_too(outcomes: dict[tuple[str, str], Outcome]) -> None:
    outcome = outcomes["zipf", "Boto3User"]
    assert (outcome.status, outcome.failures) == (0, 0)
    assert sum(outcome.requests.values()) > 0
