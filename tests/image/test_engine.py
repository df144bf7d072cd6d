"""The built image under `mme platform --engine`: from CreateModel to DeleteEndpoint; nothing is left.

Podman runs it. Docker's own client is answered by podman's service, which speaks its API, so that no daemon need run here.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from container.platform.endpoints.engine import LABEL, Engine
from tests.image.box import Image
from tests.rig import boosters
from tests.rig.command import Command
from tests.rig.endpoint import free_port, until
from tests.rig.platform import BUCKET, ROLE, client

pytestmark = [pytest.mark.image, pytest.mark.timeout(300)]

# Podman's defaults want systemd, and more open files than a container in a container may have.
PLAIN = """[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
"""
PATIENCE_S = 120.0
IGNORES_SIGTERM = "trap '' TERM; while :; do sleep 1; done"


def podman(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["podman", *words], capture_output=True, text=True, check=False, timeout=PATIENCE_S)


def containers() -> list[str]:
    return podman("ps", "--all", "--filter", f"label={LABEL}", "--format", "{{.Names}}").stdout.split()


@pytest.fixture(scope="module")
def engine(image: Image, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    """The image, where podman can run it."""
    if shutil.which("podman") is None:
        pytest.skip("needs podman")
    with pytest.MonkeyPatch.context() as patch:
        if "CONTAINERS_CONF" not in os.environ:
            plain = tmp_path_factory.mktemp("podman") / "containers.conf"
            plain.write_text(PLAIN)
            patch.setenv("CONTAINERS_CONF", str(plain))
        tried = podman(
            *("run", "--rm", "--pull", "never", "--no-healthcheck", "--network", "host", "--memory", "512m"),
            *("--entrypoint", "true", image.name),
        )
        if tried.returncode != 0:
            pytest.skip(f"podman cannot run containers here: {tried.stderr.strip()}")
        yield image


@pytest.fixture(scope="module")
def docker(engine: Image, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Docker's client with somebody to speak to."""
    if shutil.which("docker") is None:
        pytest.skip("needs docker's client")
    address = f"unix://{tmp_path_factory.mktemp('docker')}/api"
    service = subprocess.Popen(
        ["podman", "system", "service", "--time", "0", address],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("DOCKER_HOST", address)
            until(
                lambda: subprocess.run(["docker", "ps"], capture_output=True, check=False).returncode == 0, PATIENCE_S
            )
            yield
    finally:
        service.terminate()
        service.wait()


class Played:
    """`mme platform --engine NAME` and its clients. It has a secret in its environment."""

    def __init__(self, engine: str) -> None:
        self.command = Command(
            *("platform", "--engine", engine, "--port", str(free_port())), environment={"MME_TEST_SECRET": "s3cret"}
        )
        url = self.command.wait_for("ready").split()[1]
        self.sagemaker, self.runtime, self.s3 = (client(url, one) for one in ("sagemaker", "sagemaker-runtime", "s3"))

    def make(self, image: str, *, environment: Mapping[str, str] | None = None) -> Any:
        """An endpoint, as it is when it is settled."""
        container = {
            "Image": image,
            "Mode": "MultiModel",
            "ModelDataUrl": f"s3://{BUCKET}/live/",
            "Environment": dict(environment or {}),
        }
        variant = {"VariantName": "v", "ModelName": "m", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
        self.sagemaker.create_model(ModelName="m", PrimaryContainer=container, ExecutionRoleArn=ROLE)
        self.sagemaker.create_endpoint_config(EndpointConfigName="c", ProductionVariants=[variant])
        self.sagemaker.create_endpoint(EndpointName="e", EndpointConfigName="c")
        until(lambda: self.sagemaker.describe_endpoint(EndpointName="e")["EndpointStatus"] != "Creating", PATIENCE_S)
        return self.sagemaker.describe_endpoint(EndpointName="e")

    def scores(self, number: int, rows: np.ndarray) -> np.ndarray:
        body = "\n".join(",".join(f"{value:.9g}" for value in row) for row in rows)
        answer = self.runtime.invoke_endpoint(
            EndpointName="e", TargetModel=f"{number}.tar.gz", ContentType="text/csv", Accept="text/csv", Body=body
        )
        return np.loadtxt(io.BytesIO(answer["Body"].read()), dtype=np.float32, ndmin=1)

    def end(self, number: int = signal.SIGTERM) -> None:
        for one in (self.sagemaker, self.runtime, self.s3):
            one.close()
        self.command.signal(number)
        self.command.wait()


@pytest.fixture
def played(engine: Image, request: pytest.FixtureRequest) -> Iterator[Played]:
    name = getattr(request, "param", "podman")
    if name == "docker":
        request.getfixturevalue("docker")
    one = Played(name)
    try:
        yield one
    finally:
        if one.command.is_running:
            one.end()
        one.command.close()


def assert_answers(played: Played, number: int) -> None:
    rows = boosters.rows(5, 6, seed=99)
    expected = boosters.expected(boosters.segment(number), rows)[:, 0]
    np.testing.assert_allclose(played.scores(number, rows), expected, rtol=1e-6)


def answers(played: Played) -> bool:
    try:
        played.scores(0, boosters.rows(1, 6))
    except played.runtime.exceptions.ClientError:
        return False
    return True


@pytest.mark.parametrize("played", ["podman", "docker"], indirect=True)
def test_from_create_model_to_delete_endpoint(engine: Image, played: Played) -> None:
    played.s3.create_bucket(Bucket=BUCKET)
    for number in range(2):
        played.s3.put_object(Bucket=BUCKET, Key=f"live/{number}.tar.gz", Body=boosters.segment_archive(number))
    told = played.make(engine.name, environment={"TOLD": "two words\nand a line"})
    assert told["EndpointStatus"] == "InService", told
    for number in (0, 1, 0):
        assert_answers(played, number)

    (name,) = containers()
    found = json.loads(podman("inspect", name).stdout)[0]
    assert Engine("podman").pid_of(name) == found["State"]["Pid"]
    assert found["HostConfig"]["Memory"] == 8 << 30  # an ml.m5.large's
    environment = dict(one.split("=", 1) for one in found["Config"]["Env"])
    assert environment["TOLD"] == "two words\nand a line"
    assert environment["SAGEMAKER_MULTI_MODEL"] == "true"
    assert "s3cret" not in json.dumps(found)
    (models,) = [one for one in found["Mounts"] if one["Destination"] == "/opt/ml/models"]
    assert not models["RW"]

    # What dies is started again, under another name.
    assert podman("kill", name).returncode == 0
    until(lambda: name not in containers() and answers(played), PATIENCE_S)
    assert_answers(played, 1)

    played.sagemaker.delete_endpoint(EndpointName="e")
    until(lambda: not containers(), PATIENCE_S)
    played.end()
    assert "bill" in played.command.output
    played.command.assert_nothing_is_left()


@pytest.mark.parametrize(
    ("played", "words"),
    [
        ("podman", "podman: Error: localhost/nobody-built-this:latest: image not known"),
        ("docker", "docker: Error response from daemon: no such image"),
    ],
    indirect=["played"],
)
def test_an_image_that_the_engine_does_not_know_fails_the_endpoint_in_the_engines_words(
    played: Played, words: str
) -> None:
    told = played.make("localhost/nobody-built-this:latest")
    assert told["EndpointStatus"] == "Failed"
    assert f"cannot be run by {words}" in told["FailureReason"]
    with pytest.raises(played.sagemaker.exceptions.ClientError, match="they run as processes"):
        played.sagemaker.create_processing_job(
            ProcessingJobName="p",
            AppSpecification={"ImageUri": "any"},
            ProcessingResources={
                "ClusterConfig": {"InstanceCount": 1, "InstanceType": "ml.m5.large", "VolumeSizeInGB": 1}
            },
            RoleArn=ROLE,
        )


@pytest.mark.parametrize(
    ("played", "number"),
    [("podman", signal.SIGINT), ("podman", signal.SIGKILL), ("docker", signal.SIGKILL)],
    indirect=["played"],
)
def test_a_platform_that_is_ended_or_killed_takes_its_containers_along(
    engine: Image, played: Played, number: int
) -> None:
    assert played.make(engine.name)["EndpointStatus"] == "InService"
    assert containers()
    played.end(number)
    until(lambda: not containers(), PATIENCE_S)


def test_the_next_start_sweeps_what_a_killed_platform_could_not(engine: Image, tmp_path: Path) -> None:
    """Such as a container that no SIGTERM ends; those of a platform that runs are left alone."""
    mine = Engine("podman")
    label = next(word for word in mine.command("any", "any", {}) if word.startswith(LABEL))
    gone, alive = "mme-platform-4194305-1-abc", mine.new_name()  # more than a process's number can be
    try:
        for name in (gone, alive):
            done = podman(
                *("run", "--detach", "--name", name, "--label", label, "--no-healthcheck", "--network", "host"),
                *("--entrypoint", "sh", engine.name, "-c", IGNORES_SIGTERM),
            )
            assert done.returncode == 0, done.stderr
        Engine("podman")
        assert containers() == [alive]
    finally:
        mine.close()
    assert containers() == []
