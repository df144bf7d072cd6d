"""A cold call against a bare boto3 GetObject of the same object.

    python -m benchmarks.cold [--segments 300]

Each segment is fetched by boto3 and called for the first time, in turn, over connections that are open already. The
stages are taken in a second pass over the same segments, in this process, from the same parts with the same settings.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from benchmarks.rig import record, segments
from benchmarks.rig.endpoints import Ours
from benchmarks.rig.s3_server import BUCKET, PREFIX, LocalS3
from container import assembly, settings
from handler.telemetry.recorder import LiveRecorder
from tests.rig.faulty_s3 import ENVIRONMENT

BODY = segments.csv(segments.rows(1, seed=7))
N_WARM_UP = 20
TARGET_MS = 6.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--segments", type=int, default=280, help="behind some that are not counted")
    chosen = parser.parse_args()
    os.environ.update(ENVIRONMENT)
    made = segments.make(chosen.segments + N_WARM_UP)
    with LocalS3(made.models) as s3:
        calls = interleaved(made.targets, s3)
        stages = _stages(made.targets, s3)
    figures = _figures(calls, stages)
    _print(figures, len(calls), statistics.mean(len(made.document(target)) for target in made.targets))
    record.save("cold", {"segments": chosen.segments, "calls": calls, **figures})
    return 0 if figures["above_ms"] <= TARGET_MS else 1


def interleaved(targets: Sequence[str], s3: LocalS3) -> list[dict[str, float]]:
    """Milliseconds of the cold call, the bare GetObject, and a warm call of the same target right after.

    Without the first N_WARM_UP, in which the JVM and boto3 are still warming up. Wants tests.faulty_s3.ENVIRONMENT in this
    process too.
    """
    bare = boto3.client("s3", endpoint_url=s3.url, config=Config(s3={"addressing_style": "path"}))
    calls: list[dict[str, float]] = []
    flags = ("--s3-endpoint-url", s3.url, "--memory", "1GiB")
    with Ours(s3.location, *flags, environment=ENVIRONMENT) as ours:
        caller = ours.caller()
        for number, target in enumerate(targets):
            start = time.perf_counter()
            if number % 2:
                _fetch(bare, target)
                between = time.perf_counter()
                told = caller.call(target, BODY)[1]
                times = [start, between, time.perf_counter()]
                get_s, cold_s = (later - earlier for earlier, later in pairwise(times))
            else:
                told = caller.call(target, BODY)[1]
                between = time.perf_counter()
                _fetch(bare, target)
                times = [start, between, time.perf_counter()]
                cold_s, get_s = (later - earlier for earlier, later in pairwise(times))
            assert told.startswith("cache=miss"), told
            start = time.perf_counter()
            caller.call(target, BODY)
            warm_s = time.perf_counter() - start
            if number >= N_WARM_UP:
                calls.append({"cold_ms": cold_s * 1e3, "get_ms": get_s * 1e3, "warm_ms": warm_s * 1e3})
        caller.close()
    return calls


def _fetch(client: Any, target: str) -> None:
    client.get_object(Bucket=BUCKET, Key=PREFIX + target)["Body"].read()


def _stages(targets: Sequence[str], s3: LocalS3) -> list[dict[str, float]]:
    """Milliseconds of fetch, examine and load of each target, one after the other as in the calls above."""
    flags = {"models": s3.location, "endpoint_url": s3.url, "max_age_s": "0"}
    stages: list[dict[str, float]] = []
    with ExitStack() as closing, tempfile.TemporaryDirectory() as scratch:
        models = assembly.models_of_store(
            settings.read(flags, {}), LiveRecorder(), closing, hooks=None, scratch=Path(scratch)
        )
        for target in targets:
            prepared = models.loader.prepare(target)
            start = time.perf_counter()
            prepared.load()
            load_ms = (time.perf_counter() - start) * 1e3
            stages.append(
                {"fetch": (prepared.download_us or 0) / 1e3, "examine": prepared.examine_us / 1e3, "load": load_ms}
            )
    return stages[N_WARM_UP:]


def _figures(calls: list[dict[str, float]], stages: list[dict[str, float]]) -> dict[str, Any]:
    medians = {name: statistics.median(call[name] for call in calls) for name in calls[0]}
    tenths = {name: statistics.quantiles([call[name] for call in calls], n=10) for name in calls[0]}
    return {
        "median": medians,
        # On a machine with other work, the least disturbed tenth says more about the endpoint than the median does.
        "p10": {name: values[0] for name, values in tenths.items()},
        "p90": {name: values[-1] for name, values in tenths.items()},
        "above_ms": medians["cold_ms"] - medians["get_ms"],
        "stages_ms": {name: statistics.median(one[name] for one in stages) for name in stages[0]},
    }


def _print(figures: dict[str, Any], n_calls: int, document_bytes: float) -> None:
    print(f"{n_calls} segments of {document_bytes / 1e3:.0f} KB UBJ      p10     median       p90")
    for name, text in (("cold_ms", "cold call"), ("get_ms", "bare GetObject"), ("warm_ms", "warm call, same client")):
        cells = [figures[share][name] for share in ("p10", "median", "p90")]
        print(f"{text:26}{cells[0]:>8.2f} ms{cells[1]:>8.2f} ms{cells[2]:>7.1f} ms")
    print(f"above GetObject             {figures['above_ms']:>9.2f} ms, target at most {TARGET_MS:g}")
    for name, ms in figures["stages_ms"].items():
        print(f"  {name:26}{ms:>9.2f} ms")


if __name__ == "__main__":
    sys.exit(main())
