from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handler.errors import ArtifactBroken, ArtifactRefused
from handler.importer import corrections, import_booster
from handler.importer.broken import Damaged, Unsupported
from handler.importer.learner import Learner


def learner(objective: str, base_score: float, **more) -> Learner:
    fields = {"release": (1, 2, 1), "booster": "gbtree", "n_features": 4, "num_class": 0, "n_targets": 1} | more
    return Learner(objective=objective, objective_params={}, base_score=np.array([base_score], np.float32), **fields)


@pytest.mark.parametrize(("old", "new"), corrections.OLD_NAMES.items())
def test_old_names_of_objectives_become_current_ones_and_are_said(old, new):
    found = learner(old, 0.5)
    assert any(new in sentence for sentence in corrections.correct(found))
    assert found.objective == new


@pytest.mark.parametrize(
    "objective", ["custom:mine", "reg:expectileerror", "", "multi:" + "x" * 200, "reg:squarederror\0"]
)
def test_an_unknown_objective_is_refused(objective):
    with pytest.raises(Unsupported, match="objective"):
        corrections.correct(learner(objective, 0.5))


@pytest.mark.parametrize(
    ("objective", "value"),
    [("binary:logistic", 1.5), ("binary:logistic", -0.1), ("count:poisson", 0.0), ("reg:gamma", -1.0)],
)
def test_a_base_score_its_objective_cannot_have_is_damage(objective, value):
    with pytest.raises(Damaged, match="base_score"):
        corrections.correct(learner(objective, value))


@settings(max_examples=200, deadline=None)
@given(st.floats(2**-19, 1 - 2**-16, width=32))
def test_the_margin_of_old_logistic_files_is_inverted_to_the_last_bit(probability):
    margin = corrections._logit(np.array([probability], np.float32))
    found = corrections._inverse_link("binary:logistic", margin)
    assert corrections._logit(found)[0] == pytest.approx(margin[0], abs=1e-6)


def test_logitraw_before_1_3_1_keeps_its_logit_and_later_does_not():
    old, new = learner("binary:logitraw", 0.2, release=(1, 3, 0)), learner("binary:logitraw", 0.2, release=(1, 3, 1))
    assert corrections.correct(old)
    assert not corrections.correct(new)
    assert old.base_score[0] == pytest.approx(np.log(0.25))
    assert new.base_score[0] == np.float32(0.2)


@pytest.mark.parametrize("release", [None, (1, 3)])
def test_logitraw_that_may_have_either_meaning_is_refused(release):
    with pytest.raises(Unsupported, match="unknown which"):
        corrections.correct(learner("binary:logitraw", 0.2, release=release))


def test_a_base_score_that_3_2_would_clip_is_refused_unless_its_writer_clipped_it_too():
    with pytest.raises(Unsupported, match="clip"):
        corrections.correct(learner("binary:logistic", 1e-7))
    corrections.correct(learner("binary:logistic", 1e-7, release=(3, 1, 0)))


def test_a_dart_booster_from_before_1_0_is_refused_because_it_had_no_one_answer(stock):
    with pytest.raises(ArtifactRefused, match="random"):
        import_booster(stock.files["xgboost-0.90/dart.bin"], "x")


@pytest.mark.parametrize(
    ("text", "is_served"), [("0.500000", True), ("0.300000", True), ("0.001235", False), ("0.123457", True)]
)
def test_json_of_1_0_with_a_small_rounded_base_score_is_refused(stock, text, is_served):
    model = json.loads(stock.files["xgboost-1.0.2/gamma.json"])
    model["learner"]["learner_model_param"]["base_score"] = text
    data = json.dumps(model).encode()
    if is_served:
        assert import_booster(data, "x").facts.base_score == (np.float32(text),)
    else:
        with pytest.raises(ArtifactRefused, match="rounded"):
            import_booster(data, "x")


def test_softmax_without_classes_is_damage(stock):
    model = json.loads(stock.files["xgboost-1.7.6/softprob.json"])
    model["learner"]["learner_model_param"]["num_class"] = "0"
    with pytest.raises(ArtifactBroken, match=r"classes|tree_info|rounds"):
        import_booster(json.dumps(model).encode(), "x")


def test_parameters_of_an_objective_are_taken_only_when_they_are_numbers():
    found = learner("reg:tweedie", 0.5)
    found.objective_params = {"tweedie_regression_param": {"tweedie_variance_power": "1.3"}, "else": {"a": "b"}}
    corrections.correct(found)
    assert found.objective_params == {"tweedie_regression_param": {"tweedie_variance_power": "1.3"}}
    found.objective_params = {"tweedie_regression_param": {"tweedie_variance_power": "$(rm)"}}
    corrections.correct(found)
    assert found.objective_params == {"tweedie_regression_param": {"tweedie_variance_power": "1.5"}}
