"""What is in the image, and what is not."""

from __future__ import annotations

import io
import os
import re
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.image.box import Image

pytestmark = pytest.mark.image

ROOT = Path(__file__).resolve().parents[2]
HOME = "opt/mme"
MAX_BYTES = 520 << 20  # unpacked, without the base
CODE_MAX_BYTES = 3 << 20  # what a change of code ships: the endpoint, and all that stands around it

COMPILERS = {"cc", "c++", "gcc", "g++", "clang", "ld", "as", "make", "cmake", "javac", "jlink", "rustc", "cargo", "go"}


def everything(root: Path) -> Iterator[Path]:
    """Files and folders below `root`; links are not followed."""
    for folder, folders, files in os.walk(root):
        for name in [*folders, *files]:
            yield Path(folder, name)


def n_bytes(root: Path) -> int:
    return sum(path.lstat().st_size for path in everything(root) if not path.is_dir())


def site_packages(image: Image) -> Path:
    return next((image.root / HOME / "lib").glob("python3*/site-packages"))


def test_the_configuration_is_what_sagemaker_and_docker_read(image: Image) -> None:
    config = image.config
    assert config["Entrypoint"] == ["mme"]
    assert config["Cmd"] == ["serve"]
    assert list(config["ExposedPorts"]) == ["8080/tcp"]
    assert config["StopSignal"] == "SIGTERM"
    assert config["Healthcheck"]["Test"] == ["CMD", "mme", "health"]
    assert config["User"] not in ("", "0", "0:0", "root")
    labels = config["Labels"]
    assert labels["com.amazonaws.sagemaker.capabilities.multi-models"] == "true"
    assert labels["com.amazonaws.sagemaker.capabilities.accept-bind-to-port"] == "true"
    for name in ("title", "description", "version", "revision", "created", "licenses", "base.name"):
        assert labels[f"org.opencontainers.image.{name}"]


def test_it_stays_within_its_size(image: Image) -> None:
    assert n_bytes(image.root / HOME) < MAX_BYTES


def test_a_change_of_code_ships_less_than_three_megabytes(image: Image) -> None:
    """The last layer holds our packages, their metadata and the `mme` script; the four below are the base's and ours."""
    site = site_packages(image)
    ours = [site / "container", site / "handler", *site.glob("multi_model_endpoint-*.dist-info")]
    assert len(ours) == 3
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w:gz") as tar:  # as layers are pushed
        for folder in ours:
            tar.add(folder)
    assert layer.tell() < CODE_MAX_BYTES


def test_models_are_walked(image: Image) -> None:
    """The walker was compiled for this image, loads in it, and agrees with its libxgboost."""
    program = "from handler.forest.proof import walker_agrees; from handler.forest.walker import is_available; "
    done = image.run("/opt/mme/bin/python3", "-c", program + "print(is_available() and walker_agrees())")
    assert done.stdout.strip() == "True", done.stderr


def test_no_compiler_is_in_it(image: Image) -> None:
    folders = [image.root / "usr/bin", image.root / "usr/local/bin", image.root / HOME / "bin"]
    found = {path.name for folder in folders if folder.is_dir() for path in folder.iterdir()}
    plain = {re.sub(r"-\d+(\.\d+)*$", "", name.rpartition("-linux-gnu-")[2]) for name in found}
    assert not plain & COMPILERS


def test_no_history_no_cache_and_no_test_is_in_it(image: Image) -> None:
    bad = {".git", ".pytest_cache", ".mypy_cache", ".hypothesis", ".venv", "tests", ".cache"}
    assert not [path for path in everything(image.root / HOME) if path.name in bad]
    assert not [path for name in ("build", "tool", "wheels", "layers") if (path := image.root / name).exists()]
    for name in ("root/.cache", "tmp", "var/tmp"):
        assert not (image.root / name).is_dir() or not list((image.root / name).iterdir())
    site = site_packages(image)
    assert not (site / "container/image").exists()
    assert not (site / "pip").exists()


# What a key, a token or a private key looks like, in our own files and in anything that is configuration.
_SECRETS = re.compile(
    rb"(?:AKIA|ASIA)[0-9A-Z]{16}|-----BEGIN (?:RSA |EC |OPENSSH )?PRIVATE KEY|gh[pousr]_[A-Za-z0-9]{36}|"
    rb"(?i:password|secret_access_key|auth_token)\s*=\s*[\"']?[A-Za-z0-9/+]{16,}"
)


def test_no_secret_is_in_it(image: Image) -> None:
    assert not [name for name in image.environment if re.search("SECRET|TOKEN|PASSWORD|CREDENTIAL", name)]
    site = site_packages(image)
    places = [site / "container", site / "handler", image.root / "etc", image.root / "root", image.root / HOME / "bin"]
    for place in places:
        for path in everything(place):
            if path.is_file() and not path.is_symlink() and path.stat().st_size < 1 << 20:
                assert not _SECRETS.search(path.read_bytes()), path
    for name in (".aws", ".netrc", ".docker", ".ssh", ".pypirc"):
        assert not (image.root / "root" / name).exists()


def test_nothing_in_it_gains_rights_or_can_be_rewritten(image: Image) -> None:
    for path in everything(image.root / HOME):
        mode = path.lstat()
        assert mode.st_uid == mode.st_gid == 0, path
        if not path.is_symlink():
            assert not mode.st_mode & (stat.S_ISUID | stat.S_ISGID | stat.S_IWOTH | stat.S_IWGRP), path


def test_what_was_left_out_is_missed_by_nobody(image: Image) -> None:
    """Every module that the runtime or a user's hook may import; `mme` and its commands; numpy's and scipy's own parts."""
    modules = [
        *("container.worker.main", "container.launch.supervisor", "container.operate.main", "handler.dispatch"),
        *("handler.stores.s3", "handler.importer", "container.metrics.admin", "container.metrics.cloudwatch"),
        *("xgboost", "xgboost.sklearn", "scipy.sparse", "scipy.stats", "scipy.special", "scipy.optimize"),
        *("numpy.testing", "numpy.linalg", "numpy.random", "numpy.fft", "boto3", "psutil", "orjson", "retrying"),
        *("sagemaker_inference.decoder", "sagemaker_inference.encoder", "sagemaker_inference.content_types"),
        *("sagemaker_inference.default_inference_handler", "sagemaker_inference.transformer", "prometheus_client"),
    ]
    code = f"import importlib\nfor name in {modules!r}: importlib.import_module(name)\nprint('all')"
    done = image.run("python3", "-c", code)
    assert done.stdout == "all\n", done.stderr


def test_every_package_in_it_is_the_locked_one(image: Image) -> None:
    lock = (ROOT / "requirements/image.lock").read_text()
    code = (
        "from importlib.metadata import distributions\n"
        "for one in distributions(): print(one.name.lower().replace('_', '-'), one.version)"
    )
    installed = dict(line.split() for line in image.run("/opt/mme/bin/python3", "-c", code).stdout.splitlines())
    installed.pop("multi-model-endpoint")
    locked = {(name.lower(), version) for name, version in re.findall(r"^([\w.-]+)==([^\s;]+)", lock, re.M)}
    assert set(installed.items()) <= locked
    assert set(installed) == {name for name, _ in locked}


def test_every_python_file_is_compiled(image: Image) -> None:
    """With a read-only root nobody could compile it later."""
    site = site_packages(image)
    compiled = {(path.parent.parent, path.name.split(".")[0]) for path in site.rglob("__pycache__/*.pyc")}
    sources = {(path.parent, path.name.split(".")[0]) for path in site.rglob("*.py")}
    assert not sources - compiled
