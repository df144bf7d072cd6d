"""The direct path into libxgboost against XGBoost's own Python package."""

from __future__ import annotations

import json
import math
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
import xgboost

from handler.errors import FeatureMismatch, IterationsUndecided
from handler.libxgboost import Booster, Kind, XGBoostError
from handler.predictor import (
    MAX_RESTING,
    SCORES_PER_CALL,
    SMALLEST,
    Ensemble,
    Facts,
    FoldsDisagree,
    HandlePool,
    Iterations,
    Model,
    facts_of_ensemble,
)
from tests.rig import boosters

CASES: dict[str, dict[str, Any]] = {
    "squarederror": {"objective": "reg:squarederror"},
    "logistic": {"objective": "binary:logistic"},
    "softprob": {"objective": "multi:softprob", "num_class": 3},
    "softmax": {"objective": "multi:softmax", "num_class": 4},
    "dart": {"booster": "dart", "rate_drop": 0.3},
    "gblinear": {"booster": "gblinear"},
    "forest": {"num_parallel_tree": 4, "subsample": 0.7},
}


@pytest.fixture(scope="module")
def trained() -> dict[str, xgboost.Booster]:
    return {name: boosters.train(**parameters) for name, parameters in CASES.items()}


def facts_of(name: str, booster: xgboost.Booster) -> Facts:
    parameters = CASES[name]
    n_outputs = parameters.get("num_class", 1) if parameters.get("objective") != "multi:softmax" else 1
    return Facts(
        objective=parameters.get("objective", "reg:squarederror"),
        booster=parameters.get("booster", "gbtree"),
        n_features=booster.num_features(),
        n_outputs=n_outputs,
        resident_bytes=1,
    )


def model_of(name: str, booster: xgboost.Booster, pool: HandlePool) -> Model:
    return Model(pool.load(boosters.document(booster)), facts_of(name, booster), pool.rest)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("n_rows", [1, 2, SCORES_PER_CALL, SCORES_PER_CALL + 1, 1000])
def test_scores_are_xgboosts_own(trained: dict[str, xgboost.Booster], name: str, n_rows: int) -> None:
    x = boosters.rows(n_rows, 6, seed=n_rows)
    x[::3, 1] = np.nan
    scores = model_of(name, trained[name], HandlePool()).predict(x)
    wanted = boosters.expected(trained[name], x)
    assert scores.dtype == np.float32
    assert scores.shape == wanted.shape
    if name == "dart":  # XGBoost itself adds dart's trees in another order in place, and differs in the last bit
        np.testing.assert_allclose(scores, wanted, rtol=1e-6)
    else:
        np.testing.assert_array_equal(scores, wanted)


@pytest.mark.parametrize("name", ["squarederror", "softprob", "gblinear"])
@pytest.mark.parametrize("kind", [Kind.MARGIN, Kind.CONTRIBS, Kind.LEAF])
def test_other_kinds_are_xgboosts_own(trained: dict[str, xgboost.Booster], name: str, kind: Kind) -> None:
    if (name, kind) == ("gblinear", Kind.LEAF):
        pytest.skip("a linear booster has no leaves")
    x = boosters.rows(5, 6)
    option = {Kind.MARGIN: "output_margin", Kind.CONTRIBS: "pred_contribs", Kind.LEAF: "pred_leaf"}[kind]
    wanted = trained[name].predict(xgboost.DMatrix(x), strict_shape=True, **{option: True})
    np.testing.assert_array_equal(model_of(name, trained[name], HandlePool()).predict(x, kind), wanted)


@pytest.mark.parametrize("n_columns", [0, 1, 5, 7])
def test_a_wrong_number_of_columns_is_refused(trained: dict[str, xgboost.Booster], n_columns: int) -> None:
    model = model_of("squarederror", trained["squarederror"], HandlePool())
    with pytest.raises(FeatureMismatch, match=f"{n_columns} features, the model has 6"):
        model.predict(np.zeros((2, n_columns), np.float32))


def test_a_used_handle_answers_as_a_new_one_whatever_it_held(trained: dict[str, xgboost.Booster]) -> None:
    x = boosters.rows(4, 6)
    pool = HandlePool()
    for before in CASES:
        for after in CASES:
            for name in (before, after):
                model = model_of(name, trained[name], pool)
                fresh = model_of(name, trained[name], HandlePool())
                np.testing.assert_array_equal(model.predict(x), fresh.predict(x))
                model.close()
    assert pool.n_resting == 1


def test_only_so_many_handles_rest() -> None:
    pool = HandlePool()
    document = boosters.document(boosters.segment(1))
    for booster in [pool.load(document) for _ in range(MAX_RESTING + 10)]:
        pool.rest(booster)
    assert pool.n_resting == MAX_RESTING


def test_a_handle_rests_after_a_document_it_could_not_load() -> None:
    pool = HandlePool()
    with pytest.raises(XGBoostError):
        pool.load(b'{"learner":{}}')
    assert pool.n_resting == 1
    assert pool.load(SMALLEST).n_features() == 1


def folds(name: str, count: int) -> tuple[list[xgboost.Booster], Ensemble]:
    trained = [boosters.train(seed=seed, **CASES[name]) for seed in range(count)]
    facts = [facts_of(name, booster) for booster in trained]
    pool = HandlePool()
    models = [Model(pool.load(boosters.document(b)), f, pool.rest) for b, f in zip(trained, facts, strict=True)]
    return trained, Ensemble(models, facts_of_ensemble(facts))


@pytest.mark.parametrize("name", ["squarederror", "softprob"])
def test_folds_answer_their_mean(name: str) -> None:
    trained, ensemble = folds(name, 3)
    x = boosters.rows(20, 6)
    wanted = np.mean([boosters.expected(booster, x) for booster in trained], axis=0)
    np.testing.assert_allclose(ensemble.predict(x), wanted, rtol=1e-6)
    assert ensemble.facts.resident_bytes == 3


def test_folds_that_answer_classes_answer_their_majority_and_the_smaller_one_of_a_tie() -> None:
    trained, ensemble = folds("softmax", 4)
    x = boosters.rows(200, 6)
    answers = np.stack([boosters.expected(booster, x)[:, 0] for booster in trained])
    wanted = [min(np.unique(column), key=lambda c: (-(column == c).sum(), c)) for column in answers.T]
    np.testing.assert_array_equal(ensemble.predict(x)[:, 0], wanted)


def test_folds_that_differ_are_no_ensemble_and_have_no_leaves_in_common() -> None:
    with pytest.raises(FoldsDisagree, match="n_features: 6 and 7"):
        facts_of_ensemble([Facts("o", "gbtree", 6, 1, 1), Facts("o", "gbtree", 7, 1, 1)])
    with pytest.raises(FoldsDisagree, match="leaves"):
        folds("squarederror", 2)[1].predict(boosters.rows(1, 6), Kind.LEAF)


def test_closing_twice_gives_the_handle_back_once(trained: dict[str, xgboost.Booster]) -> None:
    pool = HandlePool()
    model = model_of("squarederror", trained["squarederror"], pool)
    model.close()
    model.close()
    assert pool.n_resting == 1


def test_a_saved_booster_loads_and_saves_to_the_same_bytes(trained: dict[str, xgboost.Booster]) -> None:
    for booster in trained.values():
        first, second = Booster(), Booster()
        first.load(boosters.document(booster))
        second.load(first.save())
        assert second.save() == first.save()


@pytest.mark.parametrize("name", ["softprob", "gblinear"])
def test_threads_share_a_model_and_models_change_hands_under_them(
    trained: dict[str, xgboost.Booster], name: str
) -> None:
    x = boosters.rows(3, 6)
    wanted = boosters.expected(trained[name], x)
    other = boosters.document(trained["squarederror"])
    pool = HandlePool()
    model = model_of(name, trained[name], pool)
    stop = threading.Event()

    def churn() -> None:
        while not stop.is_set():
            pool.rest(pool.load(other))

    with ThreadPoolExecutor(5) as threads:
        churning = threads.submit(churn)
        answers = [threads.submit(lambda: [model.predict(x) for _ in range(200)]) for _ in range(4)]
        try:
            for answer in answers:
                for scores in answer.result(30):
                    np.testing.assert_array_equal(scores, wanted)
        finally:
            stop.set()
        churning.result(10)


@pytest.mark.parametrize(
    ("facts", "asked", "rounds"),
    [
        ({}, None, 0),
        ({}, Iterations.BEST, 0),
        ({"best_rounds": 3}, None, 0),
        ({"best_rounds": 3}, Iterations.BEST, 3),
        ({"best_rounds": 3, "stops_early": True}, None, 3),
        ({"best_rounds": 3, "stops_early": True}, Iterations.ALL, 0),
        ({"best_rounds": 3, "stops_early": True, "is_undecided": True}, None, None),
        ({"best_rounds": 3, "stops_early": True, "is_undecided": True}, Iterations.ALL, 0),
        ({"best_rounds": 3, "stops_early": True, "is_undecided": True}, Iterations.BEST, 3),
        ({"best_unknown": "nobody says"}, None, 0),
        ({"best_unknown": "nobody says"}, Iterations.BEST, None),
    ],
)
def test_the_rounds_that_answer(facts: dict[str, Any], asked: Iterations | None, rounds: int | None) -> None:
    stated = Facts("reg:squarederror", "gbtree", 6, 1, 1, **facts)
    if rounds is None:
        with pytest.raises(IterationsUndecided):
            stated.rounds(asked)
    else:
        assert stated.rounds(asked) == rounds


@pytest.mark.parametrize("missing", [-999.0, 0.0, math.inf, 0.1])
def test_a_number_that_means_missing_is_missing(missing: float, trained: dict[str, xgboost.Booster]) -> None:
    booster = trained["squarederror"]
    facts = replace(facts_of("squarederror", booster), missing=missing)
    pool = HandlePool()
    model = Model(pool.load(boosters.document(booster)), facts, pool.rest)
    x = boosters.rows(20, 6)
    x[::2, 1], x[1::3, 2] = missing, np.nan
    before = x.copy()
    with_nan = np.where(x == np.float32(missing), np.float32(np.nan), x)
    np.testing.assert_array_equal(model.predict(x), boosters.expected(booster, with_nan))
    np.testing.assert_array_equal(x, before)


def test_facts_travel_as_json() -> None:
    facts = Facts(
        *("multi:softprob", "gbtree", 6, 3, 1),
        categories=((1, ("a", "b")), (4, (10, 11))),
        labels=("x", "y", "z"),
        missing=math.inf,
        best_rounds=4,
        stops_early=True,
    )
    assert facts.as_dict() == asdict(facts)
    assert Facts.from_dict(json.loads(json.dumps(facts.as_dict()))) == facts
