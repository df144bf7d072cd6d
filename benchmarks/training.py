"""What `mme train` costs over a thousand segments, beside a bare loop of one thread over the same rows.

    python -m benchmarks.training [--segments 1000] [--rows 2000] [--trees 100] [--memory 256MiB] [--rounds 3] [--grown 20]

A round is the bare loop (a matrix, 100 updates, the document; nothing read, judged or written), `mme train` without live
models, and `mme train` beside live models, one after the other, so that what else the machine does meets all three. The
figure is CPU milliseconds a model of the whole process tree; wall time and peak memory (PSS) stand beside it.

    --grown N   then `mme train` of N times the segments: time for each and memory should stay; with few rows and trees that
                is a matter of minutes, and what is ours weighs more in it. Once with the memory asked for, which the rows
                of the small run may not fill, and once both with half of what those take, so that both fill it

Rule: every model of the first run is held against the loop's own, byte for byte, before a figure is believed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xgboost

from benchmarks.rig.segments import OUT
from benchmarks.rig.trees import Figure, measured
from container.operate.artifacts.archive import MEMBER, pack
from container.operate.train.segment import PACK_LEVEL

N_FEATURES = 6
DEPTH = 5
PARAMETERS = {"objective": "reg:squarederror", "max_depth": DEPTH, "eta": 0.1, "nthread": 1, "seed": 0}
ROWS_PER_FILE = 1_000_000
ROW_BYTES = 4 * (N_FEATURES + 5)  # in memory, of a run


def data(n_segments: int, n_rows: int) -> Path:
    """Made once and kept in out/. A quarter more rows than are trained on: those judge, by the column `judge`."""
    folder = OUT / "training" / f"{n_segments}-{n_rows}"
    if folder.exists():
        return folder
    part = folder.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    n_each = n_rows + n_rows // 4
    n_all = n_segments * n_each
    order = np.random.default_rng(0).permutation(n_all)
    names = pa.array([f"s{at:05}" for at in range(n_segments)])
    for number, start in enumerate(range(0, n_all, ROWS_PER_FILE)):
        own = order[start : start + ROWS_PER_FILE]
        segment, row = own // n_each, own % n_each
        draw = np.random.default_rng(1 + number)
        x = draw.random((len(own), N_FEATURES), np.float32)
        y = x @ np.arange(1, N_FEATURES + 1) + np.sin(12 * x[:, 0]) * (1 + segment % 7) + draw.normal(0, 0.2, len(own))
        columns = {f"x{at}": x[:, at] for at in range(N_FEATURES)}
        table = {"segment": names.take(pa.array(segment)), "y": y.astype(np.float32), "judge": row >= n_rows, **columns}
        pq.write_table(pa.table(table), part / f"{number:03}.parquet", row_group_size=131_072)
    part.rename(folder)
    return folder


def loop(folder: Path, n_models: int, n_trees: int) -> None:
    """The rival: one thread, rows grouped beforehand; prints CPU seconds in the models alone, and a digest of each."""
    table = pq.read_table(folder)
    codes = np.array(
        [int(name[1:]) for name in table.column("segment").combine_chunks().dictionary_encode().dictionary.to_pylist()]
    )
    of_rows = codes[table.column("segment").combine_chunks().dictionary_encode().indices.to_numpy()]
    is_learned = ~table.column("judge").to_numpy()
    x = np.stack([table.column(f"x{at}").to_numpy() for at in range(N_FEATURES)], axis=1)
    y = table.column("y").to_numpy()
    order = np.argsort(of_rows, kind="stable")
    order = order[is_learned[order]]
    starts = np.searchsorted(of_rows[order], np.arange(n_models + 1))
    blocks = [(x[order[a:b]], y[order[a:b]]) for a, b in pairwise(starts.tolist())]
    names = [f"x{at}" for at in range(N_FEATURES)]
    began_cpu, began = time.process_time(), time.perf_counter()
    digests = []
    for rows, labels in blocks:
        booster = xgboost.train(PARAMETERS, xgboost.DMatrix(rows, labels, feature_names=names, nthread=1), n_trees)
        digests.append(bytes(booster.save_raw("ubj")))
    cpu_s, wall_s = time.process_time() - began_cpu, time.perf_counter() - began
    found = [hashlib.sha256(pack({MEMBER: one}, PACK_LEVEL)).hexdigest() for one in digests]
    print(json.dumps({"cpu_s": cpu_s, "wall_s": wall_s, "digests": found}))


def bare(folder: Path, n_models: int, n_trees: int) -> dict[str, object]:
    command = [sys.executable, "-m", "benchmarks.training", "--loop", str(folder)]
    command += ["--segments", str(n_models), "--trees", str(n_trees)]
    environment = {**os.environ, "OMP_WAIT_POLICY": "passive"}
    found: dict[str, object] = json.loads(
        subprocess.run(command, env=environment, check=True, capture_output=True).stdout
    )
    return found


def train(folder: Path, to: Path, n_trees: int, memory: str) -> Figure:
    return measured(
        [
            *(sys.executable, "-m", "container.operate.main", "train", "--data", str(folder), "--to", str(to)),
            *("--segment-column", "segment", "--label", "y", "--holdout-column", "judge"),
            *("--set", f"max_depth={DEPTH}", "eta=0.1", f"num_round={n_trees}", "--memory", memory),
        ]
    )


def digests_of(to: Path) -> list[str]:
    (path,) = (to.with_name(to.name + ".releases") / "releases").glob("*.json")
    segments = json.loads(path.read_bytes())["segments"]
    return [segments[key]["digest"] for key in sorted(segments)]


def fresh(name: str) -> Path:
    to = OUT / "training" / name
    for path in (to, to.with_name(to.name + ".releases")):
        shutil.rmtree(path, ignore_errors=True)
    return to


def show(who: str, cpu_s: float, wall_s: float, peak_mb: float, n_models: int) -> None:
    print(
        f"{who:<28}{1000 * cpu_s / n_models:8.1f} CPU ms a model{n_models / wall_s:8.1f} models/s"
        f"{cpu_s:9.1f} CPU s{wall_s:8.1f} s{peak_mb:8.0f} MB  load {os.getloadavg()[0]:.1f}",
        flush=True,
    )


def grow(folder: Path, chosen: argparse.Namespace) -> None:
    """Once and so many times the segments, with the memory asked for and with half of what the rows of the few take."""
    n_models = chosen.segments
    grown = data(n_models * chosen.grown, chosen.rows)
    half = n_models * (chosen.rows + chosen.rows // 4) * ROW_BYTES // 2
    for memory, what in ((chosen.memory, "as asked"), (str(half), "filled by both")):
        few = train(folder, fresh("few"), chosen.trees, memory)
        show(f"mme train, {memory}", few.cpu_s, few.wall_s, few.peak_mb, n_models)
        many = train(grown, fresh("grown"), chosen.trees, memory)
        show(f"{chosen.grown} times the segments", many.cpu_s, many.wall_s, many.peak_mb, n_models * chosen.grown)
        ratio = many.cpu_s / chosen.grown / few.cpu_s
        print(
            f"memory for rows {what:<25} {many.peak_mb / few.peak_mb:.2f} of the memory, {ratio:.2f} of the time a model",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--segments", type=int, default=1000)
    parser.add_argument("--rows", type=int, default=2000, help="of a segment, to train on")
    parser.add_argument("--trees", type=int, default=100)
    parser.add_argument("--memory", default="256MiB", help="for rows")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--grown", type=int, default=0, metavar="N", help="also N times the segments, twice")
    parser.add_argument("--loop", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    n_models = chosen.segments
    if chosen.loop:
        loop(chosen.loop, n_models, chosen.trees)
        return
    folder = data(n_models, chosen.rows)
    ratios, judged = [], []
    for number in range(chosen.rounds):
        rival = bare(folder, n_models, chosen.trees)
        cpu_s, wall_s = float(str(rival["cpu_s"])), float(str(rival["wall_s"]))
        show("bare loop", cpu_s, wall_s, 0, n_models)
        to = fresh("live")
        plain = train(folder, to, chosen.trees, chosen.memory)
        show("mme train", plain.cpu_s, plain.wall_s, plain.peak_mb, n_models)
        if not number:
            assert digests_of(to) == rival["digests"], "its models are not the loop's"
        approve = ("release", "approve", "--of", str(to))
        subprocess.run(
            [sys.executable, "-m", "container.operate.main", *approve], check=True, stdout=subprocess.DEVNULL
        )
        for path in (to.with_name(to.name + ".releases") / "releases").glob("*.json"):
            path.unlink()
        beside = train(folder, to, chosen.trees, chosen.memory)
        show("mme train beside live", beside.cpu_s, beside.wall_s, beside.peak_mb, n_models)
        ratios.append(cpu_s / plain.cpu_s)
        judged.append(beside.cpu_s / plain.cpu_s)
    print(f"models a CPU second, of the bare loop's   {statistics.median(ratios):.2f}   (0.9 wanted)")
    print(f"judging beside live models                {statistics.median(judged) - 1:+.1%}   (15 % at most)")
    if chosen.grown:
        grow(folder, chosen)


if __name__ == "__main__":
    main()
