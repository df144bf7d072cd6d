"""Faults at random, under load: `python -m benchmarks.chaos [--seconds 600] [--rate 200] [--seed 0]`.

Every half second something goes wrong: S3 throttles, hangs, resets, denies, cuts answers short or flips a byte of them, its
bucket is gone, the clock is off; an object is overwritten, broken or deleted; the disk tier is damaged, full or read-only;
the examiner, one of its readers or a stub is killed, and in the first half the runtime, the front end and the supervisor.
When the endpoint as a whole has ended it is started again, as a platform would. Calls come at a fixed rate all the while.

Targets: no answer that no version of the named object gives; when all is well again, the runtime having been killed last,
every model answers within 10 s; over the last half threads, descriptors, memory and disk stay as they are.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.rig import record, storms
from benchmarks.rig.open_load import Client
from benchmarks.rig.verdicts import Verdicts
from tests.rig import faulty_s3
from tests.rig.endpoint import Endpoint, free_port
from tests.rig.faulty_s3 import ANY_KEY, FaultyS3

N_TARGETS = 60
N_VERSIONS = 12
PAUSE_S = 0.5
LOOK_S = 1.0
PATIENCE_S = 60.0
TARGET_RECOVERY_S = 10.0
STOCK_BYTES = 400_000
DISK_BYTES = 600_000
FULL_S = 2.0  # for so long the disk is full, or read-only
# What may be in flight at one moment and not at another: a request's connections, a load's buffers.
MORE_THREADS, MORE_DESCRIPTORS, MORE_MB = 4, 16, 15.0


class Disk:
    """A small file system of its own for the disk tier, where the machine lets us mount one; else a directory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.stock = root / "stock"
        self._lock = threading.Lock()
        command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=700", "mme-chaos", str(root)]
        self.is_own = os.geteuid() == 0 and subprocess.run(command, capture_output=True, check=False).returncode == 0
        self.stock.mkdir(mode=0o700)

    @property
    def n_bytes(self) -> int:
        return sum(path.stat().st_size for path in list(self.stock.iterdir()) if path.exists())

    def fill(self) -> None:
        ballast = self.root / "ballast"
        with self._lock:
            try:
                ballast.write_bytes(bytes(DISK_BYTES))
            except OSError:  # now it is full
                time.sleep(FULL_S)
            ballast.unlink(missing_ok=True)

    def refuse_writes(self) -> None:
        with self._lock:
            done = self._remount("ro")
            time.sleep(FULL_S if done else 0.0)
            self._remount("rw")

    def damage(self, choice: random.Random) -> None:
        kept = sorted(self.stock.iterdir())
        for path in choice.sample(kept, min(3, len(kept))):
            try:
                content = bytearray(path.read_bytes())
                content[choice.randrange(len(content))] ^= 0xFF
                path.write_bytes(content)
            except (OSError, ValueError):  # it has just left, is the empty lock, or the disk is full
                continue

    def _remount(self, mode: str) -> bool:
        command = ["mount", "-o", f"remount,{mode}", str(self.root)]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0  # it may be being written to

    def close(self) -> None:
        if self.is_own:
            with self._lock:
                subprocess.run(["umount", "--lazy", str(self.root)], check=False)


class Platform:
    """Keeps an endpoint at one port: starts another when it has ended."""

    def __init__(self, location: str, *flags: str) -> None:
        self._location = location
        self._flags = flags
        self._port = free_port()
        self.n_starts = 0
        self._is_over = False
        self.endpoint = self._start()
        self._thread = threading.Thread(target=self._look_after)
        self._thread.start()

    @property
    def port(self) -> int:
        return self._port

    def _start(self) -> Endpoint:
        self.n_starts += 1
        scratch = Path(tempfile.mkdtemp(prefix="c-"))
        endpoint = Endpoint(self._location, scratch, *self._flags, port=self._port)
        endpoint.wait_ready()
        return endpoint

    def _look_after(self) -> None:
        while not self._is_over:
            ended = self.endpoint
            if not ended.is_running:
                ended.kill()
                self.endpoint = self._start()
                subprocess.run(["rm", "-rf", str(ended.scratch)], check=False)
            time.sleep(0.05)

    def close(self) -> None:
        self._is_over = True
        self._thread.join()
        self.endpoint.stop()
        self.endpoint.scratch.rmdir()


class Chaos:
    """Everything that can go wrong."""

    def __init__(self, made: storms.Made, s3: FaultyS3, disk: Disk, choice: random.Random) -> None:
        self._made = made
        self._s3 = s3
        self._disk = disk
        self._choice = choice
        self.targets = [f"{number}.tar.gz" for number in range(N_TARGETS)]
        self.ever: dict[str, set[int]] = defaultdict(set)
        self.done: Counter[str] = Counter()
        self._slow: list[threading.Thread] = []
        for target in self.targets:
            self.overwrite(target)

    def overwrite(self, target: str) -> None:
        number = self._choice.randrange(N_VERSIONS)
        self.ever[target].add(number)
        self._s3.put(target, self._made.archives[number])

    def do_something(self, endpoint: Endpoint, *, is_deadly: bool) -> None:
        target = self._choice.choice(self.targets)
        s3_faults: dict[str, faulty_s3.Fault] = {
            "throttled": faulty_s3.status(503, "SlowDown", times=20),
            "failing": faulty_s3.status(500, "InternalError", times=20),
            "credentials expired": faulty_s3.status(400, "ExpiredToken", times=10),
            "clock off": faulty_s3.status(403, "RequestTimeTooSkewed", times=10),
            "denied": faulty_s3.status(403, "AccessDenied", times=10),
            "bucket gone": faulty_s3.status(404, "NoSuchBucket", times=10),
            "reset": faulty_s3.reset(times=10),
            "hung": faulty_s3.hang(times=3),
            "cut short": faulty_s3.cut_short(500, times=10),
            "flipped": faulty_s3.flip_byte(500, times=10),
        }
        acts: dict[str, Callable[[], object]] = {
            "overwritten": lambda: self.overwrite(target),
            "broken": lambda: self._s3.put(target, self._choice.randbytes(2000)),
            "deleted": lambda: self._s3.objects.pop(target, None),
            "disk damaged": lambda: self._disk.damage(self._choice),
            "examiner killed": lambda: _kill(lambda: endpoint.process("container.examine.examiner")),
            "reader killed": lambda: _kill(lambda: _children(endpoint.process("container.examine.examiner"))[0]),
            "stub killed": lambda: _kill(lambda: endpoint.stub),
        }
        if self._disk.is_own:
            acts["disk full"] = lambda: self._at_leisure(self._disk.fill)
            acts["disk read-only"] = lambda: self._at_leisure(self._disk.refuse_writes)
        if is_deadly:
            acts["runtime killed"] = lambda: _kill(lambda: endpoint.runtime)
            if self._choice.random() < 0.2:  # a start takes seconds
                acts["front end killed"] = lambda: _kill(lambda: endpoint.jvm)
                acts["supervisor killed"] = lambda: _kill(lambda: endpoint.pid)
        name = self._choice.choice([*s3_faults, *acts])
        self.done[name] += 1
        if name in acts:
            acts[name]()
        else:
            self._s3.faults[ANY_KEY] = s3_faults[name]

    def _at_leisure(self, work: Callable[[], None]) -> None:
        self._slow.append(threading.Thread(target=work))
        self._slow[-1].start()

    def make_well(self) -> None:
        for thread in self._slow:
            thread.join()
        self._s3.faults.clear()
        self._s3.hang_up()
        for target in self.targets:
            self.overwrite(target)


def _kill(find: Callable[[], int]) -> None:
    try:
        os.kill(find(), signal.SIGKILL)
    except (StopIteration, ProcessLookupError, IndexError, OSError):
        return  # it is dead already


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _taken(endpoint: Endpoint, disk: Disk) -> dict[str, float] | None:
    """What those processes take that live as long as the endpoint; None while one of them is being replaced."""
    taken = {"threads": 0.0, "descriptors": 0.0, "resident_mb": 0.0, "disk_mb": disk.n_bytes / 1e6}
    try:
        for pid in (endpoint.pid, endpoint.jvm, endpoint.runtime):
            taken["threads"] += len(os.listdir(f"/proc/{pid}/task"))
            taken["descriptors"] += len(os.listdir(f"/proc/{pid}/fd"))
            taken["resident_mb"] += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 / 1e6
    except (OSError, StopIteration):
        return None
    return taken


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--rate", type=float, default=200.0, help="calls a second")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    made = storms.make(N_VERSIONS, 12)
    own = random.Random(chosen.seed + 1)
    with FaultyS3() as s3, tempfile.TemporaryDirectory() as root, _disk(Path(root)) as disk:
        chaos = Chaos(made, s3, disk, random.Random(chosen.seed))
        platform = Platform(
            f"s3://{s3.bucket}/",
            *("--s3-endpoint-url", s3.url, "--max-age", "1", "--memory", "400KB", "--wait", "10"),
            *("--disk-dir", str(disk.stock), "--disk", str(STOCK_BYTES)),
        )
        try:
            with Client(platform.port, storms.ROW.encode()) as client:
                looks: list[dict[str, float]] = []
                until = time.monotonic() + chosen.seconds
                trouble = client.start(lambda: _make_trouble(chaos, platform, disk, until, looks))
                calls = client.open(
                    lambda: chaos.targets[min(N_TARGETS, int(own.paretovariate(0.7))) - 1],
                    chosen.rate,
                    lambda _: not trouble.is_alive(),
                )
            _kill(lambda: platform.endpoint.runtime)
            chaos.make_well()
            recovery_s = _recovery_s(platform.port, chaos.targets)
        finally:
            platform.close()
    wrong = [call for call in calls if call.status == 200 and made.number(call.body) not in chaos.ever[call.target]]
    statuses = dict(Counter(call.status for call in calls))
    print(f"done           {dict(chaos.done)}")
    print(f"calls          {len(calls):,} in {chosen.seconds:.0f} s, statuses {statuses}; {platform.n_starts} starts")
    verdicts = Verdicts()
    verdicts.say("wrong answers", str(len(wrong)), "none", not wrong)
    verdicts.say(
        "well again",
        f"not within {PATIENCE_S:.0f} s" if recovery_s is None else f"after {recovery_s:.1f} s",
        f"within {TARGET_RECOVERY_S:g} s",
        recovery_s is not None and recovery_s <= TARGET_RECOVERY_S,
    )
    _judge_growth(looks, verdicts)
    record.save(
        "chaos",
        {
            "seconds": chosen.seconds,
            "done": chaos.done,
            "statuses": statuses,
            "looks": looks,
            "verdicts": verdicts.lines,
        },
    )
    return verdicts.exit_status


@contextmanager
def _disk(root: Path) -> Iterator[Disk]:
    disk = Disk(root)
    try:
        yield disk
    finally:
        disk.close()


def _make_trouble(chaos: Chaos, platform: Platform, disk: Disk, until: float, looks: list[dict[str, float]]) -> None:
    """One thing after another; `looks` are those of the second half."""
    half = time.monotonic() + (until - time.monotonic()) / 2
    look_at = half
    while (now := time.monotonic()) < until:
        chaos.do_something(platform.endpoint, is_deadly=now < half)
        if now >= look_at and (taken := _taken(platform.endpoint, disk)) is not None:
            looks.append(taken)
            look_at = now + LOOK_S
        time.sleep(PAUSE_S)


def _judge_growth(looks: Sequence[dict[str, float]], verdicts: Verdicts) -> None:
    """Medians of the first and the last third of the second half."""
    third = max(1, len(looks) // 3)
    most: dict[str, float] = {
        "threads": MORE_THREADS, "descriptors": MORE_DESCRIPTORS, "resident_mb": MORE_MB, "disk_mb": 1.1 * STOCK_BYTES / 1e6,
    }  # fmt: skip
    for name, allowed in most.items():
        first, last = (statistics.median(look[name] for look in part) for part in (looks[:third], looks[-third:]))
        grown = last - first if name != "disk_mb" else max(look[name] for look in looks)
        figure = f"{first:.1f}, later {last:.1f}" if name != "disk_mb" else f"{grown:.2f} at most"
        target = f"{allowed:g} more at most" if name != "disk_mb" else f"at most {allowed:g}"
        verdicts.say(name.replace("_mb", " MB"), figure, target, grown <= allowed)


def _recovery_s(port: int, targets: Sequence[str]) -> float | None:
    """How long until every target answers; None when that takes too long."""
    caller = storms.Caller(port)
    began = time.monotonic()
    left = list(targets)
    while left and time.monotonic() - began < PATIENCE_S:
        left = [target for target in left if caller.call(target).status != 200]
        time.sleep(0.1 if left else 0.0)
    caller.close()
    return None if left else time.monotonic() - began


if __name__ == "__main__":
    sys.exit(main())
