"""Objects overwritten below a platform that never looks at them again: told of the prefix, our container does."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.flow.test_platform import ROWS, Platform
from tests.rig import boosters
from tests.rig.endpoint import needs_classes, until

pytestmark = needs_classes
PATIENCE_S = 60.0


def is_answer_of(seed: int, scores: np.ndarray) -> bool:
    return bool(np.allclose(scores, boosters.expected(boosters.segment(seed), ROWS).ravel(), rtol=1e-6))


def overwrite(path: Path, data: bytes) -> None:
    beside = path.with_suffix(".new")
    beside.write_bytes(data)
    beside.replace(path)


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("live")
    (root / "eu").mkdir()
    for number in range(4):
        (root / "eu" / f"{number}.tar.gz").write_bytes(boosters.segment_archive(number))
    return root


@pytest.fixture(scope="module")
def platform(live: Path) -> Iterator[Platform]:
    scratch = Path(tempfile.mkdtemp(prefix="mt-"))
    given = {"MME_MODELS": str(live), "MME_MAX_AGE_S": "1"}
    before = {name: os.environ.get(name) for name in given}
    os.environ.update(given)
    try:
        one = Platform(live, scratch)
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
    yield one
    one.stop()
    shutil.rmtree(scratch, ignore_errors=True)


def test_an_overwritten_object_answers_without_an_unload(platform: Platform, live: Path) -> None:
    assert is_answer_of(0, platform.invoke("eu/0.tar.gz"))
    for seed in (20, 21):  # the second one is compared by its ETag
        overwrite(live / "eu" / "0.tar.gz", boosters.segment_archive(seed))
        until(lambda seed=seed: is_answer_of(seed, platform.invoke("eu/0.tar.gz")), PATIENCE_S)
    assert platform.metrics()["ModelUnloadingTime"]["SampleCount"] == 0


def test_an_idle_model_is_renewed_before_it_is_asked_again(platform: Platform, live: Path) -> None:
    """By the sweeps; the first call would still be answered by the old one otherwise."""
    assert is_answer_of(1, platform.invoke("eu/1.tar.gz"))
    for seed, idle_s in ((30, 3), (31, 6), (32, 12), (33, 24)):  # however busy the machine is
        overwrite(live / "eu" / "1.tar.gz", boosters.segment_archive(seed))
        time.sleep(idle_s)
        if is_answer_of(seed, platform.invoke("eu/1.tar.gz")):
            return
    pytest.fail("it was never renewed while nobody asked")


def test_a_newer_object_that_is_broken_or_gone_leaves_the_model_as_it_is(platform: Platform, live: Path) -> None:
    assert is_answer_of(3, platform.invoke("eu/3.tar.gz"))
    path = live / "eu" / "3.tar.gz"
    overwrite(path, b"no archive")
    _goes_on_answering(platform, "eu/3.tar.gz", 3)
    path.unlink()
    _goes_on_answering(platform, "eu/3.tar.gz", 3)
    overwrite(path, boosters.segment_archive(40))
    until(lambda: is_answer_of(40, platform.invoke("eu/3.tar.gz")), PATIENCE_S)


def _goes_on_answering(platform: Platform, target: str, seed: int) -> None:
    ends = time.monotonic() + 3
    while time.monotonic() < ends:
        assert is_answer_of(seed, platform.invoke(target))
        time.sleep(0.05)
