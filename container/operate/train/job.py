"""`train` as the first word of the image: a SageMaker Training job.

    input/data/CHANNEL            rows: of `train` or `training` to learn from, of `validation` to judge
    input/data/params             one file, as of `mme train --params`
    input/config/hyperparameters.json     flags of `mme train` by name, and XGBoost's own names for the rest; all strings
    checkpoints                   releases and the ledger, where the live prefix is on this host: what lies there comes back
                                  after a spot interruption
    model                         the live prefix, where no other is named

Rule: every host sees all rows and trains its own segments. Hosts meet at the live prefix's shelf, so several of them need
one in S3.

Source: SageMaker guide, your-algorithms-training-algo-running-container, model-checkpoints.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from container.operate.batch.jobs import Job, job_at
from container.operate.batch.share import Share
from container.operate.troubles import Misused

CHANNELS = ("train", "training")
VALIDATION = "validation"
PARAMS = "params"
# Flags that take several words.
_SEVERAL = frozenset({"data", "validation", "set", "search"})


@dataclass(frozen=True, slots=True)
class TrainingJob:
    job: Job

    @property
    def share(self) -> Share:
        return self.job.share

    def say_why(self, why: str) -> None:
        self.job.say_why(why)

    def flags(self, known: Collection[str]) -> tuple[str, ...]:
        """Its command line. known: flags there are, without dashes. Raises Misused."""
        given = {name.replace("_", "-"): value for name, value in self.job.parameters.items()}
        parameters = [
            f"{name}={value}" for name, value in self.job.parameters.items() if name.replace("_", "-") not in known
        ]
        flags: list[str] = []
        for name, value in given.items():
            if name not in known or name == "set":
                continue
            if name in _SEVERAL:
                flags += [f"--{name}", *value.split()]
            elif value.lower() in ("true", "false"):
                flags += [f"--{name}"] * (value.lower() == "true")
            else:
                flags.append(f"--{name}={value}")
        parameters += given.get("set", "").split()
        if parameters:
            flags += ["--set", *parameters]
        return (*flags, *self._channels(given), *self._place(given))

    def _channels(self, given: Collection[str]) -> tuple[str, ...]:
        there = [name for name in CHANNELS if self._channel(name).is_dir()]
        if len(there) > 1:
            raise Misused(f"channels {' and '.join(there)}: which of them has the rows?")
        self._check_shared()
        flags: list[str] = []
        if "data" not in given and there:
            flags += ["--data", str(self._channel(there[0]))]
        if "validation" not in given and self._channel(VALIDATION).is_dir():
            flags += ["--validation", str(self._channel(VALIDATION))]
        files = [one for one in self._channel(PARAMS).glob("*") if one.is_file()] if "params" not in given else []
        if len(files) > 1:
            raise Misused(f"channel {PARAMS} has {len(files)} files: which of them has the hyperparameters?")
        return (*flags, *(f"--params={one}" for one in files))

    def _place(self, given: Collection[str]) -> tuple[str, ...]:
        is_s3 = "to" in given and self.job.parameters["to"].startswith("s3://")
        if not is_s3 and self.share.of > 1:
            raise Misused(
                f"{self.share.of} hosts need a live prefix in S3 to meet at: hyperparameter to=s3://bucket/prefix/"
            )
        flags: list[str] = []
        if "to" not in given:
            flags += ["--to", str(self.job.root / "model")]
        checkpoints = self.job.root / "checkpoints"
        if not is_s3 and "releases" not in given and checkpoints.is_dir():
            flags += ["--releases", str(checkpoints / "releases")]
        return tuple(flags)

    def _channel(self, name: str) -> Path:
        return self.job.root / "input/data" / name

    def _check_shared(self) -> None:
        """Raises Misused for channels of which each host sees a part: half of a segment's rows would be here, half there."""
        path = self.job.root / "input/config/inputdataconfig.json"
        if self.share.of < 2 or not path.is_file():
            return
        try:
            channels = json.loads(path.read_text())
            parted = [name for name, one in channels.items() if one.get("S3DistributionType") == "ShardedByS3Key"]
        except (OSError, ValueError, AttributeError, RecursionError) as error:
            raise Misused(f"{path}: {error}") from error
        if parted:
            raise Misused(f"channel {parted[0]} is ShardedByS3Key; every host needs all rows: FullyReplicated")


def training_job_at(root: Path) -> TrainingJob | None:
    """The job that this process is; None when it is none. Raises Misused for one that cannot be understood."""
    job = job_at(root)
    return None if job is None else TrainingJob(job)
