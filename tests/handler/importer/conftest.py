"""Boosters written by real releases: see tests/fixtures/make_boosters.py for how boosters.tar.gz was made."""

from __future__ import annotations

import io
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xgboost

ARCHIVE = Path(__file__).resolve().parents[2] / "fixtures" / "boosters.tar.gz"


@dataclass(frozen=True)
class Stock:
    """The files of the archive by their path, and the manifest that says what each is."""

    files: dict[str, bytes]
    manifest: list[dict[str, Any]]

    def array(self, name: str) -> np.ndarray[Any, Any]:
        return np.load(io.BytesIO(self.files[name]))

    def of(self, release: str) -> list[dict[str, Any]]:
        return [entry for entry in self.manifest if entry["release"] == release]

    def expected(self, entry: dict[str, Any]) -> np.ndarray[Any, Any]:
        return self.array(f"xgboost-{entry['release']}/{entry['case']}.npy")

    def probe(self, entry: dict[str, Any]) -> np.ndarray[Any, Any]:
        return self.array("probe-coded.npy" if entry["coded"] else "probe.npy")


@pytest.fixture(scope="session")
def stock() -> Stock:
    with tarfile.open(ARCHIVE) as tar:
        files = {member.name: tar.extractfile(member).read() for member in tar}
    return Stock(files, json.loads(files["manifest.json"]))


def _predict(document: bytes, rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    booster = xgboost.Booster({"nthread": 1})
    booster.load_model(bytearray(document))
    return booster.predict(xgboost.DMatrix(rows, nthread=1), validate_features=False)


@pytest.fixture(scope="session")
def predict():
    """XGBoost 3.2's own answer to rows, from the bytes of a document."""
    return _predict


@pytest.fixture(scope="session")
def trained() -> xgboost.Booster:
    """A small regression booster: 5 trees, 4 features."""
    random = np.random.RandomState(0)
    rows = random.normal(size=(200, 4))
    label = rows[:, 0] * 2 + rows[:, 1] ** 2
    return xgboost.train({"max_depth": 3, "nthread": 1}, xgboost.DMatrix(rows, label=label), 5)


@pytest.fixture(scope="session")
def ubj_bytes(trained: xgboost.Booster) -> bytes:
    return bytes(trained.save_raw("ubj"))


@pytest.fixture(scope="session")
def json_bytes(trained: xgboost.Booster) -> bytes:
    return bytes(trained.save_raw("json"))
