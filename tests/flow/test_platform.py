"""`mme platform` with plain boto3: what SageMaker's side does around our container, and what a caller sees of it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import botocore.config
import numpy as np
import pytest
from botocore.exceptions import ClientError

from tests.rig import boosters
from tests.rig.endpoint import free_port, needs_classes, until

pytestmark = needs_classes
ROWS = boosters.rows(2, 6)
CSV = "\n".join(",".join(map(str, row)) for row in ROWS.tolist())
N_SEGMENTS = 8


class Platform:
    """One `mme platform` with the containers it started."""

    def __init__(self, models: Path, scratch: Path, *flags: str) -> None:
        self.url = f"http://127.0.0.1:{free_port()}"
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "container.operate.main", "platform", "--models", str(models)),
                *("--port", self.url.rpartition(":")[2], "--root", str(scratch / "disk"), *flags),
            ],
            env={**os.environ, "MME_SCRATCH": str(scratch)},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._process.stdout is not None
        self.lines = self._process.stdout
        assert self.lines.readline().startswith("ready")

    def stop(self) -> dict[str, Any]:
        """The metrics it prints when it ends."""
        self._process.send_signal(signal.SIGTERM)
        told, _ = self._process.communicate(timeout=60)
        assert self._process.returncode == 0
        return json.loads(told.splitlines()[-1])

    def metrics(self) -> Any:
        with urllib.request.urlopen(f"{self.url}/metrics.json") as response:
            return json.load(response)

    def invoke(self, target: str, body: str = CSV, **fields: Any) -> np.ndarray:
        client = boto3.client(
            "sagemaker-runtime",
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id="testing",
            aws_secret_access_key="testing",
            config=botocore.config.Config(retries={"total_max_attempts": 1}),
        )
        answer = client.invoke_endpoint(
            EndpointName="e", TargetModel=target, ContentType="text/csv", Accept="text/csv", Body=body, **fields
        )
        return np.array([float(line) for line in answer["Body"].read().split()])


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("artifacts")
    (root / "eu").mkdir()
    for number in range(N_SEGMENTS):
        (root / "eu" / f"{number}.tar.gz").write_bytes(boosters.segment_archive(number))
    (root / "broken.tar.gz").write_bytes(boosters.archive({"xgboost-model": b"no booster"}))
    (root / "no-archive.tar.gz").write_bytes(b"no archive")
    return root


@pytest.fixture(scope="module")
def platform(artifacts: Path) -> Iterator[Platform]:
    """Two instances with room for two models each."""
    scratch = Path(tempfile.mkdtemp(prefix="mt-"))
    one = Platform(artifacts, scratch, "--instances", "2", "--memory", "800KiB")
    yield one
    one.stop()
    shutil.rmtree(scratch, ignore_errors=True)


def expected(number: int) -> np.ndarray:
    return boosters.expected(boosters.segment(number), ROWS).ravel()


def test_more_models_than_fit_are_all_answered_by_unloading_the_least_recently_used(platform: Platform) -> None:
    for number in [*range(N_SEGMENTS), 0, 0]:
        np.testing.assert_allclose(platform.invoke(f"eu/{number}.tar.gz"), expected(number), rtol=1e-6)
    told = platform.metrics()
    assert told["LoadedModelCount"]["SampleCount"] == 2
    assert told["LoadedModelCount"]["Sum"] <= 4
    assert told["ModelUnloadingTime"]["SampleCount"] >= N_SEGMENTS - 4
    assert told["ModelCacheHit"]["Sum"] >= 1
    assert told["ModelDownloadingTime"]["SampleCount"] <= told["ModelLoadingTime"]["SampleCount"]


@pytest.mark.parametrize(
    ("target", "body", "code", "original"),
    [
        ("none.tar.gz", CSV, "ValidationError", None),
        ("no-archive.tar.gz", CSV, "ValidationError", None),
        ("../up.tar.gz", CSV, "ValidationError", None),
        ("broken.tar.gz", CSV, "ModelError", 422),
        ("eu/0.tar.gz", "1,2", "ModelError", 400),
    ],
)
def test_errors_are_sagemakers(platform: Platform, target: str, body: str, code: str, original: int | None) -> None:
    with pytest.raises(ClientError) as caught:
        platform.invoke(target, body)
    assert caught.value.response["Error"]["Code"] == code
    assert caught.value.response.get("OriginalStatusCode") == original


@pytest.mark.parametrize(
    "elsewhere",
    [{"TargetVariant": "Green"}, {"TargetContainerHostname": "second"}, {"InferenceComponentName": "segments"}],
    ids=lambda elsewhere: next(iter(elsewhere)),
)
def test_what_names_another_place_than_there_is_is_refused(platform: Platform, elsewhere: dict[str, str]) -> None:
    with pytest.raises(ClientError, match=f"{next(iter(elsewhere.values()))}.*") as caught:
        platform.invoke("eu/0.tar.gz", **elsewhere)
    assert caught.value.response["Error"]["Code"] == "ValidationError"


def test_the_one_variant_may_be_named(platform: Platform) -> None:
    answer = platform.invoke("eu/0.tar.gz", TargetVariant="AllTraffic")
    np.testing.assert_allclose(answer, expected(0), rtol=1e-6)


@pytest.mark.skipif(shutil.which("aws") is None, reason="the AWS CLI is not installed")
def test_the_aws_cli_is_a_caller_like_any_other(platform: Platform, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text(CSV)
    subprocess.run(
        [
            *("aws", "sagemaker-runtime", "invoke-endpoint", "--endpoint-url", platform.url, "--region", "us-east-1"),
            *("--endpoint-name", "e", "--target-model", "eu/3.tar.gz", "--content-type", "text/csv"),
            *("--accept", "text/csv", "--body", f"fileb://{tmp_path}/rows.csv", str(tmp_path / "answer.csv")),
        ],
        env={**os.environ, "AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"},
        stdout=subprocess.DEVNULL,
        check=True,
    )
    answer = [float(line) for line in (tmp_path / "answer.csv").read_text().split()]
    np.testing.assert_allclose(answer, expected(3), rtol=1e-6)


def test_without_a_cache_a_model_leaves_memory_and_disk_after_its_call(artifacts: Path) -> None:
    scratch = Path(tempfile.mkdtemp(prefix="mt-"))
    uncached = Platform(artifacts, scratch, "--model-cache", "Disabled")
    for _ in range(2):
        np.testing.assert_allclose(uncached.invoke("eu/1.tar.gz"), expected(1), rtol=1e-6)
        until(lambda: not list((scratch / "disk").iterdir()))
    told = uncached.stop()
    assert told["ModelDownloadingTime"]["SampleCount"] == 2
    assert told["ModelCacheHit"]["Sum"] == 0
    shutil.rmtree(scratch)
