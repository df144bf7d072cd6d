"""What settings become, from a limit to the process that keeps it."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from container import assembly, settings
from handler.archives.limits import Limits
from handler.errors import ArtifactRefused
from handler.telemetry.recorder import LiveRecorder
from tests.rig import boosters


def read(models: Path, **flags: str) -> settings.Settings:
    return settings.read({"models": str(models), "loaders": "1", **flags}, {})


@pytest.fixture
def models(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "a.tar.gz").write_bytes(boosters.archive({"xgboost-model": boosters.document(boosters.segment(1))}))
    return folder


def test_models_of_a_directory_are_borrowed_and_answer(models: Path, tmp_path: Path) -> None:
    with ExitStack() as closing:
        assembled = assembly.models_of_store(read(models), LiveRecorder(), closing, hooks=None, scratch=tmp_path)
        rows = boosters.rows(3, 6)
        with assembled.cache.borrow("a.tar.gz", 30) as borrowed:
            scores = borrowed.model.predict(rows)
        np.testing.assert_array_equal(scores, boosters.expected(boosters.segment(1), rows))
        assert any(thread.name.startswith("loader") for thread in threading.enumerate())


def test_the_process_that_opens_archives_has_the_operators_limit(models: Path, tmp_path: Path) -> None:
    n_bytes = (models / "a.tar.gz").stat().st_size
    with ExitStack() as closing:
        tight = read(models, max_artifact_bytes=str(n_bytes - 1))
        parts = assembly.loading_parts(tight, closing, n_preforked=1, hooks=None, scratch=tmp_path)
        with pytest.raises(ArtifactRefused, match=f"it has {n_bytes} bytes, the limit is {n_bytes - 1}"):
            parts.quarantine.examine((models / "a.tar.gz").read_bytes(), "a.tar.gz")
    wide = read(models, max_artifact_bytes="1GiB").artifacts
    assert Limits.of(wide.max_artifact_bytes, ignore_code=False).unpacked_max_bytes == 2 << 30


def test_a_large_body_keeps_as_many_cores_busy_as_the_container_has(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assembly, "container_cores", lambda: 3.9)
    with ExitStack() as closing:
        assembled = assembly.models_of_store(read(models), LiveRecorder(), closing, hooks=None, scratch=tmp_path)
        rows = np.repeat(boosters.rows(1, 6), 100_000, axis=0)
        with assembled.cache.borrow("a.tar.gz", 30) as borrowed:
            scores = borrowed.model.predict(rows)
        assert len(np.unique(scores)) == 1
        assert assembled.parts.crew.n_cores == 3
    assert not [one for one in threading.enumerate() if one.name.startswith("walker")]
