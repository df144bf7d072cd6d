"""A run as a SageMaker job: what the platform wrote below /opt/ml, which share of the files is this host's, how it ends.

    config/resourceconfig.json          Processing: current_host, hosts
    input/config/resourceconfig.json    Training: the same
    input/config/hyperparameters.json   Training: flags by name, all of them strings
    output/message, output/failure      why it ended, the first 1,024 characters of it: Processing's and Training's

Rule: several hosts write one run, and each does its share of the files, found from what all of them are told alike.

Source: SageMaker guide, build-your-own-processing-container and your-algorithms-training-algo-running-container.
"""

from __future__ import annotations

import argparse
import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from container import environments
from container.operate.batch.share import Share
from container.operate.troubles import Misused

ROOT = environments.opt_ml()
MAX_MESSAGE_CHARS = 1024
_RESOURCES = ("config/resourceconfig.json", "input/config/resourceconfig.json")
_PARAMETERS = "input/config/hyperparameters.json"
# Hyperparameters that are other people's: SageMaker's SDK adds them to each job.
_FOREIGN = "sagemaker_"


@dataclass(frozen=True, slots=True)
class Job:
    """share: this host's. flags: command line of the job's hyperparameters. parameters: these themselves, but for other
    people's."""

    root: Path
    share: Share
    flags: tuple[str, ...]
    parameters: Mapping[str, str]

    def say_why(self, why: str) -> None:
        """Where the platform looks for it. A disk that is full does not hide the exit code."""
        output = self.root / "output"
        with contextlib.suppress(OSError):
            output.mkdir(parents=True, exist_ok=True)
            for name in ("message", "failure"):
                (output / name).write_text(why[:MAX_MESSAGE_CHARS])


def job_at(root: Path = ROOT) -> Job | None:
    """The job that this process is; None when it is none. Raises Misused for one that cannot be understood."""
    found = next((root / name for name in _RESOURCES if (root / name).is_file()), None)
    parameters = root / _PARAMETERS
    if found is None:
        return None
    resources = _read(found)
    hosts, host = sorted(resources.get("hosts", [])), resources.get("current_host")
    if host not in hosts:
        raise Misused(f"{found}: current_host {host!r} is not among hosts {hosts}")
    said = _read(parameters) if parameters.is_file() else {}
    own = {name: str(value) for name, value in said.items() if not name.startswith(_FOREIGN)}
    return Job(root, Share(hosts.index(host), len(hosts)), _flags(own), own)


class JobParser(argparse.ArgumentParser):
    """Of a job's hyperparameters. What is wrong with them is raised, so that it is told where the platform looks."""

    def error(self, message: str) -> NoReturn:
        raise Misused(f"hyperparameters: {message}")


def with_flags(chosen: argparse.Namespace, parser: JobParser, flags: Sequence[str]) -> argparse.Namespace:
    """The command line, and where it says nothing the job's hyperparameters. Raises Misused."""
    said = vars(chosen)
    for name, value in vars(parser.parse_args(flags)).items():
        if said.get(name) == parser.get_default(name):
            said[name] = value
    return argparse.Namespace(**said)


def _read(path: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise Misused(f"{path}: {error}") from error
    if not isinstance(found, dict):
        raise Misused(f"{path}: not a JSON object")
    return found


def _flags(parameters: Mapping[str, str]) -> tuple[str, ...]:
    """`{"segment-column": "city", "strict": "true"}` as `--segment-column city --strict`."""
    flags: list[str] = []
    for name, text in parameters.items():
        if text.lower() in ("true", "false"):
            flags += [f"--{name}"] * (text.lower() == "true")
        elif name == "data":
            flags += ["--data", *text.split()]
        else:
            flags.append(f"--{name}={text}")
    return tuple(flags)
