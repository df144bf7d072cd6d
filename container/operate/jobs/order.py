"""The request that starts a command as a job: `mme COMMAND WORDS` in our image, everything it reads and writes in S3.

Rule: the request follows from what was asked alone, and its name from the request; so the same command again finds the job
that it started, and starts another only when that one is over.

Source: CreateProcessingJob and CreateTrainingJob in botocore's model.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from container.operate.troubles import Misused

PROCESSING, TRAINING = "processing", "training"
KINDS = (PROCESSING, TRAINING)
MAX_WORDS, MAX_WORD_CHARS = 100, 256
DAY_S = 86400
MAX_PROCESSING_S = 9 * DAY_S
# A spot job may wait for instances so long besides the time that it may run.
SPOT_WAIT_S = DAY_S
# The arguments of these flags: their own, not the command's.
FLAGS = ("job", "plan", "image", "role", "instance_type", "instances", "volume", "max_runtime", "spot")


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """home: below it a training job would leave a model, of which these jobs have none."""

    kind: str
    command: str
    words: tuple[str, ...]
    home: str
    image: str
    role: str
    instance_type: str
    n_instances: int
    volume_gb: int
    max_runtime_s: int
    is_spot: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def base(self) -> str:
        """The job's name without the number of the attempt."""
        text = json.dumps(self.request(""), sort_keys=True)
        return f"mme-{self.command}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"

    def request(self, name: str) -> dict[str, Any]:
        """What boto3's create call takes."""
        return self._training(name) if self.kind == TRAINING else self._processing(name)

    def _processing(self, name: str) -> dict[str, Any]:
        return {
            "ProcessingJobName": name,
            "RoleArn": self.role,
            # Without ContainerEntrypoint, so that the image's own stays: `mme`.
            "AppSpecification": {"ImageUri": self.image, "ContainerArguments": [self.command, *self.words]},
            "ProcessingResources": {
                "ClusterConfig": {
                    "InstanceType": self.instance_type,
                    "InstanceCount": self.n_instances,
                    "VolumeSizeInGB": self.volume_gb,
                }
            },
            "StoppingCondition": {"MaxRuntimeInSeconds": self.max_runtime_s},
            **({"Environment": dict(self.environment)} if self.environment else {}),
        }

    def _training(self, name: str) -> dict[str, Any]:
        stopping = {"MaxRuntimeInSeconds": self.max_runtime_s}
        if self.is_spot:
            stopping["MaxWaitTimeInSeconds"] = self.max_runtime_s + SPOT_WAIT_S
        return {
            "TrainingJobName": name,
            "RoleArn": self.role,
            "AlgorithmSpecification": {
                "TrainingImage": self.image,
                "TrainingInputMode": "File",
                "ContainerEntrypoint": ["mme", self.command],
                "ContainerArguments": list(self.words),
            },
            # NONE: a tar of nothing would be left otherwise.
            "OutputDataConfig": {"S3OutputPath": self.home, "CompressionType": "NONE"},
            "ResourceConfig": {
                "InstanceType": self.instance_type,
                "InstanceCount": self.n_instances,
                "VolumeSizeInGB": self.volume_gb,
            },
            "StoppingCondition": stopping,
            "EnableManagedSpotTraining": self.is_spot,
            **({"Environment": dict(self.environment)} if self.environment else {}),
        }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("as a job on SageMaker, started and followed")
    group.add_argument("--job", choices=KINDS, help="the kind of job; training may use spot instances")
    group.add_argument("--plan", action="store_true", help="print the job's request and start nothing")
    group.add_argument("--image", metavar="URI", help="this project's image in ECR")
    group.add_argument("--role", metavar="ARN", help="the job's execution role")
    group.add_argument("--instance-type", metavar="T", default="ml.m5.xlarge", help="default %(default)s")
    group.add_argument("--instances", type=int, metavar="N", default=1, help="how many hosts; default %(default)s")
    group.add_argument("--volume", type=int, metavar="GB", default=30, help="disk of each host; default %(default)s")
    group.add_argument(
        "--max-runtime", type=int, metavar="S", default=DAY_S, help="seconds until it is stopped; default %(default)s"
    )
    group.add_argument("--spot", action="store_true", help="on spot instances, with --job training")


def ordered(
    chosen: argparse.Namespace, command: str, words: Sequence[str], home: str, locations: Mapping[str, Sequence[str]]
) -> Order:
    """What the flags ask for. locations: by flag, what the job reads and writes. Raises Misused."""
    for name in ("image", "role"):
        if not getattr(chosen, name):
            raise Misused(f"--job {chosen.job} needs --{name}")
    for flag, given in locations.items():
        for one in given:
            if not one.startswith("s3://"):
                raise Misused(f"{flag} {one}: a job on SageMaker sees s3:// alone")
    for word in words:
        if len(word) > MAX_WORD_CHARS:
            raise Misused(f"{word[:40]}...: a job takes words of at most {MAX_WORD_CHARS} characters; use a manifest")
    if len(words) >= MAX_WORDS:
        raise Misused(f"{len(words)} words: a job takes fewer than {MAX_WORDS}; use a manifest")
    if chosen.spot and chosen.job != TRAINING:
        raise Misused("--spot: a processing job has no spot instances; use --job training")
    if chosen.job == PROCESSING and not 0 < chosen.max_runtime <= MAX_PROCESSING_S:
        raise Misused(f"--max-runtime {chosen.max_runtime}: a processing job takes 1 to {MAX_PROCESSING_S} seconds")
    for name in ("instances", "volume", "max_runtime"):
        if getattr(chosen, name) < 1:
            raise Misused(f"--{name.replace('_', '-')} {getattr(chosen, name)}: at least 1")
    return Order(
        kind=chosen.job,
        command=command,
        words=tuple(words),
        home=home,
        image=chosen.image,
        role=chosen.role,
        instance_type=chosen.instance_type,
        n_instances=chosen.instances,
        volume_gb=chosen.volume,
        max_runtime_s=chosen.max_runtime,
        is_spot=chosen.spot,
    )
