"""What a request's work is estimated at before it is begun, to what it takes: `python -m benchmarks.estimates`.

Forests of several shapes, every output, in this process: seconds of a core for some thousand rows, the median of a few runs,
all threads together. Of an estimate that is too low a caller may take more of a core than the bound on it says; of one that
is too high he is refused, or counts as heavy, too soon. Constants are those of `TreeCost` (handler/bounds.py).

Targets: no estimate is below half of what was taken, and none above twenty times.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import xgboost

from benchmarks.rig import record
from benchmarks.rig.verdicts import Verdicts
from handler.forest.booster_pool import BoosterPool
from handler.forest.model import Forest
from handler.forest.packed import pack
from handler.importer import import_booster
from handler.libxgboost import Kind
from handler.predictor import Facts, HandlePool
from tests.rig import boosters

SHAPES = [(20, 3), (100, 6), (100, 8), (200, 12)]  # trees, and levels of splits at most
N_FEATURES = 6
N_ROWS = {Kind.VALUE: 20_000, Kind.LEAF: 5_000, Kind.APPROX_CONTRIBS: 2_000, Kind.CONTRIBS: 500, Kind.INTERACTIONS: 50}
LEAST, MOST = 0.5, 20.0


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=5, help="of each")
    chosen = parser.parse_args()
    verdicts = Verdicts()
    figures: list[dict[str, Any]] = []
    for n_trees, depth in SHAPES:
        model = _model(n_trees, depth)
        for kind, n_rows in N_ROWS.items():
            rows = boosters.rows(n_rows, N_FEATURES)
            model.predict(rows[:1], kind)
            took_s = statistics.median(_seconds_of(partial(model.predict, rows, kind)) for _ in range(chosen.runs))
            estimate_s = n_rows * model.cost.row_s(kind)
            figures.append(
                {"trees": n_trees, "depth": depth, "kind": kind.name, "took_s": took_s, "estimate_s": estimate_s}
            )
            verdicts.say(
                f"{n_trees} trees of {depth}, {kind.name.lower()}",
                f"{took_s / n_rows * 1e6:.2f} us a row, estimated at {estimate_s / took_s:.1f} times that",
                f"{LEAST:g} to {MOST:g}",
                LEAST <= estimate_s / took_s <= MOST,
            )
        model.close()
    record.save("estimates", {"figures": figures, "verdicts": verdicts.lines})
    return verdicts.exit_status


def _model(n_trees: int, depth: int) -> Forest:
    x = boosters.rows(4000, N_FEATURES)
    booster = xgboost.train({"max_depth": depth, "nthread": 1}, xgboost.DMatrix(x, np.sin(9 * x).sum(axis=1)), n_trees)
    packed = pack(import_booster(boosters.document(booster), "estimates").learner)
    assert packed is not None
    facts = Facts("reg:squarederror", "gbtree", N_FEATURES, 1, 100_000, is_forest=True)
    return Forest(packed, facts, BoosterPool(HandlePool()))


def _seconds_of(work: Callable[[], object]) -> float:
    began_s = time.process_time()
    work()
    return time.process_time() - began_s


if __name__ == "__main__":
    sys.exit(main())
