"""Models kept on disk, in a running endpoint."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.flow.test_updates import answers_as
from tests.rig import boosters, faulty_s3
from tests.rig.endpoint import Endpoint, is_running, until
from tests.rig.faulty_s3 import FaultyS3


@pytest.fixture(scope="module")
def s3() -> Iterator[FaultyS3]:
    with FaultyS3() as one:
        for number in range(4):
            one.put(f"{number}.tar.gz", boosters.segment_archive(number))
        yield one


@pytest.fixture(scope="module")
def flags(s3: FaultyS3, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    disk_cache = tmp_path_factory.mktemp("disk") / "models"
    # room in memory for one model at a time
    return [
        "--s3-endpoint-url",
        s3.url,
        "--disk-dir",
        str(disk_cache),
        "--workers",
        "4",
        "--memory",
        boosters.memory_for(1.5, 4),
    ]


@pytest.fixture(scope="module")
def endpoint(s3: FaultyS3, flags: list[str]) -> Iterator[Endpoint]:
    scratch = Path(tempfile.mkdtemp(prefix="mt-"))
    with Endpoint(f"s3://{s3.bucket}/", scratch, *flags) as one:
        yield one
    shutil.rmtree(scratch)


def test_what_was_evicted_or_lost_with_the_runtime_comes_back_without_s3(s3: FaultyS3, endpoint: Endpoint) -> None:
    for _ in range(3):
        assert [answers_as(endpoint, f"{number}.tar.gz") for number in range(4)] == [0, 1, 2, 3]
    assert set(s3.requests.values()) == {1}
    runtime = endpoint.runtime
    os.kill(runtime, signal.SIGKILL)
    until(lambda: not is_running(runtime))
    s3.faults[faulty_s3.ANY_KEY] = faulty_s3.status(503, "SlowDown")
    try:
        until(lambda: answers_as(endpoint, "0.tar.gz") == 0)
        assert [answers_as(endpoint, f"{number}.tar.gz") for number in range(4)] == [0, 1, 2, 3]
    finally:
        del s3.faults[faulty_s3.ANY_KEY]
    assert set(s3.requests.values()) == {1}


def test_a_second_endpoint_on_the_same_directory_serves_without_it(
    s3: FaultyS3, endpoint: Endpoint, flags: list[str]
) -> None:
    scratch = Path(tempfile.mkdtemp(prefix="mt-"))
    with Endpoint(f"s3://{s3.bucket}/", scratch, *flags) as second:
        assert answers_as(second, "1.tar.gz") == 1
        assert any("another endpoint uses it" in line for line in second.log)
    scratch.rmdir()
