"""A platform with jobs, shared by the tests here: each test has a bucket of its own, and programs that are shell scripts."""

from __future__ import annotations

import io
import itertools
import json
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from container.platform.platform import Platform
from tests.rig.platform import client, platform

PATIENCE_S = 60.0
ROLE = "arn:aws:iam::123456789012:role/jobs"
_NUMBERS = itertools.count(1)


def until(is_so: Callable[[], Any], patience_s: float = PATIENCE_S) -> Any:
    deadline = time.monotonic() + patience_s
    while not (found := is_so()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


@dataclass
class Account:
    """One test's bucket, names and programs on a platform."""

    platform: Platform
    folder: Path
    number: int = field(default_factory=lambda: next(_NUMBERS))

    def __post_init__(self) -> None:
        self.s3, self.sagemaker, self.logs = (client(self.platform.url, one) for one in ("s3", "sagemaker", "logs"))
        self.bucket = f"jobs-{self.number}"
        self.s3.create_bucket(Bucket=self.bucket)

    @property
    def uri(self) -> str:
        return f"s3://{self.bucket}"

    def name(self, word: str = "job") -> str:
        return f"{word}-{self.number}"

    def put(self, **objects: str) -> None:
        for key, text in objects.items():
            self.put_at(key, text)

    def put_at(self, key: str, text: str) -> None:
        self.s3.put_object(Bucket=self.bucket, Key=key, Body=text.encode())

    def objects(self, prefix: str = "") -> dict[str, bytes]:
        found = self.s3.list_objects_v2(Bucket=self.bucket, Prefix=prefix).get("Contents", ())
        return {
            one["Key"].removeprefix(prefix): self.s3.get_object(Bucket=self.bucket, Key=one["Key"])["Body"].read()
            for one in found
        }

    def tar(self, key: str) -> dict[str, bytes]:
        data = self.s3.get_object(Bucket=self.bucket, Key=key)["Body"].read()
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            return {one.name: archive.extractfile(one).read() for one in archive if one.isfile()}  # type: ignore[union-attr]

    def program(self, script: str) -> list[str]:
        path = self.folder / "program.sh"
        path.write_text(script)
        return ["sh", str(path)]

    def train(self, script: str, **asked: Any) -> str:
        """A training job of this script; its name."""
        request: dict[str, Any] = {
            "TrainingJobName": self.name(),
            "RoleArn": ROLE,
            "AlgorithmSpecification": {
                "TrainingImage": "image",
                "TrainingInputMode": "File",
                "ContainerEntrypoint": self.program(script),
            },
            "OutputDataConfig": {"S3OutputPath": f"{self.uri}/out"},
            "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
            "StoppingCondition": {"MaxRuntimeInSeconds": 3600},
        }
        self.sagemaker.create_training_job(**{**request, **asked})
        return str(request["TrainingJobName"])

    def process(self, script: str, *, n_hosts: int = 1, **asked: Any) -> str:
        """A processing job of this script; its name."""
        request: dict[str, Any] = {
            "ProcessingJobName": self.name(),
            "RoleArn": ROLE,
            "AppSpecification": {"ImageUri": "image", "ContainerEntrypoint": self.program(script)},
            "ProcessingResources": {
                "ClusterConfig": {"InstanceType": "ml.m5.large", "InstanceCount": n_hosts, "VolumeSizeInGB": 1}
            },
        }
        self.sagemaker.create_processing_job(**{**request, **asked})
        return str(request["ProcessingJobName"])

    def trained(self, name: str) -> Mapping[str, Any]:
        return self._over(lambda: self.sagemaker.describe_training_job(TrainingJobName=name), "TrainingJobStatus")

    def processed(self, name: str) -> Mapping[str, Any]:
        return self._over(lambda: self.sagemaker.describe_processing_job(ProcessingJobName=name), "ProcessingJobStatus")

    def transformed(self, name: str) -> Mapping[str, Any]:
        return self._over(lambda: self.sagemaker.describe_transform_job(TransformJobName=name), "TransformJobStatus")

    def said(self, kind: str, name: str) -> list[str]:
        """Lines of all hosts in the job's log, by stream."""
        group = f"/aws/sagemaker/{kind}Jobs"
        try:
            streams = self.logs.describe_log_streams(logGroupName=group, logStreamNamePrefix=f"{name}/")["logStreams"]
        except self.logs.exceptions.ResourceNotFoundException:
            return []
        return [
            event["message"]
            for stream in sorted(streams, key=lambda one: str(one["logStreamName"]))
            for event in self.logs.get_log_events(
                logGroupName=group, logStreamName=stream["logStreamName"], startFromHead=True
            )["events"]
        ]

    def events(self, arn: str) -> list[Mapping[str, Any]]:
        return [event.detail for event in self.platform.bus.sent if arn in event.resources]

    def _over(self, describe: Callable[[], Any], status: str) -> Mapping[str, Any]:
        found: Mapping[str, Any] = until(
            lambda: one if (one := describe())[status] in ("Completed", "Failed", "Stopped") else None
        )
        return found


def channel(name: str, uri: str, **source: str) -> dict[str, Any]:
    return {
        "ChannelName": name,
        "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": uri, **source}},
    }


def read_json(text: bytes | str) -> Any:
    return json.loads(text)


@pytest.fixture(scope="package")
def shared() -> Iterator[Platform]:
    with platform() as made:
        yield made


@pytest.fixture
def account(shared: Platform, tmp_path: Path) -> Account:
    return Account(shared, tmp_path)
