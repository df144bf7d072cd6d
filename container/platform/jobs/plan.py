"""What a job is to do, whichever kind it is."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from signal import SIGINT, SIGTERM, Signals

from container.platform.jobs.channels import Input
from container.platform.jobs.objects import Address

# The image's entry point, as this project's own is run from where it is installed.
OUR_ENTRYPOINT = ("mme",)
OUR_COMMAND = ("serve",)


@dataclass(frozen=True, slots=True)
class Kind:
    """name: as operations and members are called, such as Training. stop_signal: what StopXJob sends."""

    name: str
    stop_signal: Signals

    @property
    def resources(self) -> tuple[str, ...]:
        """Where a request says on which instances, and on how many."""
        return {
            "Training": ("ResourceConfig",),
            "Processing": ("ProcessingResources", "ClusterConfig"),
            "Transform": ("TransformResources",),
        }[self.name]

    @property
    def log_group(self) -> str:
        return f"/aws/sagemaker/{self.name}Jobs"

    @property
    def detail_type(self) -> str:
        return f"SageMaker {self.name} Job State Change"


TRAINING = Kind("Training", SIGTERM)
PROCESSING = Kind("Processing", SIGINT)
TRANSFORM = Kind("Transform", SIGTERM)


@dataclass(frozen=True, slots=True)
class Output:
    """path: the directory below /opt/ml. is_tar: all hosts' files in one archive at that address."""

    path: str
    address: Address
    is_tar: bool = False
    is_continuous: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One job.

    texts           files below /opt/ml, of a host by its name
    outputs         what leaves a host; `keeps_outputs` whether of a job that failed or was stopped as well
    checkpoints     brought to each attempt's hosts and mirrored while it lasts
    max_wait_s      of a spot job: from its creation to its end
    metrics         by name, what finds a metric's value in a line of the log, as its one group
    """

    kind: Kind
    name: str
    program: tuple[str, ...]
    hosts: tuple[str, ...]
    environment: Mapping[str, str]
    folders: tuple[str, ...]
    texts: Callable[[str], Mapping[str, str]]
    inputs: tuple[Input, ...] = ()
    outputs: tuple[Output, ...] = ()
    keeps_outputs: bool = False
    checkpoints: Output | None = None
    max_runtime_s: float
    max_wait_s: float | None = None
    is_spot: bool = False
    is_offline: bool = False
    metrics: Mapping[str, re.Pattern[str]] = field(default_factory=dict)
    region: str = ""
    role: str = ""


def hosts_of(n_hosts: int) -> tuple[str, ...]:
    """Sorted, as resourceconfig.json has them."""
    return tuple(sorted(f"algo-{at + 1}" for at in range(n_hosts)))


def program_of(entrypoint: Sequence[str], arguments: Sequence[str], default: Sequence[str]) -> tuple[str, ...]:
    """The words that are run: the image's entry point is `mme`, and `default` its first words when none are given."""
    words = (*(entrypoint or OUR_ENTRYPOINT), *(arguments or (() if entrypoint else default)))
    if words[0] == OUR_ENTRYPOINT[0]:
        return (sys.executable, "-m", "container.operate.main", *words[1:])
    return (shutil.which(words[0]) or words[0], *words[1:])
