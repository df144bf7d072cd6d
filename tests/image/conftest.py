"""The image under test is the one MME_TEST_IMAGE names, so that nobody tries a stale one by accident; .ci/image names it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.image.box import Box, Image, buildah, inspected, missing
from tests.rig import boosters

N_SEGMENTS = 4


@pytest.fixture(scope="session")
def image() -> Iterator[Image]:
    if why := missing():
        pytest.skip(why)
    if (name := os.environ.get("MME_TEST_IMAGE")) is None:
        pytest.skip("MME_TEST_IMAGE names no image; .ci/image builds one and tries it")
    config, diff_ids = inspected(name)
    container = buildah("from", "--pull-never", name)
    try:
        yield Image(name, Path(buildah("mount", container)), config, diff_ids)
    finally:
        buildah("umount", container)
        buildah("rm", container)


@pytest.fixture(scope="session")
def segments(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with `0.tar.gz` and so on, readable by anyone; segment n answers as `boosters.segment(n)`."""
    root = tmp_path_factory.mktemp("segments")
    root.chmod(0o755)
    for number in range(N_SEGMENTS):
        (root / f"{number}.tar.gz").write_bytes(boosters.segment_archive(number))
    return root


@pytest.fixture(scope="session")
def box(image: Image, segments: Path) -> Iterator[Box]:
    """A container that serves the segments, for the tests that do not break it."""
    with Box(image, segments, environment={"MME_MODELS": "/mnt"}) as one:
        yield one
