"""Faults at random, under load: `python -m benchmarks.chaos [--seconds 60] [--seed 0]`.

Every half second something goes wrong: S3 throttles, hangs, resets, cuts answers short or flips a byte of them, an object
is overwritten, broken or deleted, a file of the disk tier is damaged, the runtime or the examiner is killed. Printed: what
was done, what callers were told, and answers that no version of the named object ever gave (must be none). Afterwards all
is well again, and so must be every call.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path

from benchmarks import storms
from tests import faulty_s3
from tests.endpoint import Endpoint
from tests.faulty_s3 import ANY_KEY, FaultyS3

N_TARGETS = 60
N_VERSIONS = 12
PAUSE_S = 0.5
RECOVERY_S = 30.0


class Chaos:
    """The object store, the disk and the processes, and everything that can be done to them."""

    def __init__(self, made: storms.Made, s3: FaultyS3, shelf: Path, choice: random.Random) -> None:
        self._made = made
        self._s3 = s3
        self._shelf = shelf
        self._choice = choice
        self.targets = [f"{number}.tar.gz" for number in range(N_TARGETS)]
        self.ever: dict[str, set[int]] = defaultdict(set)
        self.done: Counter[str] = Counter()
        for target in self.targets:
            self.overwrite(target)

    def overwrite(self, target: str) -> None:
        number = self._choice.randrange(N_VERSIONS)
        self.ever[target].add(number)
        self._s3.put(target, self._made.archives[number])

    def do_something(self, endpoint: Endpoint) -> None:
        target = self._choice.choice(self.targets)
        s3_faults: dict[str, faulty_s3.Fault] = {
            "throttled": faulty_s3.status(503, "SlowDown", times=20),
            "credentials expired": faulty_s3.status(400, "ExpiredToken", times=10),
            "reset": faulty_s3.reset(times=10),
            "hung": faulty_s3.hang(times=3),
            "cut short": faulty_s3.cut_short(500, times=10),
            "flipped": faulty_s3.flip_byte(500, times=10),
        }
        acts: dict[str, Callable[[], object]] = {
            "overwritten": lambda: self.overwrite(target),
            "broken": lambda: self._s3.put(target, self._choice.randbytes(2000)),
            "deleted": lambda: self._s3.objects.pop(target, None),
            "disk damaged": self._damage_disk,
            "examiner killed": lambda: _kill(lambda: endpoint.process("container.worker.examiner")),
            "runtime killed": lambda: _kill(lambda: endpoint.runtime),
        }
        name = self._choice.choice([*s3_faults, *acts])
        if name == "runtime killed" and self._choice.random() < 0.5:
            return  # it would hardly do anything else
        self.done[name] += 1
        if name in acts:
            acts[name]()
        else:
            self._s3.faults[ANY_KEY] = s3_faults[name]

    def make_well(self) -> None:
        self._s3.faults.clear()
        self._s3.hang_up()
        for target in self.targets:
            self.overwrite(target)

    def _damage_disk(self) -> None:
        for path in self._choice.sample(sorted(self._shelf.iterdir()), 3):
            try:
                content = bytearray(path.read_bytes())
                content[self._choice.randrange(len(content))] ^= 0xFF
                path.write_bytes(content)
            except (OSError, ValueError):  # it has just left, or is the empty lock
                continue


def _kill(find: Callable[[], int]) -> None:
    try:
        os.kill(find(), signal.SIGKILL)
    except (StopIteration, ProcessLookupError, IndexError):
        return  # it is dead already


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--callers", type=int, default=8)
    chosen = parser.parse_args()
    choice = random.Random(chosen.seed)
    made = storms.make(N_VERSIONS, 12)
    with (
        FaultyS3() as s3,
        tempfile.TemporaryDirectory(prefix="c-") as scratch,
        tempfile.TemporaryDirectory() as shelf,
    ):
        chaos = Chaos(made, s3, Path(shelf), choice)
        flags = [
            *("--s3-endpoint-url", s3.url, "--max-age", "1", "--memory", "400KB", "--wait", "10"),
            *("--disk-dir", shelf, "--disk", "400KB"),
        ]

        def choose(seed: int) -> Callable[[], str]:
            own = random.Random(seed)
            return lambda: chaos.targets[min(N_TARGETS, int(own.paretovariate(0.7))) - 1]

        with Endpoint(f"s3://{s3.bucket}/", Path(scratch), *flags) as endpoint:
            until = time.monotonic() + chosen.seconds
            with storms.Crowd(endpoint.port, chosen.callers, choose) as crowd:
                while time.monotonic() < until:
                    chaos.do_something(endpoint)
                    time.sleep(PAUSE_S)
            chaos.make_well()
            took_s = _recovery_s(endpoint.port, chaos.targets)
    wrong = sum(made.number(said.body) not in chaos.ever[said.target] for said in crowd.said if said.status == 200)
    print(f"done           {dict(chaos.done)}")
    print(f"calls          {len(crowd.said):,}; statuses {dict(Counter(said.status for said in crowd.said))}")
    print(f"wrong answers  {wrong}")
    print(f"well again     {'not within' if took_s is None else 'after'} {took_s or RECOVERY_S:.1f} s")
    return int(wrong > 0 or took_s is None)


def _recovery_s(port: int, targets: list[str]) -> float | None:
    """How long until every target answers; None when that takes too long."""
    caller = storms.Caller(port)
    began = time.monotonic()
    while time.monotonic() - began < RECOVERY_S:
        if all(caller.call(target).status == 200 for target in targets):
            caller.close()
            return time.monotonic() - began
        time.sleep(0.2)
    caller.close()
    return None


if __name__ == "__main__":
    sys.exit(main())
