"""How a table of a thousand segments is scored without this project: pandas, DuckDB, polars, Spark and Ray Data with xgboost,
each as its users write it. Run by benchmarks.batch in an environment of its own; imports nothing of this project.

    python tables.py NAME MODELS DATA OUT
"""

from __future__ import annotations

import importlib
import os
import sys
import tarfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import xgboost

FEATURES = [f"f{at}" for at in range(6)]


def main() -> None:
    name, models, data, out = sys.argv[1], *map(Path, sys.argv[2:])
    # What Spark and Ray start imports this file by its name, and so keeps its boosters from one batch to the next.
    os.environ["PYTHONPATH"] = str(Path(__file__).parent)
    os.environ["PYSPARK_PYTHON"] = sys.executable
    getattr(importlib.import_module(Path(__file__).stem), name)(models, sorted(data.iterdir()), out)


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
        scores = by_segment(models, frame["segment"], frame[FEATURES].to_numpy(np.float32))
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


def spark_groups(models: Path, files: list[Path], out: Path) -> None:
    """A shuffle by segment, and a function of each group."""

    def score(frame: Any) -> Any:
        rows = frame[FEATURES].to_numpy(np.float32)
        scores = booster(models, str(frame["segment"].iloc[0])).inplace_predict(rows)
        return frame[["id"]].assign(score=scores)

    _spark_frame(files).groupBy("segment").applyInPandas(score, "id long, score float").write.mode("append").parquet(
        str(out)
    )


def spark_batches(models: Path, files: list[Path], out: Path) -> None:
    """No shuffle: each batch by segment, boosters kept by the worker."""

    def score(batches: Iterator[Any]) -> Iterator[Any]:
        import pyarrow as pa

        for batch in batches:
            frame = batch.to_pandas()
            scores = by_segment(models, frame["segment"], frame[FEATURES].to_numpy(np.float32))
            yield pa.record_batch({"id": batch.column("id"), "score": pa.array(scores)})

    _spark_frame(files).mapInArrow(score, "id long, score float").write.mode("append").parquet(str(out))


def _spark_frame(files: list[Path]) -> Any:
    from pyspark.sql import SparkSession

    settings = {
        "spark.ui.enabled": "false",
        "spark.driver.memory": "2g",
        "spark.sql.execution.arrow.maxRecordsPerBatch": "131072",
        "spark.sql.shuffle.partitions": "16",
    }
    maker = SparkSession.builder.master("local[2]")
    for name, value in settings.items():
        maker = maker.config(name, value)
    read, names = maker.getOrCreate().read, [str(path) for path in files]
    return read.csv(names, header=True, inferSchema=True) if files[0].suffix == ".csv" else read.parquet(*names)


def ray_groups(models: Path, files: list[Path], out: Path) -> None:
    """A shuffle by segment, and a function of each group."""

    def score(group: dict[str, Any]) -> dict[str, Any]:
        rows = np.column_stack([group[name] for name in FEATURES]).astype(np.float32)
        return {"id": group["id"], "score": booster(models, str(group["segment"][0])).inplace_predict(rows)}

    _ray_rows(files).groupby("segment").map_groups(score, batch_format="numpy").write_parquet(str(out))


def ray_batches(models: Path, files: list[Path], out: Path) -> None:
    """No shuffle: each batch by segment, boosters kept by the actor."""
    _ray_rows(files).map_batches(
        Batches, fn_constructor_args=(models,), batch_size=131_072, batch_format="pandas", concurrency=2, num_cpus=0.5
    ).write_parquet(str(out))


class Batches:
    def __init__(self, models: Path) -> None:
        self._models = models

    def __call__(self, frame: Any) -> dict[str, Any]:
        scores = by_segment(self._models, frame["segment"], frame[FEATURES].to_numpy(np.float32))
        return {"id": frame["id"].to_numpy(), "score": scores}


def _ray_rows(files: list[Path]) -> Any:
    import ray

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    names = [str(path) for path in files]
    return ray.data.read_csv(names) if files[0].suffix == ".csv" else ray.data.read_parquet(names)


def by_segment(models: Path, segments: Any, rows: Any) -> Any:
    scores = np.empty(len(rows), np.float32)
    for segment, at in segments.groupby(segments, sort=False).indices.items():
        scores[at] = booster(models, str(segment)).inplace_predict(rows[at])
    return scores


if __name__ == "__main__":
    main()
