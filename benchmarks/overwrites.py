"""Objects overwritten under load: `python -m benchmarks.overwrites [--overwrites 10000] [--max-age 5]`.

Every answer is traced to the booster that gave it. Printed: answers that no single version gives (a mix of two), and how
old answers are: for how long their version had already been overwritten when the call began. Target: none of the former,
nothing older than the max age, and every call answered.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from benchmarks.rig import record, storms
from benchmarks.rig.open_load import Client
from tests.rig.endpoint import Endpoint
from tests.rig.faulty_s3 import FaultyS3

N_TARGETS = 20
N_VERSIONS = 60


class History:
    """Which booster each target's object held, and since when."""

    def __init__(self) -> None:
        self._since: dict[str, list[float]] = {}
        self._numbers: dict[str, list[int]] = {}

    def put(self, target: str, number: int) -> None:
        self._numbers.setdefault(target, []).append(number)
        self._since.setdefault(target, []).append(time.monotonic())

    def staleness_s(self, target: str, number: int, began: float, ended: float) -> float | None:
        """How long before `began` this booster was last current; 0 if during the call; None if never up to then."""
        since, numbers = self._since[target], self._numbers[target]
        for at in range(bisect_right(since, ended) - 1, -1, -1):
            if numbers[at] == number:
                over = since[at + 1] if at + 1 < len(since) else ended
                return max(0.0, began - over)
        return None


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--overwrites", type=int, default=10_000)
    parser.add_argument("--per-second", type=float, default=100.0)
    parser.add_argument("--max-age", type=float, default=5.0)
    parser.add_argument("--rate", type=float, default=300.0, help="calls a second")
    chosen = parser.parse_args()
    made = storms.make(N_VERSIONS, 12)
    targets = [f"{number}.tar.gz" for number in range(N_TARGETS)]
    history = History()
    with FaultyS3() as s3, tempfile.TemporaryDirectory(prefix="o-") as scratch:

        def put(target: str) -> None:
            number = choice.randrange(N_VERSIONS)
            # Noted first: the store may hand it out the moment it is there.
            history.put(target, number)
            s3.put(target, made.archives[number])

        choice = random.Random(0)
        for target in targets:
            put(target)

        own = random.Random(1)
        flags = ["--s3-endpoint-url", s3.url, "--max-age", str(chosen.max_age)]
        with (
            Endpoint(f"s3://{s3.bucket}/", Path(scratch), *flags) as endpoint,
            Client(endpoint.port, storms.ROW.encode()) as client,
        ):
            client.call_until_served(targets, 0.0, 0.1, 60.0)
            began = time.monotonic()
            overwriting = client.start(lambda: _overwrite(put, targets, choice, chosen.overwrites, chosen.per_second))
            calls = client.open(lambda: own.choice(targets), chosen.rate, lambda _: not overwriting.is_alive())
            took_s = time.monotonic() - began
    mixed, ages_s = 0, []
    for call in calls:
        if call.status != 200:
            continue
        number = made.number(call.body)
        age_s = None if number is None else history.staleness_s(call.target, number, call.due, call.ended)
        if age_s is None:
            mixed += 1
        else:
            ages_s.append(age_s)
    ages_s.sort()
    print(f"overwrites     {chosen.overwrites:,} of {N_TARGETS} objects in {took_s:.0f} s")
    print(f"requests       {sum(s3.requests.values()):,} to S3")
    statuses = dict(Counter(call.status for call in calls))
    print(f"calls          {len(calls):,}; statuses {statuses}")
    print(f"of no version  {mixed}")
    p50, p99 = (ages_s[len(ages_s) * percent // 100] for percent in (50, 99))
    is_good = not mixed and ages_s[-1] <= chosen.max_age and len(ages_s) == len(calls)
    print(f"overwritten    p50 {p50:.2f} s, p99 {p99:.2f} s, at most {ages_s[-1]:.2f} s before the call")
    print(f"target         at most {chosen.max_age:g} s, no mix, nothing but answers: {'met' if is_good else 'MISSED'}")
    figures = {"mixed": mixed, "p50_s": p50, "p99_s": p99, "max_s": ages_s[-1], "statuses": statuses}
    record.save("overwrites", {"overwrites": chosen.overwrites, "max_age_s": chosen.max_age, **figures})
    return 0 if is_good else 1


def _overwrite(
    put: Callable[[str], None], targets: list[str], choice: random.Random, n_times: int, per_second: float
) -> None:
    began = time.monotonic()
    for n_done in range(n_times):
        time.sleep(max(0.0, began + n_done / per_second - time.monotonic()))
        put(choice.choice(targets))


if __name__ == "__main__":
    sys.exit(main())
