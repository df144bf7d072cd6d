"""`mme score --job`: started on the platform, followed there, and ended in each way a job ends."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from container.operate.batch import submit
from container.operate.exits import Exit
from container.operate.main import main
from container.platform.platform import Platform
from tests.container.operate.batch.test_run import NAMES
from tests.rig import boosters
from tests.rig.faulty_s3 import ENVIRONMENT
from tests.rig.platform import client, platform

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

ROLE = "arn:aws:iam::123456789012:role/jobs"
AS_JOB = ("--image", "123456789012.dkr.ecr.us-east-1.amazonaws.com/mme:1", "--role", ROLE)
LOCATIONS = ("--models", "s3://shop/live/", "--data", "s3://shop/rows/", "--segment-column", "segment")
N_FILES = 4


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models, and four files of rows of theirs."""
    root: Path = tmp_path_factory.mktemp("shop")
    for number in range(N_FILES):
        rows = boosters.rows(50, 6, number)
        segments = np.random.default_rng(number).integers(0, 2, 50).astype(str)
        table = pa.table({"segment": segments, **{name: rows[:, at] for at, name in enumerate(NAMES)}})
        pq.write_table(table, root / f"{number}.parquet")
    return root


@pytest.fixture(scope="module")
def shop(place: Path) -> Iterator[Platform]:
    with platform() as one:
        s3 = client(one.url, "s3")
        s3.create_bucket(Bucket="shop")
        for number in range(2):
            s3.put_object(Bucket="shop", Key=f"live/{number}.tar.gz", Body=boosters.segment_archive(number))
        for number in range(N_FILES):
            s3.put_object(Bucket="shop", Key=f"rows/{number}.parquet", Body=(place / f"{number}.parquet").read_bytes())
        yield one


@pytest.fixture
def run(shop: Platform, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    for name, value in {**ENVIRONMENT, "AWS_ENDPOINT_URL": shop.url}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(submit, "POLL_S", 0.1)

    def run(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        status = main(["score", *LOCATIONS, *words])
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


def objects(shop: Platform, prefix: str) -> dict[str, bytes]:
    s3 = client(shop.url, "s3")
    found = s3.list_objects_v2(Bucket="shop", Prefix=prefix).get("Contents", ())
    return {
        one["Key"].removeprefix(prefix): s3.get_object(Bucket="shop", Key=one["Key"])["Body"].read() for one in found
    }


@pytest.mark.parametrize(("kind", "n_hosts"), [("processing", "2"), ("training", "1")])
def test_a_job_writes_the_bytes_that_the_command_does(
    shop: Platform, run: Any, tmp_path: Path, kind: str, n_hosts: str
) -> None:
    words = ("--out", f"s3://shop/{kind}/", "--job", kind, "--instances", n_hosts, *AS_JOB)
    status, out, error = run(*words)
    assert status == Exit.OK, error
    assert re.search(r"started +mme-score-[0-9a-f]{10}-1", out)
    assert "scored    200 rows  2 segments" in out
    assert run("--out", str(tmp_path / "here"))[0] == Exit.OK
    rows = {path.name: path.read_bytes() for path in (tmp_path / "here/rows").iterdir()}
    assert objects(shop, f"{kind}/rows/") == rows
    assert "_SUCCESS" in objects(shop, f"{kind}/")


def test_what_was_left_undone_is_done_by_the_next_job(shop: Platform, run: Any) -> None:
    words = ("--out", "s3://shop/twice/", "--job", "processing", "--keep", "no_such", "--strict", *AS_JOB)
    status, _, error = run(*words)
    assert status == Exit.MODEL_ERROR
    assert "4 errors, 0 are allowed" in error
    status, _, error = run(*words)
    assert status == Exit.MODEL_ERROR
    assert re.search(r"mme-score-[0-9a-f]{10}-2: .*4 errors", error)


def test_the_plan_is_the_request_and_starts_nothing(shop: Platform, run: Any) -> None:
    words = (
        "--out",
        "s3://shop/plan/",
        "--job",
        "training",
        "--spot",
        "--plan",
        "--output",
        "margin",
        "--strict",
        *AS_JOB,
    )
    status, out, _ = run(*words)
    request = json.loads(out)
    assert status == Exit.OK
    assert request["AlgorithmSpecification"]["ContainerArguments"] == [
        *("--models=s3://shop/live/", "--data", "s3://shop/rows/", "--out=s3://shop/plan/"),
        *("--segment-column=segment", "--output=margin", "--strict"),
    ]
    assert request["StoppingCondition"] == {"MaxRuntimeInSeconds": 43200, "MaxWaitTimeInSeconds": 86400}
    sagemaker = client(shop.url, "sagemaker")
    assert sagemaker.list_training_jobs(NameContains=request["TrainingJobName"])["TrainingJobSummaries"] == []


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--out", "s3://shop/x/", "--job", "processing"), "needs --role and --image"),
        (("--out", "/tmp/x", "--job", "processing", *AS_JOB), "s3:// alone"),
        (("--out", "s3://shop/x/", "--job", "processing", "--spot", *AS_JOB), "no spot"),
        (("--out", "s3://shop/x/", "--plan"), "which kind?"),
        (("--out", "s3://shop/x/", "--job", "training", "--instances", "0", *AS_JOB), "are above 0"),
    ],
)
def test_what_makes_no_job_is_refused(run: Any, words: tuple[str, ...], why: str) -> None:
    status, _, error = run(*words)
    assert (status, why in error) == (Exit.USAGE, True), error
