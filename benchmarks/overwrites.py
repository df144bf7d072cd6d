"""Objects overwritten under load: `python -m benchmarks.overwrites [--overwrites 10000] [--max-age 5]`.

Every answer is traced to the booster that gave it. Printed: answers that no single version gives (a mix of two; must be
none), and how old answers are: for how long their version had already been overwritten when the call began.
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

from benchmarks import storms
from tests.endpoint import Endpoint
from tests.faulty_s3 import FaultyS3

N_TARGETS = 20
N_VERSIONS = 60
GRACE_S = 1.0  # for a check to be made on a busy machine


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
    parser.add_argument("--callers", type=int, default=4)
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

        def choose(seed: int) -> Callable[[], str]:
            own = random.Random(seed)
            return lambda: own.choice(targets)

        flags = ["--s3-endpoint-url", s3.url, "--max-age", str(chosen.max_age)]
        with Endpoint(f"s3://{s3.bucket}/", Path(scratch), *flags) as endpoint:
            began = time.monotonic()
            with storms.Crowd(endpoint.port, chosen.callers, choose) as crowd:
                for n_done in range(chosen.overwrites):
                    put(choice.choice(targets))
                    time.sleep(max(0.0, began + n_done / chosen.per_second - time.monotonic()))
            took_s = time.monotonic() - began
    mixed, ages_s = 0, []
    for said in crowd.said:
        if said.status != 200:
            continue
        number = made.number(said.body)
        age_s = None if number is None else history.staleness_s(said.target, number, said.began, said.ended)
        if age_s is None:
            mixed += 1
        else:
            ages_s.append(age_s)
    ages_s.sort()
    print(f"overwrites     {chosen.overwrites:,} of {N_TARGETS} objects in {took_s:.0f} s")
    print(f"requests       {sum(s3.requests.values()):,} to S3")
    print(f"calls          {len(crowd.said):,}; statuses {dict(Counter(said.status for said in crowd.said))}")
    print(f"of no version  {mixed}")
    p50, p99 = (ages_s[len(ages_s) * percent // 100] for percent in (50, 99))
    print(f"overwritten    p50 {p50:.2f} s, p99 {p99:.2f} s, at most {ages_s[-1]:.2f} s before the call")
    print(f"allowed        {chosen.max_age:g} s, and {GRACE_S:g} s for the check")
    return int(mixed > 0 or ages_s[-1] > chosen.max_age + GRACE_S or len(ages_s) < len(crowd.said))


if __name__ == "__main__":
    sys.exit(main())
