"""`mme demo`: ten cities' house prices served from an S3 of its own, called, and an eleventh city added meanwhile.

Rule: nothing is played. The S3 is moto's, in this process; the endpoint is `mme serve`; calls are boto3's; what is shown
was measured. Whatever way it ends, no process and no file stays behind.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import sys
import time
from contextlib import ExitStack
from dataclasses import asdict
from typing import TYPE_CHECKING

from container import environments, settings
from container.operate.demo.bucket import EmbeddedBucket, missing_parts
from container.operate.demo.page import HEADING, Call, Metrics, Printer, Snippets
from container.operate.exits import CommandFailed, Exit
from container.operate.printing import lines_of
from container.operate.serving import ChildFailed, ServeChild, free_port
from container.operate.stopping import Steps, stop_event

if TYPE_CHECKING:
    # These cost most of a second, which the endpoint's start hides when they come after it.
    import numpy as np

    from container.operate.demo.houses import TrainedCity
    from container.operate.endpoint.calling import Endpoint

BUCKET = "house-prices"
PREFIX = "models/"
FIRST_PORT = 8080
ROUNDS = 2  # calls to each city, all in one shuffled order: its first is cold, its second warm
SEED = 2019
READY_PATIENCE_S = 60.0
SPEED, MOST_SPEED = 120.0, 3600.0  # of --zero: 25 minutes to zero take 12 seconds
PORT_LIMIT = 65536
N_WORKERS = 4  # one caller needs one; four leave some for a person who pastes


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "demo",
        help="serve ten cities' house prices from an S3 of its own, and call them",
        description="Train a small model of house prices for each of ten cities, put them into an S3 server inside this "
        "process, serve them, call them, add a city while it runs, and go on serving until Ctrl-C.",
    )
    stories = parser.add_mutually_exclusive_group()
    stories.add_argument(
        "--zero", action="store_true", help="tell another story: rankings on an endpoint that sleeps until it is called"
    )
    stories.add_argument(
        "--loop",
        action="store_true",
        help="from rows to answers: train, judge, approve, serve, and take one model back",
    )
    parser.add_argument(
        "--speed", type=float, metavar="N", help=f"with --zero: platform seconds in a real one; default {SPEED:g}"
    )
    parser.add_argument("--once", action="store_true", help="end instead of going on serving")
    parser.add_argument("--port", metavar="N", help=f"port to serve on; else the first free one from {FIRST_PORT}")
    parser.add_argument("--json", action="store_true", help="print the facts as one JSON document")
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> int:
    if chosen.loop and importlib.util.find_spec("pyarrow") is None:
        return _trouble("it needs pyarrow: pip install 'multi-model-endpoint[arrow]'", Exit.USAGE)
    if chosen.loop and chosen.json:
        return _trouble("--loop prints what its commands print; --json is for the other demo", Exit.USAGE)
    if missing := missing_parts():
        return _trouble(f"it needs {', '.join(missing)}: pip install 'multi-model-endpoint[demo]'", Exit.USAGE)
    if chosen.zero:
        return _zero(chosen)
    if chosen.speed is not None:
        return _trouble("--speed goes with --zero", Exit.USAGE)
    printer = Printer(is_json=chosen.json)
    try:
        port = _choose_port(chosen.port)
    except settings.SettingInvalid as error:
        return _trouble(str(error), Exit.USAGE)
    except CommandFailed as error:
        return _trouble(str(error), error.exit)
    if chosen.port is None and port != FIRST_PORT:
        printer.say(lines_of("port", f"{FIRST_PORT} is taken, so this is {port}"))
    with stop_event(is_last=True) as stop:
        steps = Steps(stop)
        return _loop(port, printer, steps) if chosen.loop else Demo(port, printer, steps).run(is_once=chosen.once)


def _loop(port: int, printer: Printer, steps: Steps) -> int:
    from container.operate.demo.loop import Loop

    began = time.monotonic()
    try:
        Loop(port, printer, steps).run()
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    except CommandFailed as error:
        return _trouble(str(error), error.exit)
    finally:
        printer.progress.clear()
    printer.say(lines_of("\ntook", f"{time.monotonic() - began:.1f} s"))
    return Exit.OK


def _zero(chosen: argparse.Namespace) -> int:
    from container.operate.demo import zero

    if chosen.port is not None:
        return _trouble("--zero chooses its own port", Exit.USAGE)
    speed = SPEED if chosen.speed is None else chosen.speed
    if not 1 <= speed <= MOST_SPEED:
        return _trouble(f"--speed is from 1 to {MOST_SPEED:g}", Exit.USAGE)
    with stop_event(is_last=True) as stop:
        try:
            return zero.tell(Steps(stop), speed=speed, is_once=chosen.once, is_json=chosen.json)
        except KeyboardInterrupt:
            return Exit.INTERRUPTED
        except CommandFailed as error:
            return _trouble(str(error), error.exit)


def _choose_port(given: str | None) -> int:
    if given is not None:
        return free_port([settings.read_one("port", given, environ={})])
    return free_port(range(FIRST_PORT, settings.PORT_LIMIT))


def _trouble(message: str, status: Exit) -> int:
    print(f"mme demo: {message}", file=sys.stderr)
    return status


def _program() -> str:
    """What a person in this terminal writes for `mme`, which need not be on the PATH (./build.sh demo)."""
    if shutil.which("mme"):
        return "mme"
    return sys.argv[0] if sys.argv[0].endswith("mme") else f"{sys.executable} -m container.operate.main"


class Demo:
    """One run, told by `_tell` from top to bottom."""

    def __init__(self, port: int, printer: Printer, steps: Steps) -> None:
        self._port = port
        self._url = f"http://127.0.0.1:{port}"
        self._steps = steps
        self._admin_port = free_port(range(port + 1, PORT_LIMIT))
        self._printer = printer
        self._started_at = time.monotonic()
        self._is_told = False

    def run(self, *, is_once: bool) -> int:
        try:
            with ExitStack() as closing:
                closing.callback(self._printer.progress.clear)  # at the very end
                # The endpoint starts before anything heavy is imported: its start takes longest, and a process forks
                # best before it has threads. Until its first call it needs no more of the S3 server than the address.
                bucket = closing.enter_context(EmbeddedBucket(BUCKET))
                child = self._serving(bucket, closing)
                closing.callback(self._printer.progress.wait_for, "stopping")
                child = self._tell(bucket, child, closing, is_once=is_once)
                if is_once:
                    return Exit.OK
                self._printer.say()
                status_url = f"http://127.0.0.1:{self._admin_port}"
                self._printer.say(lines_of("status", f"{status_url}/   {status_url}/metrics for Prometheus"))
                self._printer.say(lines_of("serving", f"{self._url} until Ctrl-C"))
                raise ChildFailed(f"the endpoint ended with status {child.wait(self._steps.begin)}")
        except KeyboardInterrupt:
            return Exit.OK if self._is_told else Exit.INTERRUPTED
        except BrokenPipeError:  # as in `mme demo | head`: nobody reads on
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return Exit.FAILED
        except CommandFailed as error:
            return _trouble(str(error), error.exit)

    def _serve_arguments(self, bucket: EmbeddedBucket) -> list[str]:
        return [
            *("--models", f"s3://{bucket.name}/{PREFIX}"),
            *("--s3-endpoint-url", bucket.url),
            *("--host", "127.0.0.1"),
            *("--port", str(self._port)),
            *("--admin-port", str(self._admin_port)),
            *("--workers", str(N_WORKERS)),
            *("--log-level", "warning"),
        ]

    def _serving(self, bucket: EmbeddedBucket, closing: ExitStack) -> ServeChild:
        return closing.enter_context(ServeChild(self._serve_arguments(bucket), environments.demo_environment()))

    def _wait_ready(self, bucket: EmbeddedBucket, child: ServeChild, closing: ExitStack) -> tuple[ServeChild, float]:
        """The endpoint, and the seconds it took. A port is looked for some moments before the endpoint listens there: where
        somebody else was faster, the next free one is taken, once. Raises ChildFailed."""
        try:
            return child, child.wait_ready(READY_PATIENCE_S, self._steps.begin)
        except ChildFailed:
            free = free_port(range(self._admin_port, PORT_LIMIT))
            if not child.has_ended or free == self._admin_port:
                raise
            self._admin_port = free
        child = self._serving(bucket, closing)
        return child, child.wait_ready(READY_PATIENCE_S, self._steps.begin)

    def _begin(self, what: str) -> None:
        """The next step, unless there is to be none."""
        self._steps.begin()
        self._printer.progress.wait_for(what)

    def _tell(self, bucket: EmbeddedBucket, child: ServeChild, closing: ExitStack, *, is_once: bool) -> ServeChild:
        """Returns the endpoint that answers, which may be another than was begun with."""
        say, begin = self._printer.say, self._begin
        begin("starting an S3 server")
        bucket.start()
        say(lines_of("bucket", f"s3://{bucket.name}/{PREFIX} on an S3 server (moto) at {bucket.url}"))

        begin("training")
        import numpy as np

        from container.operate.demo import houses
        from container.operate.endpoint.calling import PATH, Endpoint

        trained = self._fill(bucket)
        begin("waiting for the endpoint")
        child, ready_s = self._wait_ready(bucket, child, closing)
        say(lines_of("ready", f"{self._url}, {ready_s:.1f} s after it was started"))

        endpoint = Endpoint(self._url)
        random = np.random.default_rng(SEED)
        say(f"\n{HEADING}")
        cities = random.permutation(ROUNDS * list(houses.CITIES)).tolist()
        calls = [self._call(endpoint, city, random) for city in cities]

        say()
        begin(f"training {houses.NEW_CITY}")
        start = time.perf_counter()
        newcomer = houses.train_city(houses.NEW_CITY, houses.NEW_CITY_PRICE)
        bucket.put(PREFIX + houses.target_of(newcomer.city), newcomer.archive)
        new_ms = (time.perf_counter() - start) * 1000
        say(
            lines_of(
                "new", f"{newcomer.city} trained and put into the bucket in {new_ms:.0f} ms; nothing was restarted"
            )
        )
        say(f"\n{HEADING}")
        calls += [self._call(endpoint, newcomer.city, random) for _ in range(ROUNDS)]

        metrics = Metrics.of(calls)
        say(f"\n{lines_of('so far', *metrics.lines)}")
        took_s = time.monotonic() - self._started_at
        say(lines_of("took", f"{took_s:.1f} s"))
        snippets = Snippets.of(self._url, PATH, houses.target_of(newcomer.city), calls[-1].house.csv, _program())
        if not is_once:
            say(f"\n{snippets.text}")
        self._printer.document(
            {
                "url": self._url,
                "status_url": f"http://127.0.0.1:{self._admin_port}/",
                "bucket": {"url": bucket.url, "models": f"s3://{bucket.name}/{PREFIX}"},
                "ready_s": round(ready_s, 2),
                "cities": [
                    {"city": one.city, "target": houses.target_of(one.city), "bytes": len(one.archive),
                     "median_error": round(one.median_error, 4)}
                    for one in (*trained, newcomer)
                ],
                "new_city": newcomer.city,
                "calls": [asdict(call) for call in calls],
                "metrics": asdict(metrics),
                "snippets": asdict(snippets),
                "took_s": round(took_s, 2),
            }
        )  # fmt: skip
        self._is_told = True
        return child

    def _fill(self, bucket: EmbeddedBucket) -> list[TrainedCity]:
        """Train and upload the ten cities."""
        from container.operate.demo import houses

        start = time.perf_counter()
        trained = []
        for at, (city, price) in enumerate(houses.CITIES.items(), 1):
            self._begin(f"training {at} of {len(houses.CITIES)}: {city}")
            trained.append(houses.train_city(city, price))
            bucket.put(PREFIX + houses.target_of(city), trained[-1].archive)
        took_s = time.perf_counter() - start
        kib = sum(len(one.archive) for one in trained) / len(trained) / 1024
        error = max(one.median_error for one in trained)
        self._printer.say(
            lines_of(
                "trained",
                f"{len(trained)} cities in {took_s:.1f} s: {houses.N_TREES} trees each on "
                f"{houses.N_HOUSES - houses.N_HELD_OUT:,} made-up houses, artifacts of {kib:.0f} KiB",
                f"median error {error:.1%} or less on {houses.N_HELD_OUT} houses held out; "
                f"the prices have {houses.NOISE:.0%} noise",
            )
        )
        return trained

    def _call(self, endpoint: Endpoint, city: str, random: np.random.Generator) -> Call:
        """A random house of `city`, priced."""
        from container.operate.demo import houses

        self._begin(f"calling {city}")
        house = houses.draw_house(random)
        answered = endpoint.call(houses.target_of(city), house.csv.encode())
        call = Call(city, house, float(answered.body), answered.ms, answered.is_hit is True, answered.load_ms)
        self._printer.say(call.row)
        return call
