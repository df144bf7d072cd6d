"""Real boosters and archives for tests, trained by XGBoost itself, which is also the oracle for their answers."""

from __future__ import annotations

import io
import tarfile
from functools import cache
from typing import Any

import numpy as np
import xgboost

from handler.forest import walker
from handler.loading.loader import OVERHEAD_BYTES
from handler.predictor import BYTES_PER_THREAD


def rows(n_rows: int, n_features: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((n_rows, n_features), dtype=np.float32)


def train(n_features: int = 6, n_rounds: int = 10, seed: int = 0, **parameters: Any) -> xgboost.Booster:
    """A small booster on random rows; `seed` makes each one answer differently."""
    x = rows(200, n_features, seed)
    classes = parameters.get("num_class")
    target = x.sum(axis=1) * (1 + seed)
    if classes:
        target = np.floor(x[:, 0] * classes)
    elif parameters.get("objective", "").startswith("binary:"):
        target = (x[:, 0] > 0.5).astype(np.float32)
    return xgboost.train(
        {"max_depth": 4, "nthread": 1, "verbosity": 0, **parameters}, xgboost.DMatrix(x, target), n_rounds
    )


@cache
def segment(seed: int) -> xgboost.Booster:
    """The booster of segment number `seed`: six features, one output, unlike any other's."""
    return train(seed=seed)


def document(booster: xgboost.Booster, format: str = "ubj") -> bytes:
    return bytes(booster.save_raw(format))


def memory_for(n_segments: float, n_workers: int) -> str:
    """A --memory for so many segments: they are packed where there is a walker, and boosters where there is none."""
    n_bytes = 4_100 if walker.is_available() else 20_000 + (n_workers + 1) * BYTES_PER_THREAD
    return str(int(n_segments * (n_bytes + OVERHEAD_BYTES)))


def archive(members: dict[str, bytes]) -> bytes:
    """A model.tar.gz with these members."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


@cache
def segment_archive(seed: int) -> bytes:
    return archive({"xgboost-model": document(segment(seed))})


def expected(booster: xgboost.Booster, x: np.ndarray) -> np.ndarray:
    """What XGBoost's own package predicts, (n_rows, n_outputs)."""
    scores: np.ndarray = booster.predict(xgboost.DMatrix(x), strict_shape=True)
    return scores
