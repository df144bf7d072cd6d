"""A thousand boosters of the size that segments have, made once and kept in `out/`.

    python -m benchmarks.rig.segments [--segments 1000]      makes them and says how to serve them

Rule: each segment's booster is its own, so an answer from the wrong one is a wrong answer.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import tarfile
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import numpy.typing as npt
import xgboost

from handler.importer.booster import read
from handler.importer.writer import ubj_of

# Another place for whoever must leave nothing here.
OUT = Path(os.environ.get("BENCHMARKS_OUT") or Path(__file__).parents[1] / "out")
N_FEATURES = 6
N_ROUNDS = 27
N_ROWS = 1200  # of training data: with this depth and so many trees it gives about 70 KB of UBJ
DEPTH = 5

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Segments:
    """Artifacts on disk, as an endpoint serves them, and the plain documents, as an oracle reads them.

    models      directory with `0000.tar.gz` and so on: what `--models` takes
    documents   directory with `0000.ubj` and so on
    """

    models: Path
    documents: Path
    n_segments: int

    @property
    def targets(self) -> list[str]:
        return [f"{number:04}.tar.gz" for number in range(self.n_segments)]

    def document(self, target: str) -> bytes:
        return (self.documents / target.replace(".tar.gz", ".ubj")).read_bytes()

    def artifact(self, target: str) -> bytes:
        return (self.models / target).read_bytes()

    def oracle(self, target: str) -> xgboost.Booster:
        """XGBoost's own object for a target."""
        return xgboost.Booster({"nthread": 1}, model_file=bytearray(self.document(target)))


def make(n_segments: int) -> Segments:
    """The first `n_segments` segments; trains those that are not there yet (0.1 s each)."""
    segments = Segments(OUT / "segments" / "models", OUT / "segments" / "documents", n_segments)
    segments.models.mkdir(parents=True, exist_ok=True)
    segments.documents.mkdir(parents=True, exist_ok=True)
    for number, target in enumerate(segments.targets):
        if not (segments.models / target).exists():
            document = _train(number)
            _write(segments.documents / target.replace(".tar.gz", ".ubj"), document)
            _write(segments.models / target, archive(document))
    if n_segments < len(list(segments.models.iterdir())):
        segments = _subset(segments)
    return segments


def _subset(segments: Segments) -> Segments:
    """A view of the first segments only: links, for servers that list a directory."""
    models = OUT / f"segments-{segments.n_segments}"
    models.mkdir(exist_ok=True)
    for target in segments.targets:
        if not (models / target).exists():
            (models / target).hardlink_to(segments.models / target)
    return Segments(models, segments.documents, segments.n_segments)


def _train(seed: int) -> bytes:
    draw = np.random.default_rng(seed)
    x = draw.random((N_ROWS, N_FEATURES), dtype=np.float32)
    y = x @ draw.random(N_FEATURES, dtype=np.float32) * (1 + seed) + draw.normal(size=N_ROWS)
    booster = xgboost.train({"max_depth": DEPTH, "nthread": 1, "eta": 0.2}, xgboost.DMatrix(x, y, nthread=1), N_ROUNDS)
    return bytes(booster.save_raw("ubj"))


def make_large() -> Path:
    """The artifact of one booster that takes as much memory as a thousand segments: about 150 MB, a minute to train.

    Sixteen deep trees that learn noise by heart.
    """
    path = OUT / "large" / "large.tar.gz"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        draw = np.random.default_rng(0)
        matrix = xgboost.DMatrix(draw.random((380_000, N_FEATURES), dtype=np.float32), draw.normal(size=380_000))
        booster = xgboost.train({"max_depth": 24, "nthread": 2, "eta": 0.5, "lambda": 0}, matrix, 16)
        _write(path, archive(bytes(booster.save_raw("ubj"))))
    return path


def make_huge(n_times: int = 3) -> Path:
    """The artifact of a booster of 225 MB UBJ: the large one's trees, three times over."""
    path = OUT / "large" / f"{n_times}-times.tar.gz"
    if not path.exists():
        with tarfile.open(make_large()) as tar:
            member = tar.extractfile("xgboost-model")
            assert member is not None
            _, learner = read(member.read())
        assert learner.trees is not None
        trees = learner.trees
        for field in fields(trees):
            column = getattr(trees, field.name)
            if isinstance(column, np.ndarray):
                is_starts = field.name.endswith("starts")
                setattr(trees, field.name, _starts(column, n_times) if is_starts else np.tile(column, n_times))
        _write(path, archive(ubj_of(learner), compresslevel=1))
    return path


def _starts(column: npt.NDArray[np.int64], n_times: int) -> npt.NDArray[np.int64]:
    """Where each part begins when all parts come n_times."""
    steps = np.tile(np.diff(column), n_times)
    return np.concatenate([column[:1], column[:1] + np.cumsum(steps)])


def archive(document: bytes, compresslevel: int = 6) -> bytes:
    """A `model.tar.gz` as SageMaker's images write it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=compresslevel) as tar:
        info = tarfile.TarInfo("xgboost-model")
        info.size = len(document)
        tar.addfile(info, io.BytesIO(document))
    return buffer.getvalue()


def _write(path: Path, data: bytes) -> None:
    part = path.with_suffix(".part")
    part.write_bytes(data)
    part.rename(path)


def rows(n_rows: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).random((n_rows, N_FEATURES), dtype=np.float32)


def csv(block: Floats) -> bytes:
    """Rows as CSV; every number reads back as the float32 it was."""
    return "\n".join(",".join(str(value) for value in row) for row in block).encode()


def zipf(n_segments: int, n_draws: int, exponent: float = 1.0, seed: int = 0) -> npt.NDArray[np.int64]:
    """Numbers of segments, drawn as cities are: the k-th busiest 1/k**exponent as often as the first."""
    weights = 1.0 / np.arange(1, n_segments + 1) ** exponent
    draw = np.random.default_rng(seed)
    ranks = draw.permutation(n_segments)  # so that busy ones do not lie together
    return ranks[draw.choice(n_segments, n_draws, p=weights / weights.sum())]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--segments", type=int, default=1000)
    print(f"mme serve --models {make(parser.parse_args().segments).models}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
