"""A running endpoint over a directory of segments, shared by the tests that do not break it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.rig import boosters
from tests.rig.endpoint import Endpoint

N_SEGMENTS = 6


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A short path, as sockets need; pytest's own are too long."""
    path = Path(tempfile.mkdtemp(prefix="mt-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session")
def segments(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with `us/0.tar.gz` and so on; segment n answers as `boosters.segment(n)`."""
    root = tmp_path_factory.mktemp("segments")
    (root / "us").mkdir()
    for number in range(N_SEGMENTS):
        (root / "us" / f"{number}.tar.gz").write_bytes(boosters.segment_archive(number))
    return root


@pytest.fixture(scope="session")
def endpoint(segments: Path) -> Iterator[Endpoint]:
    scratch = Path(tempfile.mkdtemp(prefix="mt-"))
    with Endpoint(segments, scratch, "--workers", "4", "--loaders", "2") as one:
        yield one
    shutil.rmtree(scratch)
