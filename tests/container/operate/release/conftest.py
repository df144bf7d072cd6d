"""A shop in a directory and one on a small S3; both keep the same promises."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from container.operate.release.place import place_at
from tests.rig.faulty_s3 import ENVIRONMENT, FaultyS3
from tests.rig.shop import Shop


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def s3(made_up: None) -> Iterator[FaultyS3]:
    with FaultyS3() as s3:
        yield s3


@pytest.fixture(params=["directory", "s3"])
def shop(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shop]:
    if request.param == "directory":
        place = place_at(str(tmp_path / "live"))
    else:
        s3: FaultyS3 = request.getfixturevalue("s3")
        place = place_at(f"s3://{s3.bucket}/live/", None, s3.url, max_attempts=1)
    yield Shop(place)
    place.close()
