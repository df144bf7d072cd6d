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
from dataclasses import dataclass
from typing import Any

from container.operate.jobs.machines import Machines, add_machines, machines_of
from container.operate.troubles import Misused

PROCESSING, TRAINING = "processing", "training"
KINDS = (PROCESSING, TRAINING)
MAX_WORDS, MAX_WORD_CHARS = 100, 256
MAX_PROCESSING_S = 9 * 86400
# Flags that are the job's own, not the command's in it.
FLAGS = ("job", "plan", "image", "role", "instance_type", "instances", "volume_gb", "max_hours", "spot")


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """home: below it a training job would leave a model, of which these jobs have none."""

    kind: str
    command: str
    words: tuple[str, ...]
    home: str
    machines: Machines

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
            "RoleArn": self.machines.role,
            # Without ContainerEntrypoint, so that the image's own stays: `mme`.
            "AppSpecification": {"ImageUri": self.machines.image, "ContainerArguments": [self.command, *self.words]},
            "ProcessingResources": {
                "ClusterConfig": {
                    "InstanceType": self.machines.instance_type,
                    "InstanceCount": self.machines.n_instances,
                    "VolumeSizeInGB": self.machines.volume_gb,
                }
            },
            "StoppingCondition": {"MaxRuntimeInSeconds": self.machines.max_s},
        }

    def _training(self, name: str) -> dict[str, Any]:
        stopping = {"MaxRuntimeInSeconds": self.machines.max_s}
        if self.machines.is_spot:
            stopping["MaxWaitTimeInSeconds"] = 2 * self.machines.max_s
        return {
            "TrainingJobName": name,
            "RoleArn": self.machines.role,
            "AlgorithmSpecification": {
                "TrainingImage": self.machines.image,
                "TrainingInputMode": "File",
                "ContainerEntrypoint": ["mme", self.command],
                "ContainerArguments": list(self.words),
            },
            # NONE: a tar of nothing would be left otherwise.
            "OutputDataConfig": {"S3OutputPath": self.home, "CompressionType": "NONE"},
            "ResourceConfig": {
                "InstanceType": self.machines.instance_type,
                "InstanceCount": self.machines.n_instances,
                "VolumeSizeInGB": self.machines.volume_gb,
            },
            "StoppingCondition": stopping,
            "EnableManagedSpotTraining": self.machines.is_spot,
        }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("as a job on SageMaker, started and followed")
    group.add_argument("--job", choices=KINDS, help="the kind of job; training may use spot instances")
    group.add_argument("--plan", action="store_true", help="print the job's request and start nothing")
    add_machines(group)


def ordered(
    chosen: argparse.Namespace, command: str, words: Sequence[str], home: str, locations: Mapping[str, Sequence[str]]
) -> Order:
    """What the flags ask for. locations: by flag, what the job reads and writes. Raises Misused."""
    machines = machines_of(chosen)
    for flag, given in locations.items():
        for one in given:
            if not one.startswith("s3://"):
                raise Misused(f"{flag} {one}: a job on SageMaker sees s3:// alone")
    for word in words:
        if len(word) > MAX_WORD_CHARS:
            raise Misused(f"{word[:40]}...: a job takes words of at most {MAX_WORD_CHARS} characters; use a manifest")
    if len(words) >= MAX_WORDS:
        raise Misused(f"{len(words)} words: a job takes fewer than {MAX_WORDS}; use a manifest")
    if machines.is_spot and chosen.job != TRAINING:
        raise Misused("--spot: a processing job has no spot instances; use --job training")
    if machines.max_s > MAX_PROCESSING_S and chosen.job == PROCESSING:
        raise Misused(f"--max-hours {chosen.max_hours:g}: a processing job has at most {MAX_PROCESSING_S // 3600}")
    return Order(kind=chosen.job, command=command, words=tuple(words), home=home, machines=machines)
