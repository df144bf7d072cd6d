"""A bucket that changes below a running endpoint."""

from __future__ import annotations

import json
import shutil
import tempfile
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.rig import boosters, faulty_s3
from tests.rig.endpoint import Endpoint, free_port, until
from tests.rig.faulty_s3 import FaultyS3

ROW = "0.1,0.2,0.3,0.4,0.5,0.6"
X = boosters.rows(1, 6)
X[:] = [float(cell) for cell in ROW.split(",")]
MAX_AGE_S = 0.3


def answer_of(number: int) -> float:
    return float(boosters.expected(boosters.segment(number), X)[0, 0])


def answers_as(endpoint: Endpoint, target: str) -> int | None:
    """The segment whose booster answers, or None for an error."""
    reply = endpoint.post(target, ROW)
    if reply.status != 200:
        return None
    (found,) = [number for number in range(4) if abs(answer_of(number) - float(reply.body)) < 1e-4]
    return found


@pytest.fixture(scope="module")
def s3() -> Iterator[FaultyS3]:
    with FaultyS3() as one:
        yield one


@pytest.fixture(scope="module")
def admin_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def bucket(s3: FaultyS3, admin_port: int) -> Iterator[Endpoint]:
    scratch = Path(tempfile.mkdtemp(prefix="mt-"))
    flags = [
        *("--s3-endpoint-url", s3.url, "--max-age", str(MAX_AGE_S), "--workers", "8", "--loaders", "2"),
        *("--admin-port", str(admin_port)),
    ]
    with Endpoint(f"s3://{s3.bucket}/", scratch, *flags) as one:
        yield one
    shutil.rmtree(scratch)


def test_an_overwritten_object_serves_soon_and_every_answer_is_of_one_version(s3: FaultyS3, bucket: Endpoint) -> None:
    s3.put("over.tar.gz", boosters.segment_archive(0))
    with ThreadPoolExecutor(4) as callers:
        for number in (0, 1, 2):
            s3.put("over.tar.gz", boosters.segment_archive(number))
            seen: set[int | None] = set()

            def has_changed(seen: set[int | None] = seen, number: int = number) -> bool:
                found = list(callers.map(lambda _: answers_as(bucket, "over.tar.gz"), range(8)))
                seen.update(found)
                return set(found) == {number}

            until(has_changed)
            assert seen <= {number, number - 1} - {-1}


def test_a_broken_overwrite_keeps_the_old_model_and_the_operator_sees_why(
    s3: FaultyS3, bucket: Endpoint, admin_port: int
) -> None:
    s3.put("spoilt.tar.gz", boosters.segment_archive(1))
    assert answers_as(bucket, "spoilt.tar.gz") == 1
    s3.put("spoilt.tar.gz", b"no model at all")

    def trouble() -> str:
        assert answers_as(bucket, "spoilt.tar.gz") == 1
        with urllib.request.urlopen(f"http://127.0.0.1:{admin_port}/models?contains=spoilt") as answer:
            (model,) = json.load(answer)["models"]
        return str(model["trouble"])

    until(lambda: "is broken" in trouble())
    assert any("spoilt.tar.gz stays at version" in line for line in bucket.log)


def test_a_deleted_object_is_served_no_longer(s3: FaultyS3, bucket: Endpoint) -> None:
    s3.put("gone.tar.gz", boosters.segment_archive(1))
    assert answers_as(bucket, "gone.tar.gz") == 1
    del s3.objects["gone.tar.gz"]
    until(lambda: answers_as(bucket, "gone.tar.gz") is None)
    assert bucket.post("gone.tar.gz", ROW).status == 400
    s3.put("gone.tar.gz", boosters.segment_archive(2))
    assert answers_as(bucket, "gone.tar.gz") == 2


@pytest.mark.parametrize(
    "fault",
    [
        faulty_s3.hang(),
        faulty_s3.status(503, "SlowDown"),
        faulty_s3.status(400, "ExpiredToken"),
        faulty_s3.status(404, "NoSuchBucket"),
        faulty_s3.status(403, "AccessDenied"),
        faulty_s3.reset(),
    ],
    ids=["hangs", "throttles", "credentials expired", "bucket gone", "access denied", "resets"],
)
def test_while_s3_fails_models_in_memory_answer_as_before(
    s3: FaultyS3, bucket: Endpoint, fault: faulty_s3.Fault
) -> None:
    s3.put("hot.tar.gz", boosters.segment_archive(3))
    until(lambda: answers_as(bucket, "hot.tar.gz") == 3)
    before = s3.requests["hot.tar.gz"]
    s3.faults[faulty_s3.ANY_KEY] = fault
    try:
        # the check has begun and goes wrong
        until(lambda: answers_as(bucket, "hot.tar.gz") == 3 and s3.requests["hot.tar.gz"] > before)
        replies = [bucket.post("hot.tar.gz", ROW) for _ in range(20)]
    finally:
        del s3.faults[faulty_s3.ANY_KEY]
    assert {reply.status for reply in replies} == {200}
    assert {reply.headers["x-amzn-sagemaker-custom-attributes"] for reply in replies} == {"cache=hit"}


def test_hammering_a_broken_archive_costs_one_request_and_no_evictions(s3: FaultyS3, bucket: Endpoint) -> None:
    s3.put("broken.tar.gz", b"no model at all")
    with ThreadPoolExecutor(6) as callers:  # as many as may wait
        replies = list(callers.map(lambda _: bucket.post("broken.tar.gz", ROW), range(100)))
    assert {(reply.status, reply.json["OriginalStatusCode"]) for reply in replies} == {(424, 422)}
    assert len({reply.body for reply in replies}) == 1
    assert s3.requests["broken.tar.gz"] == 1


def test_a_dropped_object_is_served_by_the_call_after_a_miss(s3: FaultyS3, bucket: Endpoint) -> None:
    assert bucket.post("fresh.tar.gz", ROW).status == 400
    s3.put("fresh.tar.gz", boosters.segment_archive(1))
    assert answers_as(bucket, "fresh.tar.gz") == 1


def test_an_idle_model_is_replaced_and_dropped_although_nobody_calls_it(
    s3: FaultyS3, bucket: Endpoint, admin_port: int
) -> None:
    def version(target: str) -> str | None:
        with urllib.request.urlopen(f"http://127.0.0.1:{admin_port}/models?contains={target}") as answer:
            return next((model["version"] for model in json.load(answer)["models"]), None)

    s3.put("idle.tar.gz", boosters.segment_archive(1))
    assert answers_as(bucket, "idle.tar.gz") == 1
    s3.put("idle.tar.gz", boosters.segment_archive(2))
    until(lambda: version("idle") == faulty_s3.etag(boosters.segment_archive(2)))
    assert answers_as(bucket, "idle.tar.gz") == 2
    del s3.objects["idle.tar.gz"]
    until(lambda: version("idle") is None)
