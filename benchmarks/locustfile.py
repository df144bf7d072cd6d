"""Load as users make it, for Locust: with its page, or headless.

    locust -f benchmarks/locustfile.py --host http://127.0.0.1:8080 --scenario zipf
    locust -f benchmarks/locustfile.py --host http://127.0.0.1:8080 --scenario zipf FastUser \\
           --headless --users 8 --run-time 30s

With the first, Locust's page is at http://127.0.0.1:8089: users, scenario, and charts while it runs (--class-picker: and
which user).
`FastUser` posts to /invocations over geventhttpclient; `Boto3User` calls invoke_endpoint of plain boto3, which costs the
client ten times as much. Locust's table has a row for cold calls and one for warm ones, and Locust ends with 1 when a call
failed. The endpoint serves what `python -m benchmarks.rig.segments` lays out (SEGMENTS=50 here, --segments 50 there, for
fewer):

    warm         ten segments, all in memory
    zipf         all segments, as cities are: a few busy, many quiet
    cold-storm   every call names a segment that was not called before, until there are no more
    over-memory  all segments alike; start the endpoint with --memory for a third of them
    hot-update   one busy segment, whose artifact is replaced every few seconds; start the endpoint with --max-age 1
    rows-100     bodies of 100 rows, Zipf's law
"""

from __future__ import annotations

import itertools
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import boto3
import gevent
from botocore.config import Config
from botocore.exceptions import ClientError
from locust import FastHttpUser, User, constant, events, task
from locust.exception import StopUser

from benchmarks.rig import segments

N_SEGMENTS = int(os.environ.get("SEGMENTS", "1000"))
N_DRAWS = 50_000
UPDATE_S = 5.0
TARGET_HEADER = "X-Amzn-SageMaker-Target-Model"
ATTRIBUTES_HEADER = "X-Amzn-SageMaker-Custom-Attributes"

_ROW = segments.csv(segments.rows(1))
_HUNDRED = segments.csv(segments.rows(100))


def _name(number: int) -> str:
    return f"{number:04}.tar.gz"


def _zipf() -> Iterator[str]:
    return (_name(number) for number in itertools.cycle(segments.zipf(N_SEGMENTS, N_DRAWS)))


def _in_turn() -> Iterator[str]:
    return (_name(number) for number in range(N_SEGMENTS))


# From a scenario's name to what it calls: each gives targets without end, or for as long as there are new ones.
SCENARIOS: dict[str, Callable[[], Iterator[str]]] = {
    "warm": lambda: itertools.cycle(map(_name, range(min(10, N_SEGMENTS)))),
    "zipf": _zipf,
    "cold-storm": _in_turn,
    "over-memory": lambda: itertools.cycle(map(_name, range(N_SEGMENTS))),
    "hot-update": lambda: itertools.repeat(_name(0)),
    "rows-100": _zipf,
}


class _Plan:
    """The next target for whoever asks; one for all users, so that a storm's segments are each called once."""

    targets: Iterator[str] = iter(())
    body = _ROW
    n_calling = 0

    @contextmanager
    def next_target(self, runner: Any) -> Iterator[str]:
        """A target to be called within. Where there are no more the user stops, and with the last one the test."""
        target = next(self.targets, None)
        if target is None:
            if self.n_calling == 0:  # a quit would break off whoever still waits for an answer
                runner.quit()
            raise StopUser
        self.n_calling += 1
        try:
            yield target
        finally:
            self.n_calling -= 1


_plan = _Plan()


@events.init_command_line_parser.add_listener
def _add_flag(parser: Any) -> None:
    parser.add_argument("--scenario", choices=list(SCENARIOS), default="zipf", help="what is called, in which order")
    parser.add_argument("--calls", type=int, default=None, help="end after so many")
    parser.add_argument("--update-every", type=float, default=UPDATE_S, help="seconds between updates, in hot-update")


@events.init.add_listener
def _look_at_host(environment: Any, **_: Any) -> None:
    """A host that no call can go to is told once, and not by each of thousands of calls. Locust's page asks for it later."""
    host = environment.host
    if host is None:
        if environment.parsed_options.headless:
            sys.exit("no endpoint is named: say --host http://127.0.0.1:8080")
        return
    parts = urlsplit(host)
    if parts.scheme not in {"http", "https"} or not parts.netloc:
        sys.exit(f"--host {host}: write it with http:// or https:// in front, as http://127.0.0.1:8080")
    if parts.path or parts.query:
        sys.exit(f"--host {host}: leave out what comes after the port, a slash too")


@events.test_start.add_listener
def _begin(environment: Any, **_: Any) -> None:
    scenario = environment.parsed_options.scenario
    _plan.targets = itertools.islice(SCENARIOS[scenario](), environment.parsed_options.calls)
    _plan.body = _HUNDRED if scenario == "rows-100" else _ROW
    if scenario == "hot-update":
        gevent.spawn(_keep_updating, environment.runner, environment.parsed_options.update_every)


def _keep_updating(runner: Any, every_s: float) -> None:
    """Put one of two boosters in the busy segment's place, in turn, while the test runs."""
    made = segments.make(N_SEGMENTS)
    versions = [made.artifact(_name(number)) for number in (0, 1)]
    path = made.models / _name(0)
    try:
        for artifact in itertools.cycle(versions[::-1]):
            gevent.sleep(every_s)
            if runner.state not in ("spawning", "running"):
                return
            part = path.with_suffix(".part")
            part.write_bytes(artifact)
            part.rename(path)
    finally:
        path.write_bytes(versions[0])


def _label(told: str | None) -> str:
    """Hits and misses are two rows of Locust's table: their latencies have nothing to do with each other."""
    return "cold" if told and told.startswith("cache=miss") else "warm"


class FastUser(FastHttpUser):
    """Posts over a kept connection."""

    wait_time = constant(0)

    @task
    def call(self) -> None:
        with (
            _plan.next_target(self.environment.runner) as target,
            self.client.post(
                "/invocations",
                _plan.body,
                headers={"Content-Type": "text/csv", TARGET_HEADER: target},
                catch_response=True,
            ) as response,
        ):
            told = response.headers.get(ATTRIBUTES_HEADER) if response.headers else None
            response.request_meta["name"] = _label(told)


class Boto3User(User):
    """Calls as SageMaker's clients do."""

    wait_time = constant(0)

    def on_start(self) -> None:
        self._client = boto3.client(
            "sagemaker-runtime",
            endpoint_url=f"{self.host}/predictions/segments",
            region_name="us-east-1",
            aws_access_key_id="benchmark",
            aws_secret_access_key="benchmark",
            config=Config(retries={"total_max_attempts": 1}, read_timeout=60),
        )

    @task
    def call(self) -> None:
        with _plan.next_target(self.environment.runner) as target:
            self._invoke(target)

    def _invoke(self, target: str) -> None:
        start = time.perf_counter()
        label, length, failure = "warm", 0, None
        try:
            answer = self._client.invoke_endpoint(
                EndpointName="benchmark", TargetModel=target, ContentType="text/csv", Body=_plan.body
            )
            length = len(answer["Body"].read())
            label = _label(answer.get("CustomAttributes"))
        except ClientError as error:
            failure = error
        self.environment.events.request.fire(
            request_type="boto3",
            name=label,
            response_time=(time.perf_counter() - start) * 1e3,
            response_length=length,
            exception=failure,
            context={},
        )
