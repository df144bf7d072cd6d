"""What a container engine is told. Its part is a script's here; tests/image/test_engine.py has real ones."""

from __future__ import annotations

import itertools
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from container.platform.endpoints.engine import Engine, EngineRefused
from tests.rig.endpoint import until
from tests.rig.platform import BUCKET, IMAGES, ROLE, Account, platform

# Writes down its words, knows the containers of the file NAMES, and runs whatever image as the fake container.
SCRIPT = """#!/bin/sh
printf '%s\\037' "$@" >>"{folder}/told"; echo >>"{folder}/told"
case $1 in
ps) cat "{folder}/names" ;;
run) for word; do case $word in SAGEMAKER_BIND_TO_PORT=*) exec {python} -I -S {fake} "${{word#*=}}" ;; esac; done ;;
*) exit 1 ;;
esac
"""


class Told:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def names(self, *names: str) -> None:
        (self._folder / "names").write_text("\n".join(names))

    @property
    def lines(self) -> list[list[str]]:
        return [line.split("\037")[:-1] for line in (self._folder / "told").read_text().splitlines()]


@pytest.fixture
def podman(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Told:
    program = tmp_path / "podman"
    program.write_text(SCRIPT.format(folder=tmp_path, python=sys.executable, fake=IMAGES["fake"][3]))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    told = Told(tmp_path)
    told.names()
    return told


@pytest.fixture
def account(podman: Told, monkeypatch: pytest.MonkeyPatch) -> Iterator[Account]:
    monkeypatch.setenv("MME_TEST_SECRET", "s3cret")
    with platform(engine="podman", images={}) as played:
        one = Account(played)
        yield one
        one.close()


@pytest.mark.usefixtures("podman")
def test_an_image_is_run_as_sagemaker_runs_it() -> None:
    engine = Engine("podman")
    command = engine.command(
        "image", "name", {"A": "b c"}, memory_bytes=512 << 20, mounts={Path("/here"): Path("/opt/ml/model")}
    )
    label = command[command.index("--label") + 1]
    assert label.startswith("mme.platform=")
    assert command == [
        *("podman", "run", "--rm", "--name", "name", "--label", label, "--network", "host", "--pull", "never"),
        *("--no-healthcheck", "--http-proxy=false", "--env-host=false", "--memory", "536870912"),
        *("-v", "/here:/opt/ml/model:ro,z", "-e", "A=b c", "--", "image", "serve"),
    ]


def test_what_is_left_of_platforms_that_are_gone_is_swept_and_nothing_else(podman: Told) -> None:
    alive = Engine("podman").new_name()
    pid = os.getpid()
    podman.names(alive, "mme-platform-4194305-1-a", f"mme-platform-{pid}-1-b", "somebody-elses")
    Engine("podman")
    gone = [
        "mme-platform-4194305-1-a",
        f"mme-platform-{pid}-1-b",
    ]  # a number that no process has, and one that another had
    assert [line[-1] for line in podman.lines if line[0] == "kill"] == gone
    assert [line[-1] for line in podman.lines if line[0] == "rm"] == gone


def test_an_engine_is_refused_in_its_own_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EngineRefused, match="docker: No such file"):
        Engine("docker")


@pytest.mark.usefixtures("podman")
def test_why_an_image_cannot_be_run_is_what_the_engine_said_last() -> None:
    engine = Engine("podman")
    assert engine.refusal("Error: image not known\n\nSee --help\n") == "Error: image not known"
    assert engine.refusal("sh: serve: not found\n") == "sh: serve: not found"
    assert engine.refusal("") == "it does not say why"


def test_a_single_models_data_are_mounted_and_nothing_of_ours_is_told(account: Account, podman: Told) -> None:
    container = {"Image": "any/image:1", "ModelDataUrl": f"s3://{BUCKET}/live/a.tar.gz", "Environment": {"WHO": "m"}}
    account.sagemaker.create_model(ModelName="m", PrimaryContainer=container, ExecutionRoleArn=ROLE)
    variant = {"VariantName": "v", "ModelName": "m", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
    account.sagemaker.create_endpoint_config(EndpointConfigName="c", ProductionVariants=[variant])
    account.endpoint("e", "c")

    (run,) = [line for line in podman.lines if line[0] == "run"]
    assert run[run.index("--memory") + 1] == str(8 << 30)
    assert run[run.index("-v") + 1].endswith("/model:/opt/ml/model:ro,z")
    assert run[-3:] == ["--", "any/image:1", "serve"]
    given = dict(word.split("=", 1) for before, word in itertools.pairwise(run) if before == "-e")
    assert given["WHO"] == "m"
    assert given["AWS_ENDPOINT_URL"] == account.url
    assert "SM_MODEL_DIR" not in given  # a directory here
    assert not {"PATH", "MME_TEST_SECRET"} & set(given)

    account.sagemaker.delete_endpoint(EndpointName="e")
    account.until_gone("e")
    name = run[run.index("--name") + 1]
    until(lambda: {("kill", name), ("rm", name)} <= {(line[0], line[-1]) for line in podman.lines}, 60)


def test_jobs_are_refused_where_an_engine_runs_the_images(account: Account) -> None:
    with pytest.raises(account.sagemaker.exceptions.ClientError, match="--engine podman: they run as processes"):
        account.sagemaker.create_training_job(
            TrainingJobName="j",
            RoleArn=ROLE,
            AlgorithmSpecification={"TrainingImage": "image", "TrainingInputMode": "File"},
            OutputDataConfig={"S3OutputPath": f"s3://{BUCKET}/out"},
            ResourceConfig={"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
            StoppingCondition={"MaxRuntimeInSeconds": 60},
        )
