"""Hot models while cold ones load: `python -m benchmarks.hot [--seconds 20] [--cold 500] [--latency 0.1]`.

Twenty models in memory are called at half of what the endpoint can do, at random moments and timed from when each call was
due. First alone; then while hundreds of others are called for the first time within a second, from an S3 with latency; the
same again with hundreds of other models; then while one model of 225 MB is loaded. Printed: p99 of the hot calls in each,
and what the cold callers were told. Target: beside the cold ones p99 is at most twice what it is alone.

Two storms, because MMS closes the connection of whoever is turned away: in the first one Java comes to see thousands of new
connections, and its compiler takes a core for 50 ms at a time. In the second there is little left to compile.

The cold callers are a process of their own that yields to the endpoint, as S3 does: they stand for other machines.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.rig import record, segments
from benchmarks.rig.endpoints import Ours
from benchmarks.rig.open_load import Call, Client, percentile_ms
from benchmarks.rig.s3_server import LocalS3
from benchmarks.rig.strangers import stand_aside
from benchmarks.rig.warm import warm_up
from tests.rig.endpoint import free_port

N_HOT = 20
TARGET_RATIO = 2.0
LOAD_SHARE = 0.5
PATIENCE_S = 120.0
PAUSE_S = 0.5  # of a cold caller who was told to call again; then longer, see open_load
WITHIN_S = 1.0  # in which all cold callers begin
SETTLE_S = 1.0
BODY = segments.csv(segments.rows(1, seed=7))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=20.0, help="of hot calls alone")
    parser.add_argument("--cold", type=int, default=500)
    parser.add_argument("--latency", type=float, default=0.1, help="of S3, seconds")
    parser.add_argument("--per-second", type=float, help="hot calls, in place of half of what the endpoint can do")
    parser.add_argument("--no-huge", action="store_true", help="leave out the model of 225 MB")
    chosen = parser.parse_args()
    made = segments.make(N_HOT + 2 * chosen.cold)
    hot, cold = made.targets[:N_HOT], made.targets[N_HOT:]
    with tempfile.TemporaryDirectory() as kept:
        models = Path(kept) / "models"
        shutil.copytree(made.models, models)
        storms = {"first storm": cold[: chosen.cold], "second storm": cold[chosen.cold :]}
        if not chosen.no_huge:
            huge = segments.make_huge()
            shutil.copy(huge, models / huge.name)
            storms["huge model"] = [huge.name]
        with LocalS3(models, chosen.latency) as s3:
            flags = (
                "--s3-endpoint-url",
                s3.url,
                "--memory",
                "4GiB",
                "--admin-port",
                str(free_port()),
                "--max-age",
                "0",
            )
            with Ours(s3.location, *flags, environment=s3.environment) as ours:
                figures = _measure(ours, hot, storms, chosen.seconds, chosen.per_second)
    _print(figures)
    record.save("hot", {"cold": chosen.cold, "latency_s": chosen.latency, **figures})
    return 0 if all(storm["ratio"] <= TARGET_RATIO and storm["is_good"] for storm in figures["storms"].values()) else 1


def _measure(
    ours: Ours, hot: Sequence[str], storms: Mapping[str, Sequence[str]], seconds: float, per_second: float | None
) -> dict[str, Any]:
    warm_up(ours, hot, BODY)
    choice = random.Random(0)
    with Client(ours.port, BODY) as client:
        client.capacity_per_s(lambda: choice.choice(hot))  # compiles what Java will need
        capacity = client.capacity_per_s(lambda: choice.choice(hot))
        rate = per_second or capacity * LOAD_SHARE

        def quiet() -> list[Call]:
            return client.open(lambda: choice.choice(hot), rate, lambda since: since >= seconds)

        beside: dict[str, Any] = {}
        before = quiet()
        for name, targets in storms.items():
            if not targets:
                continue
            calls, firsts, took_s = _beside(client, hot, targets, choice, rate)
            after = quiet()
            alone = (percentile_ms(before, 99) + percentile_ms(after, 99)) / 2
            beside[name] = {
                "calls": len(calls),
                "took_s": took_s,
                "p50_ms": percentile_ms(calls, 50),
                "p99_ms": percentile_ms(calls, 99),
                "max_ms": max(call.ms for call in calls),
                "quiet_p50_ms": percentile_ms([*before, *after], 50),
                "quiet_p99_ms": alone,
                "ratio": percentile_ms(calls, 99) / alone,
                "hot_statuses": dict(Counter(call.status for call in calls)),
                "cold_statuses": dict(Counter(call.status for calls_of_one in firsts for call in calls_of_one)),
                "is_good": all(call.status == 200 and call.is_hit for call in calls)
                and all(calls_of_one[-1].status == 200 for calls_of_one in firsts),
            }
            before = after
    return {"capacity_per_s": capacity, "per_second": rate, "storms": beside}


def _beside(
    client: Client,
    hot: Sequence[str],
    targets: Sequence[str],
    choice: random.Random,
    per_second: float,
) -> tuple[list[Call], list[list[Call]], float]:
    """Hot calls from just before the first cold one until the last is answered; the cold ones; how long those took."""
    with multiprocessing.get_context("spawn").Pool(1) as strangers:
        strangers.apply(int)  # it is up
        asked = strangers.apply_async(_ask_as_strangers, [client.port, targets])
        calls = client.open(lambda: choice.choice(hot), per_second, lambda _: asked.ready())
        firsts = asked.get()
    began = min(calls_of_one[0].due for calls_of_one in firsts)
    ended = max(calls_of_one[-1].ended for calls_of_one in firsts)
    return [call for call in calls if began <= call.due <= ended], firsts, ended - began


def _ask_as_strangers(port: int, targets: Sequence[str]) -> list[list[Call]]:
    """Runs in a process of its own."""
    stand_aside()
    time.sleep(SETTLE_S)
    with Client(port, BODY) as client:
        return client.call_until_served(targets, WITHIN_S, PAUSE_S, PATIENCE_S)


def _print(figures: dict[str, Any]) -> None:
    print(f"capacity       {figures['capacity_per_s']:,.0f}/s; hot calls at {figures['per_second']:,.0f}/s")
    for name, storm in figures["storms"].items():
        print(f"{name:14} {storm['calls']:,} hot calls in {storm['took_s']:.1f} s, statuses {storm['hot_statuses']}")
        for what in ("p50", "p99"):
            print(f"  {what}          {storm[f'{what}_ms']:.2f} ms, alone {storm[f'quiet_{what}_ms']:.2f} ms")
        print(f"  longest      {storm['max_ms']:.1f} ms")
        print(f"  cold callers {storm['cold_statuses']}")
        verdict = "met" if storm["ratio"] <= TARGET_RATIO and storm["is_good"] else "MISSED"
        print(
            f"  p99 ratio    {storm['ratio']:.2f}, target at most {TARGET_RATIO:g} and no hot call but warm: {verdict}"
        )


if __name__ == "__main__":
    sys.exit(main())
