"""Metrics against XGBoost's own evaluation of the same answers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xgboost

from container.operate.train.metrics import OBJECTIVES, Truth, answers_of, check, floor_of, metric
from container.operate.troubles import Misused

N_ROWS = 400


def trained(objective: str, **more: Any) -> tuple[xgboost.Booster, np.ndarray, np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0)
    x = draw.random((N_ROWS, 4), np.float32)
    y = x.sum(axis=1) + draw.random(N_ROWS) / 2
    if objective.startswith(("binary:", "reg:logistic")):
        y = (y > 2.2).astype(float)
    elif objective.startswith("multi:"):
        y = np.minimum(y // 1, 2)
        more["num_class"] = 3
    elif objective.startswith(("rank:", "count:")):
        y = np.minimum(y // 1, 4) if objective != "rank:map" else (y > 2.2).astype(float)
    groups = np.repeat(np.arange(40), 10) if objective.startswith("rank:") else None
    matrix = xgboost.DMatrix(x, y, qid=groups)
    booster = xgboost.train({"objective": objective, "max_depth": 2, "nthread": 1, **more}, matrix, 4)
    return booster, x, y, np.arange(0, N_ROWS + 1, 10)


CASES = [
    *(
        (objective, name)
        for objective, (_, name) in OBJECTIVES.items()
        if objective not in ("reg:linear", "multi:softmax")
    ),
    *(("reg:squarederror", name) for name in ("mae", "mape", "rmsle")),
    *(("binary:logistic", name) for name in ("auc", "aucpr", "error", "error@0.7", "rmse")),
    *(("multi:softprob", name) for name in ("merror",)),
    *(("reg:gamma", name) for name in ("gamma-deviance",)),
    *(("reg:tweedie", name) for name in ("tweedie-nloglik@1.2",)),
    ("rank:map", "map@3"),
    *(("rank:ndcg", name) for name in ("ndcg@3", "ndcg@2-")),
]


@pytest.mark.parametrize("is_weighted", [False, True])
@pytest.mark.parametrize(("objective", "name"), CASES)
def test_a_metric_is_xgboosts_own(objective: str, name: str, is_weighted: bool) -> None:
    booster, x, y, groups = trained(objective)
    is_ranking = objective.startswith("rank:")
    if is_ranking and is_weighted:
        pytest.skip("queries are not weighed")
    weights = np.random.default_rng(1).integers(1, 5, N_ROWS).astype(float) if is_weighted else None
    matrix = xgboost.DMatrix(x, y, weight=weights, qid=np.repeat(np.arange(40), 10) if is_ranking else None)
    if objective == "binary:logitraw":  # of which XGBoost takes the logarithm of margins; chances are what it means
        booster.set_param({"objective": "binary:logistic"})
    booster.set_param({"eval_metric": name, "disable_default_eval_metric": 1})
    theirs = float(booster.eval(matrix).rsplit(":", 1)[1])
    is_raw = objective == "binary:logitraw"
    answers = answers_of(objective, booster.predict(xgboost.DMatrix(x), strict_shape=True, output_margin=is_raw))
    ours = metric(name)(Truth(y, weights, groups if is_ranking else None), answers)
    assert ours == pytest.approx(theirs, rel=2e-5, abs=2e-6)


def test_a_floor_knows_no_feature() -> None:
    assert floor_of("reg:squarederror", np.array([1.0, 3.0]), None, 3, 0).tolist() == [2, 2, 2]  # type: ignore[union-attr]
    assert floor_of("reg:squarederror", np.array([1.0, 3.0]), np.array([3.0, 1]), 1, 0) == [1.5]
    chances = floor_of("multi:softprob", np.array([0.0, 0, 2, 2]), None, 2, 3)
    assert chances is not None
    assert chances.tolist() == [[0.5, 0, 0.5]] * 2
    assert floor_of("multi:softmax", np.array([0.0, 2, 2]), None, 1, 3) == [2]
    assert floor_of("rank:ndcg", np.array([0.0, 2]), None, 1, 0) is None


@pytest.mark.parametrize(
    ("objective", "name"),
    [("reg:squarederror", "auc"), ("rank:ndcg", "rmse"), ("binary:logistic", "mlogloss"), ("reg:squarederror", "nonsense"),
     ("rank:ndcg", "ndcg@x"), ("reg:tweedie", "tweedie-nloglik@3")],
)  # fmt: skip
def test_what_says_nothing_of_the_answers_is_refused(objective: str, name: str) -> None:
    with pytest.raises(Misused):
        check([name], objective)
