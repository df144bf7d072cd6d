"""`mme platform` as a shell runs it: what it says, what it refuses, and that it leaves nothing."""

from __future__ import annotations

import json
import shlex
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.rig.command import Command
from tests.rig.endpoint import free_port, until
from tests.rig.platform import BUCKET, IMAGES, ROLE, client

Run = Callable[..., Command]
FAKE = "fake=" + " ".join(shlex.quote(part) for part in IMAGES["fake"])


def start(run: Run, *flags: str) -> tuple[Command, str]:
    """The command, listening, and its address."""
    command = run("platform", "--port", str(free_port()), *flags)
    return command, command.wait_for("ready").split()[1]


def create(url: str, image: str) -> None:
    sagemaker = client(url, "sagemaker")
    container = {"Image": image, "Mode": "MultiModel", "ModelDataUrl": f"s3://{BUCKET}/live/"}
    sagemaker.create_model(ModelName="m", PrimaryContainer=container, ExecutionRoleArn=ROLE)
    variant = {"VariantName": "v", "ModelName": "m", "InstanceType": "ml.m5.large", "InitialInstanceCount": 2}
    sagemaker.create_endpoint_config(EndpointConfigName="c", ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName="e", EndpointConfigName="c")
    sagemaker.close()


@pytest.mark.parametrize("image", ["fake", "ours"])
def test_ctrl_c_while_an_endpoint_is_made_leaves_no_process_and_no_file(run: Run, image: str) -> None:
    command, url = start(run, "--image", FAKE)
    create(url, image)
    until(lambda: len(command.family()) > 2, 30)  # the containers are on their way
    command.signal(signal.SIGINT)
    assert command.wait() == 0, command.trouble
    command.assert_nothing_is_left()


def test_ctrl_c_while_a_component_is_made_leaves_no_process_and_no_file(run: Run) -> None:
    command, url = start(run, "--image", FAKE)
    sagemaker = client(url, "sagemaker")
    managed = {"Status": "ENABLED", "MinInstanceCount": 0, "MaxInstanceCount": 2}
    variant = {"VariantName": "v", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
    sagemaker.create_endpoint_config(
        EndpointConfigName="c",
        ExecutionRoleArn=ROLE,
        ProductionVariants=[{**variant, "ManagedInstanceScaling": managed}],
    )
    sagemaker.create_endpoint(EndpointName="e", EndpointConfigName="c")
    until(lambda: sagemaker.describe_endpoint(EndpointName="e")["EndpointStatus"] == "InService", 60)
    sagemaker.create_inference_component(
        InferenceComponentName="i",
        EndpointName="e",
        VariantName="v",
        Specification={
            "Container": {"Image": "fake"},
            "ComputeResourceRequirements": {"MinMemoryRequiredInMb": 512},
        },
        RuntimeConfig={"CopyCount": 2},
    )
    sagemaker.close()
    until(lambda: len(command.family()) > 2, 30)
    command.signal(signal.SIGINT)
    assert command.wait() == 0, command.trouble
    command.assert_nothing_is_left()


def test_killed_it_takes_its_containers_along(run: Run) -> None:
    command, url = start(run, "--image", FAKE)
    create(url, "fake")
    until(lambda: len(command.family()) > 2, 30)
    command.signal(signal.SIGKILL)
    command.wait()
    until(lambda: not command.family(), 30)


def test_it_says_how_a_client_finds_it(run: Run) -> None:
    command, url = start(run, "--region", "eu-west-1", "--trap", "slow-start")
    assert "region eu-west-1" in command.wait_for("ready")
    assert f"export AWS_ENDPOINT_URL={url}" in command.wait_for("next")
    assert command.wait_for("traps") == "traps     slow-start"
    command.signal(signal.SIGTERM)
    assert command.wait() == 0


def test_in_the_end_it_says_what_all_of_it_would_have_cost(run: Run) -> None:
    command, url = start(run, "--image", FAKE, "--speed", "3600")
    create(url, "fake")
    sagemaker = client(url, "sagemaker")
    until(lambda: sagemaker.describe_endpoint(EndpointName="e")["EndpointStatus"] == "InService", 60)
    sagemaker.close()
    assert command.wait_for("page").endswith(f"{url}/_platform")
    command.signal(signal.SIGTERM)
    assert command.wait_for("bill").startswith("bill      endpoint e/v")
    assert command.wait() == 0


def test_two_on_one_port_or_on_one_state_cannot_be(run: Run, tmp_path: Path) -> None:
    command, url = start(run, "--state", str(tmp_path))
    port = url.rpartition(":")[2]
    second = run("platform", "--port", port)
    assert second.wait() == 1
    assert f"cannot listen on 127.0.0.1:{port}" in second.trouble
    third = run("platform", "--port", str(free_port()), "--state", str(tmp_path))
    assert third.wait() == 1
    assert "held by another platform" in third.trouble
    command.signal(signal.SIGTERM)
    assert command.wait() == 0
    command.assert_nothing_is_left()


def test_a_state_that_is_no_directory_is_told_as_such(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    command = run("platform", "--port", str(free_port()), "--state", str(tmp_path / "file"))
    assert command.wait() == 1
    assert "cannot hold a state" in command.trouble
    assert "cannot listen" not in command.trouble


def test_whoever_asks_for_its_end_again_and_again_gets_it(run: Run) -> None:
    command, _ = start(run)
    for _ in range(2000):
        if not command.is_running:
            break
        command.signal(signal.SIGTERM)
        command.signal(signal.SIGINT)
    assert command.wait() == 0, command.trouble
    command.assert_nothing_is_left()


def test_a_state_of_another_version_is_refused(run: Run, tmp_path: Path) -> None:
    (tmp_path / "platform.json").write_text(json.dumps({"version": 99, "rooms": {}}))
    command = run("platform", "--port", str(free_port()), "--state", str(tmp_path))
    assert command.wait() == 1
    assert "version 99" in command.trouble


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--models", "/tmp", "--speed", "60"], "--speed: of no use with --models"),
        (["--models", "/tmp", "--engine", "podman"], "--engine: of no use with --models"),
        (["--instances", "2"], "--instances: of no use without --models"),
        (["--speed", "0"], "--speed 0"),
        (["--trap", "none"], "there is no trap 'none'"),
        (["--image", "fake"], "write NAME=COMMAND"),
    ],
)
def test_what_would_be_ignored_or_is_none_is_refused(run: Run, flags: list[str], words: str) -> None:
    command = run("platform", "--port", str(free_port()), *flags)
    assert command.wait() == 2
    assert words in command.trouble


def test_an_engine_that_is_not_there_or_that_nobody_answers_is_refused_at_the_start(run: Run, tmp_path: Path) -> None:
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    absent = run("platform", "--port", str(free_port()), "--engine", "podman", environment={"PATH": str(bin_)})
    assert absent.wait() == 1
    assert "podman: No such file or directory" in absent.trouble
    absent.assert_nothing_is_left()
    (bin_ / "docker").write_text("#!/bin/sh\necho 'Cannot connect to the Docker daemon at unix:///x.' >&2; exit 1\n")
    (bin_ / "docker").chmod(0o755)
    deaf = run("platform", "--port", str(free_port()), "--engine", "docker", environment={"PATH": str(bin_)})
    assert deaf.wait() == 1
    assert "mme platform: docker ps: Cannot connect to the Docker daemon" in deaf.trouble


def test_traps_are_listed(run: Run) -> None:
    command = run("platform", "--trap", "list")
    assert command.wait() == 0
    assert any(line.startswith("no-capacity") for line in command.lines)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_job_ends_with_it_however_that_ends(run: Run, number: signal.Signals) -> None:
    command, url = start(run)
    sagemaker, logs = client(url, "sagemaker"), client(url, "logs")
    script = "trap '' TERM INT; sleep 1000 & echo ready; wait"
    sagemaker.create_training_job(
        TrainingJobName="j",
        RoleArn=ROLE,
        AlgorithmSpecification={
            "TrainingImage": "image",
            "TrainingInputMode": "File",
            "ContainerEntrypoint": ["sh", "-c", script],
        },
        OutputDataConfig={"S3OutputPath": "s3://bucket/out"},
        ResourceConfig={"InstanceType": "ml.m5.large", "InstanceCount": 2, "VolumeSizeInGB": 1},
        StoppingCondition={"MaxRuntimeInSeconds": 3600},
    )
    group = "/aws/sagemaker/TrainingJobs"

    def is_running() -> bool:
        found = logs.describe_log_groups(logGroupNamePrefix=group)["logGroups"]
        return bool(found) and len(logs.filter_log_events(logGroupName=group)["events"]) == 2

    until(is_running, 60)
    command.signal(number)
    if number == signal.SIGINT:
        assert command.wait() == 0, command.trouble
        command.assert_nothing_is_left()
    else:
        command.wait()
        until(lambda: not command.family(), 30)
