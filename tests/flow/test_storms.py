"""Many things at once: hot traffic while S3 hangs, thrash while it throttles and disks and processes fail."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import statistics
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from container.limits.cores import container_cores
from handler.loading.pacing import HITS_PER_LOAD, SPACING_S
from tests.flow.test_updates import ROW, answer_of, answers_as
from tests.rig import boosters, faulty_s3
from tests.rig.endpoint import Endpoint, is_running, until
from tests.rig.faulty_s3 import Answer, FaultyS3


@pytest.fixture(scope="module")
def s3() -> Iterator[FaultyS3]:
    with FaultyS3() as one:
        for number in range(40):
            one.put(f"{number}.tar.gz", boosters.segment_archive(number % 4))
        yield one


@pytest.fixture(scope="module")
def disk_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("disk")


@pytest.fixture(scope="module")
def thrashing(s3: FaultyS3, disk_cache: Path) -> Iterator[Endpoint]:
    """An endpoint with 40 models, memory for about ten and disk for about twenty, that checks them all the time."""
    scratch = Path(tempfile.mkdtemp(prefix="mt-"))
    flags = [
        *(
            "--s3-endpoint-url",
            s3.url,
            "--memory",
            boosters.memory_for(10, 8),
            "--workers",
            "8",
            "--loaders",
            "4",
            "--max-age",
            "0.2",
        ),
        *("--disk-dir", str(disk_cache), "--disk", "100KB"),
    ]
    with Endpoint(f"s3://{s3.bucket}/", scratch, *flags) as one:
        yield one
    shutil.rmtree(scratch)


class Storm:
    """Callers of all models; statuses are counted, and answers that are not the named model's are kept."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.statuses: Counter[int] = Counter()
        self.wrong: list[tuple[int, bytes]] = []
        self._endpoint = endpoint
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._call, args=[seed]) for seed in range(6)]

    def __enter__(self) -> Storm:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _call(self, seed: int) -> None:
        choice = random.Random(seed)
        while not self._stop.is_set():
            number = min(39, int(choice.paretovariate(0.7)) - 1)
            try:
                reply = self._endpoint.post(f"{number}.tar.gz", ROW)
            except OSError:
                self.statuses[0] += 1
                continue
            self.statuses[reply.status] += 1
            if reply.status == 200 and abs(float(reply.body) - answer_of(number % 4)) > 1e-4:
                self.wrong.append((number, reply.body))

    def served(self, more: int = 100) -> None:
        """Until so many more calls have been answered well."""
        goal = self.statuses[200] + more
        until(lambda: self.statuses[200] >= goal, 40)


def test_whatever_fails_under_thrash_no_answer_is_wrong_and_it_recovers(
    s3: FaultyS3, thrashing: Endpoint, disk_cache: Path
) -> None:
    with Storm(thrashing) as storm:
        storm.served()
        for fault in (faulty_s3.status(503, "SlowDown", times=30), faulty_s3.reset(times=30)):
            s3.faults[faulty_s3.ANY_KEY] = fault
            storm.served()
        s3.faults.clear()

        for path in disk_cache.iterdir():  # half the disk is damaged, the other half lost
            with contextlib.suppress(FileNotFoundError):  # the endpoint had it leave meanwhile
                if path.name != "lock":
                    content = bytearray(path.read_bytes())
                    content[len(content) // 2] ^= 1
                    path.write_bytes(content) if random.random() < 0.5 else path.unlink(missing_ok=True)
        storm.served()

        os.kill(thrashing.process("container.examine.examiner"), signal.SIGKILL)
        storm.served()

        runtime = thrashing.runtime
        os.kill(runtime, signal.SIGKILL)
        until(lambda: not is_running(runtime))
        storm.served()
    assert storm.wrong == []
    assert set(storm.statuses) <= {200, 500, 503}, storm.statuses
    replies = [answers_as(thrashing, f"{number}.tar.gz") for number in range(40)]
    assert replies == [number % 4 for number in range(40)]


def test_while_s3_hangs_cold_callers_do_not_hold_up_hot_ones(s3: FaultyS3, thrashing: Endpoint) -> None:
    s3.put("hot.tar.gz", boosters.segment_archive(3))
    until(lambda: answers_as(thrashing, "hot.tar.gz") == 3)
    for number in range(12):
        s3.put(f"cold/{number}.tar.gz", boosters.segment_archive(0))
        s3.faults[f"cold/{number}.tar.gz"] = faulty_s3.hang()
    try:
        with ThreadPoolExecutor(12) as callers:
            cold = [callers.submit(thrashing.post, f"cold/{number}.tar.gz", ROW) for number in range(12)]
            until(lambda: sum(s3.requests[f"cold/{number}.tar.gz"] for number in range(12)) >= 4)
            took_s = []
            for _ in range(100):
                start = time.monotonic()
                assert answers_as(thrashing, "hot.tar.gz") == 3
                took_s.append(time.monotonic() - start)
            s3.faults.clear()
            s3.hang_up()
            assert {reply.result(60).status for reply in cold} <= {200, 429, 503}
    finally:
        s3.faults.clear()
    # A hit takes milliseconds; behind the loads it would have been seconds.
    assert statistics.median(took_s) < 0.5


def test_beside_hot_calls_loads_begin_one_after_the_other(s3: FaultyS3) -> None:
    """Eight that are asked for in the same moment; without hot calls they would be asked of S3 in the same moment, too."""
    began: list[float] = []

    def note(exchange: Any, right: Answer) -> None:
        began.append(time.monotonic())
        faulty_s3.latency(0.5).act(exchange, right)  # none ends before all have begun

    scratch = Path(tempfile.mkdtemp(prefix="mt-"))
    flags = ["--s3-endpoint-url", s3.url, "--loaders", "8", "--max-age", "0"]
    with Endpoint(f"s3://{s3.bucket}/", scratch, *flags) as endpoint, ThreadPoolExecutor(12) as callers:
        is_over = threading.Event()

        def ask_hot() -> int:
            n_calls = 0
            while not is_over.is_set():
                n_calls += answers_as(endpoint, "0.tar.gz") == 0
            return n_calls

        until(lambda: answers_as(endpoint, "0.tar.gz") == 0)
        hot = [callers.submit(ask_hot) for _ in range(4)]
        time.sleep(1.0)
        for number in range(1, 9):
            s3.faults[f"{number}.tar.gz"] = faulty_s3.Fault(note)
        try:
            cold = [callers.submit(endpoint.post, f"{number}.tar.gz", ROW) for number in range(1, 9)]
            assert [reply.result(60).status for reply in cold] == [200] * 8
        finally:
            is_over.set()
            s3.faults.clear()
        assert sum(calls.result(60) for calls in hot) > 8 * HITS_PER_LOAD
    scratch.rmdir()
    assert max(began) - min(began) > 7 * SPACING_S / container_cores() / 2  # the first may have come late


def test_a_disk_that_cannot_be_used_is_said_and_models_are_served(s3: FaultyS3, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    scratch = Path(tempfile.mkdtemp(prefix="mt-"))
    flags = ["--s3-endpoint-url", s3.url, "--workers", "2", "--disk-dir", str(tmp_path / "file")]
    with Endpoint(f"s3://{s3.bucket}/", scratch, *flags) as endpoint:
        assert answers_as(endpoint, "1.tar.gz") == 1
        assert any("models are not kept on disk" in line for line in endpoint.log)
    scratch.rmdir()
