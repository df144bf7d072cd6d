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

from handler.forest import walker
from tests.rig.endpoint import Endpoint

# Looked for and not imported: Locust replaces the sockets of whoever imports it.
pytestmark = pytest.mark.skipif(importlib.util.find_spec("locust") is None, reason="Locust is not installed")

ROOT = Path(__file__).resolve().parents[2]
N_SEGMENTS = 6
N_CALLS = 60
# About what one takes in memory: packed where there is a walker, a booster where there is none.
SEGMENT_BYTES = 30_000 if walker.is_available() else 130_000


@dataclass(frozen=True)
class Outcome:
    """What Locust said at its end: requests by row of its table, cold and warm, and how many failed."""

    status: int
    requests: dict[str, int]
    failures: int


class Locust:
    """One Locust, headless, on an endpoint. A few at a time, so that each gets some of the processor."""

    def __init__(self, out: Path, scenario: str, endpoint: Endpoint, *, user: str = "FastUser") -> None:
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "locust", "-f", "benchmarks/locustfile.py", user, "--headless", "--json"),
                *("--host", f"http://127.0.0.1:{endpoint.port}", "--scenario", scenario, "--update-every", "0.5"),
                *("--users", "4", "--spawn-rate", "100", "--calls", str(N_CALLS)),
            ],
            cwd=ROOT,
            env={**os.environ, "SEGMENTS": str(N_SEGMENTS), "BENCHMARKS_OUT": str(out)},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def outcome(self) -> Outcome:
        table = json.loads(self._process.communicate(timeout=60)[0])
        requests = {row["name"]: row["num_requests"] for row in table}
        return Outcome(self._process.returncode, requests, sum(row["num_failures"] for row in table))


@pytest.fixture
def endpoints(tmp_path: Path) -> Iterator[tuple[Endpoint, Endpoint]]:
    """One with room for all segments, and one for a third of them."""
    laid_out = subprocess.run(
        [sys.executable, "-m", "benchmarks.rig.segments", "--segments", str(N_SEGMENTS)],
        cwd=ROOT,
        env={**os.environ, "BENCHMARKS_OUT": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    models = Path(laid_out.stdout.split()[-1])
    scratches = [Path(tempfile.mkdtemp(prefix="mt-")) for _ in range(2)]
    with (
        Endpoint(models, scratches[0], "--max-age", "1") as roomy,
        Endpoint(models, scratches[1], "--memory", str(N_SEGMENTS // 3 * SEGMENT_BYTES)) as tight,
    ):
        yield roomy, tight
    for scratch in scratches:
        shutil.rmtree(scratch)


def test_every_scenario_does_what_it_says_and_no_call_fails(
    endpoints: tuple[Endpoint, Endpoint], tmp_path: Path
) -> None:
    roomy, tight = endpoints
    # Each segment once, and then it ends by itself.
    assert Locust(tmp_path, "cold-storm", roomy).outcome() == Outcome(0, {"cold": N_SEGMENTS}, 0)

    for waves in (
        (("warm", "FastUser"), ("hot-update", "FastUser")),
        (("zipf", "Boto3User"), ("rows-100", "FastUser")),
    ):
        for locust in [Locust(tmp_path, scenario, roomy, user=user) for scenario, user in waves]:
            assert locust.outcome() == Outcome(0, {"warm": N_CALLS}, 0)

    thrash = Locust(tmp_path, "over-memory", tight).outcome()
    assert (thrash.status, thrash.failures, sum(thrash.requests.values())) == (0, 0, N_CALLS)
    assert thrash.requests["cold"] > N_SEGMENTS


@pytest.mark.parametrize(
    ("host", "says"),
    [
        (["--host", "http://127.0.0.1:8080/"], "leave out what comes after the port"),
        (["--host", "127.0.0.1:8080"], "with http:// or https:// in front"),
        ([], "say --host http://127.0.0.1:8080"),
    ],
)
@pytest.mark.parametrize("user", ["FastUser", "Boto3User"])
def test_a_host_that_no_call_can_go_to_is_one_line_at_the_start(user: str, host: list[str], says: str) -> None:
    command = [
        sys.executable,
        "-m",
        "locust",
        "-f",
        "benchmarks/locustfile.py",
        user,
        "--headless",
        "--users",
        "2",
        *host,
    ]
    run = subprocess.run(
        [*command, "--run-time", "4s"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "SEGMENTS": "2"},
    )
    assert run.returncode == 1
    assert says in run.stderr.splitlines()[-1]
    assert "Traceback" not in run.stderr
