"""`mme train --job`: the same command as a SageMaker Training job, started and followed.

Rule: what the operator wrote travels as hyperparameters by the same names, so that a job is asked what this machine would
be asked. Data and the live prefix are in S3, where every host reads and writes them itself.

Source: CreateTrainingJob, DescribeTrainingJob in botocore's model; at most 100 hyperparameters of 256 characters.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from container.operate.exits import CommandFailed, Exit
from container.operate.jobs.machines import Machines, add_machines
from container.operate.printing import say
from container.operate.release.place import Place
from container.operate.release.trouble import aws_told
from container.operate.troubles import Misused, NotNow, Stopped

MAX_PARAMETERS, MAX_CHARS = 100, 256
PARAMS = "params/"
POLL_S = 5.0
# Flags that are this machine's, or the job's own.
_NOT_FOR_JOB = frozenset(
    {"params", "opt_ml", "json", "job", "plan", "role", "image", "instance_type", "instances", "spot", "max_hours"}
    | {"volume_gb", "job_name", "help", "set", "endpoint_url", "id_file", "on"}
)


class JobFailed(CommandFailed):
    exit = Exit.FAILED


def add_arguments(parser: argparse.ArgumentParser) -> None:
    job = parser.add_argument_group("as a SageMaker Training job")
    job.add_argument("--job", action="store_true", help="start one that does this, and follow it")
    job.add_argument("--plan", action="store_true", help="with --job, print what would be asked of SageMaker as JSON")
    add_machines(job)
    job.add_argument("--job-name", metavar="NAME", help="else mme-train- and the time")


def hyperparameters_of(chosen: argparse.Namespace, parser: argparse.ArgumentParser) -> dict[str, str]:
    """What was written, by the names of flags, and XGBoost's. Raises Misused for what a job cannot be told."""
    for name in ("data", "validation"):
        for location in getattr(chosen, name) or ():
            if not location.startswith("s3://"):
                raise Misused(f"--{name} {location}: a job reads its rows in S3")
            if location.split() != [location]:
                raise Misused(f"--{name} {location!r}: in a job's hyperparameters spaces are between locations")
    if not (chosen.live or "").startswith("s3://"):
        raise Misused("--to: a job's releases lie in S3")
    parameters: dict[str, str] = {}
    for action in parser._actions:
        value = getattr(chosen, action.dest, None)
        if action.dest in _NOT_FOR_JOB or value == action.default or value is None:
            continue
        name = action.option_strings[0].removeprefix("--")
        parameters[name] = " ".join(map(str, value)) if isinstance(value, list) else str(value)
        if isinstance(value, bool):
            parameters[name] = "true"
    for one in chosen.set:
        name, _, value = one.partition("=")
        parameters[name.strip()] = value.strip()
    long = [name for name, value in parameters.items() if len(value) > MAX_CHARS]
    if long or len(parameters) > MAX_PARAMETERS:
        raise Misused(
            f"--{long[0]}: a job takes {MAX_CHARS} characters" if long else "too many hyperparameters for a job"
        )
    return parameters


def put_params(place: Place, file: Path | None) -> str | None:
    """Where a file of hyperparameters lies for a job; None without one. Its name is its content's."""
    if file is None:
        return None
    try:
        data = file.read_bytes()
    except OSError as error:
        raise Misused(f"--params {file}: {error.strerror}") from error
    key = f"{PARAMS}{hashlib.sha256(data).hexdigest()[:16]}/{file.name}"
    place.shelf.put(key, data)
    return place.shelf.uri(key).rpartition("/")[0] + "/"


def training_request(
    machines: Machines, parameters: Mapping[str, str], params_uri: str | None, output: str
) -> dict[str, Any]:
    """CreateTrainingJob's, without a name."""
    request: dict[str, Any] = {
        "AlgorithmSpecification": {"TrainingImage": machines.image, "TrainingInputMode": "File"},
        "RoleArn": machines.role,
        "HyperParameters": dict(parameters),
        "OutputDataConfig": {"S3OutputPath": output},
        "ResourceConfig": {
            "InstanceType": machines.instance_type,
            "InstanceCount": machines.n_instances,
            "VolumeSizeInGB": machines.volume_gb,
        },
        "StoppingCondition": {"MaxRuntimeInSeconds": machines.max_s},
    }
    if machines.is_spot:
        request["EnableManagedSpotTraining"] = True
        request["StoppingCondition"]["MaxWaitTimeInSeconds"] = 2 * machines.max_s
    if params_uri is not None:
        source = {"S3DataType": "S3Prefix", "S3Uri": params_uri, "S3DataDistributionType": "FullyReplicated"}
        request["InputDataConfig"] = [{"ChannelName": "params", "DataSource": {"S3DataSource": source}}]
    return request


def name_of(given: str | None, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> str:
    return given or f"mme-train-{now():%Y%m%d-%H%M%S}"


def start(client: Any, name: str, request: Mapping[str, Any]) -> str:
    """The job's ARN. Raises NotNow, Refused."""
    with aws_told():
        arn: str = client.create_training_job(TrainingJobName=name, **request)["TrainingJobArn"]
    return arn


def follow(client: Any, name: str, stop: threading.Event, poll_s: float = POLL_S) -> None:
    """Tell each state that it comes to, until its last. Raises JobFailed; Stopped when this command ends before the job."""
    n_told = 0
    while True:
        job: dict[str, Any] = {}
        try:
            with aws_told():
                job = client.describe_training_job(TrainingJobName=name)
        except NotNow as error:  # SageMaker, for a moment: the job does not hang on us
            say("job", str(error), file=sys.stderr)
        states = job.get("SecondaryStatusTransitions") or ()
        for one in states[n_told:]:
            say("job", one["Status"], one.get("StatusMessage", ""))
        n_told = max(n_told, len(states))
        status = job.get("TrainingJobStatus")
        if status == "Completed":
            return
        if status in ("Failed", "Stopped"):
            raise JobFailed(f"job {name}: {status}{': ' + job['FailureReason'] if job.get('FailureReason') else ''}")
        if stop.wait(poll_s):
            raise Stopped(f"job {name} goes on; aws sagemaker stop-training-job --training-job-name {name} ends it")
