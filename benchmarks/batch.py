"""What `mme score` costs over tables of a thousand segments, beside pandas, DuckDB, polars, Spark and Ray Data.

    python -m benchmarks.batch [--rows 10000000] [--files 10] [--segments 1000] [--format csv] [--memory 100MiB]
                               [--rounds 3] [--rivals PYTHON [--only NAME,...]]

PYTHON is that of an environment of its own with xgboost-cpu and the rivals in it, Spark with a JRE on the PATH. The figure is
CPU seconds of the whole process tree, which other work on the machine disturbs least; wall time and peak memory (PSS) stand
beside it. Rivals take turns with `mme score`, and a ratio is the median of those of single rounds.

Rule: everybody reads the same files and loads the same models, and everybody's sum of scores is compared before a figure is
believed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq
import xgboost

from benchmarks.rig.segments import OUT, archive
from benchmarks.rig.trees import Figure, measured
from handler.importer import import_booster
from handler.importer.writer import ubj_of

N_FEATURES = 6
ROW_GROUP = 131_072
ZIPF = 1.1
# Of a thousand: how many, trees, depth.
KINDS = ((900, 25, 5), (90, 100, 6), (10, 500, 8))
RIVALS = (
    "pandas_files",
    "duckdb_sorted",
    "polars_partition",
    "spark_groups",
    "spark_batches",
    "ray_groups",
    "ray_batches",
)


@dataclass(frozen=True, slots=True)
class Workload:
    models: Path
    data: Path
    n_rows: int


def workload(n_segments: int, n_rows: int, n_files: int, format: str) -> Workload:
    """Made once and kept in out/."""
    root = OUT / "batch"
    models = root / f"models-{n_segments}"
    if not models.exists():
        part = models.with_suffix(".part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        _make_models(part, n_segments)
        part.rename(models)
    data = root / f"{format}-{n_segments}-{n_rows}-{n_files}"
    if not data.exists():
        part = data.with_suffix(".part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        for number in range(n_files):
            _make_file(part / f"{number:03}.{format}", number, n_rows // n_files, n_segments)
        part.rename(data)
    return Workload(models, data, n_rows)


def _make_models(folder: Path, n_segments: int) -> None:
    """A few trained of each kind; a segment's own leaves are those of one of them, scaled, so that no two answer alike."""
    draw = np.random.default_rng(0)
    at = 0
    for share, n_trees, depth in KINDS:
        trained = []
        for seed in range(3):
            x = draw.random((3000, N_FEATURES), np.float32)
            y = x @ draw.random(N_FEATURES, np.float32) + np.sin(12 * x[:, seed])
            parameters = {"max_depth": depth, "nthread": 1, "eta": 0.1, "min_child_weight": 0}
            trained.append(xgboost.train(parameters, xgboost.DMatrix(x, y), n_trees).save_raw("ubj"))
        for number in range(share * n_segments // 1000):
            learner = import_booster(bytes(trained[number % 3]), "trained").learner
            trees = learner.trees
            assert trees is not None
            trees.split_condition[trees.left < 0] *= np.float32(1 + at / n_segments)
            (folder / f"s{at:05}.tar.gz").write_bytes(archive(ubj_of(learner)))
            at += 1


def _make_file(path: Path, number: int, n_rows: int, n_segments: int) -> None:
    draw = np.random.default_rng(1000 + number)
    weights = 1 / np.arange(1, n_segments + 1) ** ZIPF
    # Which segments are busy has nothing to do with how large their models are.
    of_rank = np.random.default_rng(7).permutation(n_segments * 999 // 1000 if n_segments >= 1000 else n_segments)
    ranks = draw.choice(len(of_rank), n_rows, p=weights[: len(of_rank)] / weights[: len(of_rank)].sum())
    names = pa.array([f"s{at:05}" for at in range(n_segments)])
    table = pa.table(
        {
            "id": np.arange(n_rows) + number * n_rows,
            "segment": names.take(pa.array(of_rank[ranks])),
            **{f"f{at}": draw.random(n_rows, np.float32) for at in range(N_FEATURES)},
        }
    )
    if path.suffix == ".csv":
        csv.write_csv(table, path)
    else:
        pq.write_table(table, path, row_group_size=ROW_GROUP)


def score(made: Workload, *flags: str) -> tuple[Figure, float]:
    """The figure of one run, and the sum of its scores."""
    out = OUT / "batch" / "run"
    shutil.rmtree(out, ignore_errors=True)
    figure = measured(
        [
            *(sys.executable, "-m", "container.operate.main", "score", "--models", str(made.models)),
            *("--data", str(made.data), "--segment-column", "segment", "--keep", "id", "--out", str(out), "--strict"),
            *flags,
        ]
    )
    return figure, _sum_of(out / "rows")


def _sum_of(folder: Path) -> float:
    n_rows, total = 0, 0.0
    for path in sorted(folder.glob("*.parquet")):
        scores = pq.read_table(path, columns=["score"]).column("score")
        assert not scores.null_count
        n_rows += len(scores)
        total += float(scores.to_numpy().astype(np.float64).sum())
    return total


def rival(name: str, python: str, made: Workload) -> tuple[Figure, float]:
    out = OUT / "batch" / "rival"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    script = Path(__file__).with_name("rivals") / "tables.py"
    figure = measured([python, str(script), name, str(made.models), str(made.data), str(out)])
    return figure, _sum_of(out)


def show(who: str, figure: Figure, n_rows: int) -> None:
    per_cpu = n_rows / figure.cpu_s / 1e6
    print(
        f"{who:<34}{figure.cpu_s:8.2f} CPU s{figure.wall_s:8.2f} s{per_cpu:8.2f} M rows / CPU s{figure.peak_mb:8.0f} MB"
        f"  load {os.getloadavg()[0]:.1f}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--files", type=int, default=10)
    parser.add_argument("--segments", type=int, default=1000)
    parser.add_argument("--format", choices=("parquet", "csv"), default="parquet")
    parser.add_argument("--memory", help="for models, as of mme score")
    parser.add_argument("--rounds", type=int, default=1, help="of packed models and rivals")
    parser.add_argument("--rivals", metavar="PYTHON", help="of an environment with xgboost-cpu and the rivals")
    parser.add_argument("--only", default=",".join(RIVALS), help="of the rivals")
    chosen = parser.parse_args()
    rivals = chosen.only.split(",") if chosen.rivals else []
    made = workload(chosen.segments, chosen.rows, chosen.files, chosen.format)
    print(json.dumps({"rows": chosen.rows, "segments": chosen.segments, "load": os.getloadavg()[0]}))
    memory = ("--memory", chosen.memory) if chosen.memory else ()
    kept = OUT / "batch" / f"kept-{chosen.segments}"
    shutil.rmtree(kept, ignore_errors=True)
    figure, total = score(made, *memory)
    show("mme score, tar.gz", figure, chosen.rows)
    score(made, *memory, "--disk-dir", str(kept))  # packs
    ratios: dict[str, list[float]] = {name: [] for name in rivals}
    for _ in range(chosen.rounds):
        ours, again = score(made, *memory, "--disk-dir", str(kept))
        assert again == total
        show("mme score, packed models", ours, chosen.rows)
        for name in rivals:
            figure, theirs = rival(name, chosen.rivals, made)
            assert abs(theirs - total) <= 1e-9 * abs(total), (name, theirs, total)
            show(name, figure, chosen.rows)
            ratios[name].append(figure.cpu_s / ours.cpu_s)
    for name, found in ratios.items():
        print(f"{name:<34}{statistics.median(found):8.2f} x our CPU seconds ({min(found):.2f} to {max(found):.2f})")


if __name__ == "__main__":
    main()
