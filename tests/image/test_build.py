"""What a build makes from the same and from changed sources."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.image.box import Image, buildah, inspected

pytestmark = [pytest.mark.image, pytest.mark.timeout(600)]

ROOT = Path(__file__).resolve().parents[2]
TAG = "localhost/changed-endpoint:test"


@pytest.fixture
def changed(image: Image, tmp_path: Path) -> Iterator[tuple[str, ...]]:
    """The layers of an image whose sources differ in one line of Python."""
    for name in ("build.sh", "Dockerfile", ".dockerignore", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy2(ROOT / name, tmp_path / name)
    for name in ("container", "handler", "requirements"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    with (tmp_path / "handler/targets.py").open("a") as source:
        source.write("\nCHANGED = True\n")
    base = image.config["Labels"]["org.opencontainers.image.base.name"]
    subprocess.run(
        ["./build.sh", "image"],
        cwd=tmp_path,
        env={"BUILDAH_ISOLATION": "chroot", **os.environ, "BUILDER": "buildah", "IMAGE_TAG": TAG, "BASE_IMAGE": base},
        check=True,
    )
    yield inspected(TAG)[1]
    buildah("rmi", TAG, f"{TAG.partition(':')[0]}:latest")


def test_a_change_of_code_makes_one_new_layer(image: Image, changed: tuple[str, ...]) -> None:
    assert len(changed) == len(image.diff_ids)
    assert changed[:-1] == image.diff_ids[:-1]
    assert changed[-1] != image.diff_ids[-1]
