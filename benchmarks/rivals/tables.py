"""How a table of a thousand segments is scored without this project: pandas, DuckDB and polars with xgboost, each as its
users write it. Run by benchmarks.batch in an environment of its own; imports nothing of this project.

    python tables.py NAME MODELS DATA OUT
"""

from __future__ import annotations

import sys
import tarfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import xgboost

FEATURES = [f"f{at}" for at in range(6)]


def main() -> None:
    name, models, data, out = sys.argv[1], *map(Path, sys.argv[2:])
    files = sorted(data.iterdir())
    {"pandas_files": pandas_files, "duckdb_sorted": duckdb_sorted, "polars_partition": polars_partition}[name](
        models, files, out
    )


@cache
def booster(models: Path, segment: str) -> Any:
    with tarfile.open(models / f"{segment}.tar.gz") as tar:
        member = tar.extractfile(tar.next())  # type: ignore[arg-type]
        assert member is not None
        document = member.read()
    return xgboost.Booster({"nthread": 1}, model_file=bytearray(document))


def pandas_files(models: Path, files: list[Path], out: Path) -> None:
    import pandas as pd

    for path in files:
        frame = pd.read_csv(path) if path.suffix == ".csv" else pd.read_parquet(path)
        rows = frame[FEATURES].to_numpy(np.float32)
        scores = np.empty(len(frame), np.float32)
        for segment, at in frame.groupby("segment", sort=False).indices.items():
            scores[at] = booster(models, str(segment)).inplace_predict(rows[at])
        pd.DataFrame({"id": frame["id"], "score": scores}).to_parquet(out / f"{path.stem}.parquet")


def duckdb_sorted(models: Path, files: list[Path], out: Path) -> None:
    import duckdb
    import pyarrow as pa
    import pyarrow.parquet as pq

    pattern = str(files[0].parent / f"*{files[0].suffix}")
    found = duckdb.sql(f"select id, segment, {', '.join(FEATURES)} from '{pattern}' order by segment").fetchnumpy()
    segments = found["segment"]
    rows = np.column_stack([found[name].astype(np.float32) for name in FEATURES])
    starts = np.flatnonzero(np.concatenate(([True], segments[1:] != segments[:-1])))
    scores = np.empty(len(rows), np.float32)
    for start, end in zip(starts, [*starts[1:], len(rows)], strict=True):
        scores[start:end] = booster(models, str(segments[start])).inplace_predict(rows[start:end])
    pq.write_table(pa.table({"id": found["id"], "score": scores}), out / "all.parquet")


def polars_partition(models: Path, files: list[Path], out: Path) -> None:
    import polars as pl

    for path in files:
        frame = pl.read_csv(path) if path.suffix == ".csv" else pl.read_parquet(path)
        parts = []
        for (segment,), part in frame.partition_by("segment", as_dict=True).items():
            rows = part.select(FEATURES).to_numpy().astype(np.float32)
            scores = booster(models, str(segment)).inplace_predict(np.ascontiguousarray(rows))
            parts.append(part.select("id").with_columns(pl.Series("score", scores)))
        pl.concat(parts).write_parquet(out / f"{path.stem}.parquet")


if __name__ == "__main__":
    main()
