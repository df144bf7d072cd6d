"""Boosters as `mme train` fits them, held against `xgboost.train` of the release that is installed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xgboost

from container.operate.train.fit import Examples, fit
from container.operate.train.parameters import Chosen, read
from container.operate.train.rows import Columns

pa = pytest.importorskip("pyarrow")

N_ROWS = 300
N_ROUNDS = 7
NAMES = ("x0", "x1", "x2")


def features(seed: int = 0) -> np.ndarray[Any, Any]:
    made = np.random.default_rng(seed).random((N_ROWS, len(NAMES)), np.float32)
    made[::7, 1] = np.nan
    return made


def labels(objective: str) -> np.ndarray[Any, Any]:
    x = np.nan_to_num(features())
    whole = np.floor(3 * x[:, 0] + x[:, 1]) % 3
    if objective.startswith("binary:"):
        return (x[:, 0] + x[:, 1] > 1).astype(np.float32)
    return (whole if objective.startswith(("multi:", "rank:")) else 1 + x @ [1.0, 2.0, 3.0]).astype(np.float32)


def chosen(*more: str) -> Chosen:
    (one,) = read(None, [f"num_round={N_ROUNDS}", *more], [], None).of("a")
    return one


@pytest.mark.parametrize(
    "parameters",
    [
        ["objective=reg:squarederror"],
        ["objective=reg:absoluteerror"],  # its leaves are made anew after each tree
        ["objective=count:poisson", "subsample=0.5", "seed=3"],
        ["objective=binary:logistic", "colsample_bynode=0.7", "scale_pos_weight=2"],
        ["objective=multi:softprob", "num_class=3"],
        ["objective=rank:ndcg"],
        ["objective=reg:squarederror", "booster=gblinear"],
        ["objective=reg:squarederror", "booster=dart", "rate_drop=0.3"],
        ["objective=reg:squarederror", "tree_method=exact", "num_parallel_tree=2"],
        ["objective=reg:squarederror", "monotone_constraints=(1,0,-1)"],
    ],
    ids=" ".join,
)
def test_rounds_through_the_library_are_those_of_the_package_byte_for_byte(parameters: list[str]) -> None:
    one = chosen(*parameters)
    groups = np.repeat(np.arange(N_ROWS // 10, dtype=np.int32), 10) if one.objective.startswith("rank:") else None
    x, y = features(), labels(one.objective)
    made = fit(Examples(x, y, groups=groups), [one], Columns(3, NAMES), one.metric, 0)
    more = {} if groups is None else {"qid": groups}
    matrix = xgboost.DMatrix(x, y, feature_names=list(NAMES), nthread=1, **more)
    theirs = xgboost.train({**dict(one.booster), "nthread": 1, "verbosity": 0}, matrix, N_ROUNDS)
    assert made.n_rounds == N_ROUNDS
    assert made.document == bytes(theirs.save_raw("ubj"))


def test_words_with_some_missing_are_learned_as_the_package_learns_them() -> None:
    words = ("blue", "green", "red")
    codes = np.random.default_rng(1).integers(0, 3, N_ROWS).astype(np.float32)
    codes[::11] = np.nan
    x = features()
    x[:, 2] = codes
    y = (np.nan_to_num(x[:, 0]) + 2 * (codes == 1)).astype(np.float32)
    one = chosen()
    made = fit(Examples(x, y), [one], Columns(3, NAMES, {2: words}), "rmse", 0)
    places = pa.array([None if np.isnan(code) else int(code) for code in codes], pa.int32())
    table = pa.table({"x0": x[:, 0], "x1": x[:, 1], "x2": pa.DictionaryArray.from_arrays(places, pa.array(words))})
    matrix = xgboost.DMatrix(table, label=y, enable_categorical=True, nthread=1)
    theirs = xgboost.train({**dict(one.booster), "nthread": 1, "verbosity": 0}, matrix, N_ROUNDS)
    assert made.document == bytes(theirs.save_raw("ubj"))


def test_what_xgboost_refuses_in_a_round_is_its_own_error() -> None:
    one = chosen("objective=binary:logistic")
    with pytest.raises(xgboost.core.XGBoostError, match="base_score must be in"):
        fit(Examples(features(), np.full(N_ROWS, 7, np.float32)), [one], Columns(3, NAMES), "logloss", 0)
