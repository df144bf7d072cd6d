"""Releases of thousands of segments: `python -m benchmarks.releases [--segments 10000] [--changes 10]`.

First: that many artifacts of 70 KB on a small S3 of this machine, published, approved, approved again as another release and
taken back, all and one; seconds, requests and memory of each command, and what examining and copying take by themselves.
With --published N only so many are published, and the others put on the shelf as they are: examining 10,000 takes minutes.

Then: a release approved and taken back again and again under open load. Every answer is traced to the model that gave it.
Target: none failed, none of a model that never lay on its key, and no old answer later than the max age after the change.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.rig import record, storms
from benchmarks.rig.open_load import Call, Client
from container.examine.quarantine import Quarantine
from container.operate.artifacts.archive import MEMBER, pack
from container.operate.demo import houses
from container.operate.release import shelf
from container.operate.release.manifest import Manifest, content_of
from container.operate.release.place import N_AT_ONCE, place_at
from handler.importer.booster import import_booster
from handler.importer.learner import Learner
from handler.importer.writer import ubj_of
from tests.rig.endpoint import Endpoint
from tests.rig.faulty_s3 import ENVIRONMENT, FaultyS3

LIVE = "s3://models/live/"
N_TARGETS = 20
N_TRIED = 300  # artifacts that examining is timed with
SETTLE_S = 2.0  # of calls after the last change's max age


@dataclass(frozen=True, slots=True)
class Ran:
    """One command: what it said, how long it took, of that on a processor, what it asked of S3 and its largest memory."""

    facts: Any
    seconds: float
    cpu_s: float
    methods: dict[str, int]
    max_mib: float

    def line(self, what: str) -> str:
        asked = "  ".join(f"{method} {n:,}" for method, n in sorted(self.methods.items()))
        return f"{what:<18}{self.seconds:8.1f} s  {self.cpu_s:6.1f} s of a core  {self.max_mib:6.0f} MiB  {asked}"


class _Largest(threading.Thread):
    """The largest resident memory of a process, looked at until it ends. What wait4 tells includes what forked it."""

    def __init__(self, pid: int) -> None:
        super().__init__()
        self._status = Path(f"/proc/{pid}/status")
        self._kib = 0
        self.start()

    def run(self) -> None:
        with suppress(OSError, IndexError):  # it has ended, or is a zombie
            while True:
                told = self._status.read_text()
                if "container.operate" not in self._status.with_name("cmdline").read_text():
                    continue  # not exec'd yet
                self._kib = int(told.split("VmHWM:")[1].split()[0])
                time.sleep(0.02)

    def wait_mib(self) -> float:
        self.join()
        return self._kib / 1024


def mme(s3: FaultyS3, *words: str) -> Ran:
    s3.methods.clear()
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "container.operate.main", *words, "--s3-endpoint-url", s3.url, "--json"],
        env={**os.environ, **ENVIRONMENT},
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    largest = _Largest(process.pid)
    said = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, said.decode()
    cpu_s = usage.ru_utime + usage.ru_stime
    return Ran(json.loads(said), time.monotonic() - began, cpu_s, dict(s3.methods), largest.wait_mib())


def large(n_segments: int, n_published: int) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    digests: dict[str, str] = {}

    def note(name: str, ran: Ran) -> Ran:
        print(ran.line(name), flush=True)
        figures[name] = {
            "seconds": round(ran.seconds, 2),
            "cpu_s": round(ran.cpu_s, 2),
            "requests": sum(ran.methods.values()),
            "mib": round(ran.max_mib),
        }
        return ran

    with FaultyS3() as s3:
        learner = _learner()
        for number in range(n_segments):
            key = f"us/{number:05}.tar.gz"
            if number < n_published:
                document = ubj_of(replace(learner, base_score=np.array([1 + number / 1024], np.float32)))
                packed = pack({MEMBER: document})
                s3.put(f"source/{key}", packed)
            else:  # the same archive of another time, which gzip's header has: as good as another where nobody reads it
                packed = packed[:4] + number.to_bytes(4, "little") + packed[8:]
                s3.put(f"live.releases/{shelf.artifact_key(shelf.digest_of(packed))}", packed)
            digests[key] = shelf.digest_of(packed)
        sizes = [len(data) for data in s3.objects.values()]
        print(
            f"{n_segments:,} artifacts of {sum(sizes) / len(sizes) / 1024:.0f} KiB, {len(document) / 1024:.0f} KiB unpacked"
        )
        tried = [s3.objects[key] for key in list(s3.objects)[:N_TRIED]]
        alone_s = _examine_alone(tried) / len(tried)
        published = note("publish", mme(s3, "publish", "s3://models/source/", "--to", LIVE))
        examining_s = alone_s * n_published
        share = examining_s / published.seconds
        print(f"{'':<18}{n_published:,} of them; examining alone {examining_s:.1f} s: {share:.0%} of it")
        note("publish again", mme(s3, "publish", "s3://models/source/", "--to", LIVE))
        first = _all(s3, published.facts["release"], digests)
        note("approve", mme(s3, "release", "approve", first, "--of", LIVE))
        copying_s = _copy_alone(s3, n_segments)
        second = _rotated(s3, first)
        approved = note("approve another", mme(s3, "release", "approve", second, "--of", LIVE))
        print(f"{'':<18}copying alone {copying_s:10.1f} s: {copying_s / approved.seconds:.0%} of it")
        note("rollback", mme(s3, "release", "rollback", "--of", LIVE))
        note("approve another", mme(s3, "release", "approve", second, "--of", LIVE))
        note("rollback of one", mme(s3, "release", "rollback", "--of", LIVE, "--only", "us/00007.tar.gz"))
        note("show", mme(s3, "release", "show", "--of", LIVE))
    return figures | {
        "segments": n_segments,
        "published": n_published,
        "examining_s": round(examining_s, 1),
        "copying_s": round(copying_s, 1),
    }


def _learner() -> Learner:
    """A model of the size that segments have."""
    with tarfile.open(fileobj=io.BytesIO(houses.train_city("Houston_TX", 310_000).archive)) as city:
        member = city.extractfile(MEMBER)
        assert member is not None
        return import_booster(member.read(), "made").learner


def _examine_alone(artifacts: list[bytes]) -> float:
    n_at_once = len(os.sched_getaffinity(0)) + 1
    with closing(Quarantine(n_at_once)) as quarantine, ThreadPoolExecutor(n_at_once) as threads:
        quarantine.start()

        def examine(data: bytes) -> None:
            quarantine.examine(data, "one", wants_origins=True)

        list(threads.map(examine, artifacts[:10]))
        began = time.monotonic()
        list(threads.map(examine, artifacts))
        return time.monotonic() - began


def _copy_alone(s3: FaultyS3, n_copies: int) -> float:
    """Seconds for so many copies by so many threads, and nothing else."""
    with closing(place_at(LIVE, None, s3.url)) as place, ThreadPoolExecutor(N_AT_ONCE) as threads:
        keys = [found.target for found in place.shelf.list(shelf.ARTIFACTS)][:n_copies]
        began = time.monotonic()
        list(threads.map(lambda key: place.shelf.copy(place.shelf, key, f"tried/{key}"), keys))
        took_s = time.monotonic() - began
    for key in [key for key in s3.objects if "/tried/" in key]:
        del s3.objects[key]
    return took_s


def _all(s3: FaultyS3, id: str, digests: dict[str, str]) -> str:
    """The release with all segments in it, as if all had been published."""
    with closing(place_at(LIVE, None, s3.url)) as place:
        published = shelf.manifest(place.shelf, id)
        like = next(iter(published.segments.values()))
        segments = {key: replace(like, digest=digest) for key, digest in digests.items()}
        segments |= dict(published.segments)
        return id if segments == published.segments else _put(place.shelf, replace(published, segments=segments))


def _rotated(s3: FaultyS3, id: str) -> str:
    """Another release of the same artifacts, each on its neighbour's key."""
    with closing(place_at(LIVE, None, s3.url)) as place:
        first = shelf.manifest(place.shelf, id)
        keys = sorted(first.segments)
        segments = {key: first.segments[next_key] for key, next_key in zip(keys, [*keys[1:], keys[0]], strict=True)}
        return _put(place.shelf, replace(first, segments=segments))


def _put(store: Any, manifest: Manifest) -> str:
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    made = replace(manifest, id=f"{stamp}-{content_of(manifest.segments, manifest.refused)}")
    shelf.put_manifest(store, made)
    return made.id


@dataclass(frozen=True, slots=True)
class Changed:
    """Models that lie on the keys from a moment between `began` and `ended` on: the old ones or the new."""

    began: float
    ended: float
    is_new: bool


def under_load(n_changes: int, rate: float, max_age_s: float, scratch: Path) -> tuple[bool, dict[str, Any]]:
    made = storms.make(2 * N_TARGETS, 12)
    targets = [f"us/{number:02}.tar.gz" for number in range(N_TARGETS)]
    changes = [Changed(0.0, 0.0, False)]
    with FaultyS3() as s3:
        ids = []
        for first in (0, N_TARGETS):
            for at, target in enumerate(targets):
                s3.put(f"source{first}/{target}", made.archives[first + at])
            ids.append(mme(s3, "publish", f"s3://models/source{first}/", "--to", LIVE).facts["release"])
        mme(s3, "release", "approve", ids[0], "--of", LIVE)

        def change() -> None:
            for number in range(n_changes):
                is_new = number % 2 == 0
                words = ("approve", ids[1]) if is_new else ("rollback",)
                began = time.monotonic()
                mme(s3, "release", *words, "--of", LIVE)
                changes.append(Changed(began, time.monotonic(), is_new))
                time.sleep(max_age_s / 2 if number % 3 else 1.5 * max_age_s)
            time.sleep(max_age_s + SETTLE_S)

        choice = random.Random(0)
        flags = ["--s3-endpoint-url", s3.url, "--max-age", str(max_age_s)]
        with Endpoint(LIVE, scratch, *flags) as endpoint, Client(endpoint.port, storms.ROW.encode()) as client:
            client.call_until_served(targets, 0.0, 0.1, 60.0)
            changing = client.start(change)
            calls = client.open(lambda: choice.choice(targets), rate, lambda _: not changing.is_alive())
    return _judged(calls, changes, targets, made.number, max_age_s)


def _judged(
    calls: list[Call],
    changes: list[Changed],
    targets: list[str],
    number_of: Callable[[bytes], int | None],
    max_age_s: float,
) -> tuple[bool, dict[str, Any]]:
    statuses = Counter(call.status for call in calls)
    n_neither, late_s, n_old = 0, [0.0], 0
    for call in calls:
        if call.status != 200:
            continue
        at = targets.index(call.target)
        number = number_of(call.body)
        if number not in (at, at + N_TARGETS):
            n_neither += 1
            continue
        is_new = number != at
        # The last moment, before the call began, at which a model like the answer's may still have lain there.
        last = max((one for one in changes if one.began <= call.ended), key=lambda one: one.ended)
        if last.is_new != is_new and last.ended < call.due:
            n_old += 1
            late_s.append(call.due - last.ended)
    is_good = set(statuses) == {200} and not n_neither and max(late_s) <= max_age_s
    print(f"changes        {len(changes) - 1} under {len(calls):,} calls; statuses {dict(statuses)}")
    print(f"of neither     {n_neither}")
    print(f"old answers    {n_old:,}, the last {max(late_s):.2f} s after the change was done")
    print(
        f"target         at most {max_age_s:g} s, nothing but answers of one or the other: {'met' if is_good else 'MISSED'}"
    )
    figures = {
        "calls": len(calls),
        "statuses": dict(statuses),
        "neither": n_neither,
        "last_old_s": round(max(late_s), 2),
    }
    return is_good, figures


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--segments", type=int, default=10_000, help="0 leaves that part out")
    parser.add_argument(
        "--published", type=int, help="of them published, the others put on the shelf as they are; else all"
    )
    parser.add_argument("--changes", type=int, default=10, help="0 leaves that part out")
    parser.add_argument("--rate", type=float, default=200.0, help="calls a second")
    parser.add_argument("--max-age", type=float, default=5.0)
    chosen = parser.parse_args()
    os.environ.update(ENVIRONMENT)
    figures: dict[str, Any] = {}
    is_good = True
    if chosen.segments:
        figures["large"] = large(chosen.segments, min(chosen.published or chosen.segments, chosen.segments))
    if chosen.changes:
        with tempfile.TemporaryDirectory(prefix="r-") as scratch:
            is_good, figures["under_load"] = under_load(chosen.changes, chosen.rate, chosen.max_age, Path(scratch))
    record.save("releases", figures)
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
