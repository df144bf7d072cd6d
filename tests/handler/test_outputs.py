"""What is predicted: plans made into answers with real boosters' predictions."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import xgboost as xgb

from handler.attributes import OUTPUTS
from handler.errors import OutputUnsupported, PayloadInvalid
from handler.outputs import MAX_NUMBERS, OutputPlan, allowed_outputs, parse_outputs, plan_outputs
from handler.payload import encode

JSON = "application/json"
N_FEATURES = 3
RNG = np.random.default_rng(7)
ROWS = RNG.normal(size=(80, N_FEATURES)).astype(np.float32)
IS_POSITIVE = (ROWS[:, 0] + 0.3 * RNG.normal(size=80) > 0).astype(np.float32)
CLASSES = np.digitize(ROWS[:, 1], [-0.5, 0.5]).astype(np.float32)

LABELS = {
    "binary:logistic": IS_POSITIVE,
    "binary:logitraw": IS_POSITIVE,
    "binary:hinge": IS_POSITIVE,
    "multi:softmax": CLASSES,
    "multi:softprob": CLASSES,
    "reg:squarederror": ROWS[:, 0],
    "count:poisson": CLASSES,
}


def raw_predictions(objective: str) -> dict[str, np.ndarray]:
    """Every kind of prediction of a small model for five rows, in XGBoost's strict shape."""
    parameters = {"objective": objective, "max_depth": 2, "nthread": 1}
    if objective.startswith("multi:"):
        parameters["num_class"] = 3
    booster = xgb.train(parameters, xgb.DMatrix(ROWS, LABELS[objective]), num_boost_round=3)
    matrix = xgb.DMatrix(ROWS[:5])
    kinds = {
        "value": {},
        "margin": {"output_margin": True},
        "contribs": {"pred_contribs": True},
        "approx_contribs": {"pred_contribs": True, "approx_contribs": True},
        "interactions": {"pred_interactions": True},
        "leaf": {"pred_leaf": True},
    }
    return {kind: booster.predict(matrix, strict_shape=True, **options) for kind, options in kinds.items()}


RAW = {objective: raw_predictions(objective) for objective in LABELS}


def answered(objective: str, *wanted: str) -> list[dict[str, object]]:
    n_outputs = 3 if objective.startswith("multi:") else 1
    plan = plan_outputs(wanted, objective, n_outputs)
    raw = {kind: RAW[objective][kind] for kind in plan.kinds}  # and not one more
    return json.loads(encode(plan.answer(raw), JSON))["predictions"]


def column(objective: str, output: str) -> np.ndarray:
    return np.array([row[output] for row in answered(objective, output)])


def test_nothing_asked_for_is_the_plain_score() -> None:
    plan = plan_outputs((), "reg:squarederror", 1)
    assert plan.kinds == ("value",)
    assert plan.answer(RAW["reg:squarederror"]).outputs is RAW["reg:squarederror"]["value"]
    assert answered("multi:softprob")[0].keys() == {"score"}


def test_logistic_outputs_are_those_of_amazons_image() -> None:
    wanted = ("predicted_label", "labels", "probability", "probabilities", "raw_score", "raw_scores")
    for row, value in zip(answered("binary:logistic", *wanted), RAW["binary:logistic"]["value"][:, 0], strict=True):
        p = float(value)
        assert list(row) == list(wanted)
        assert row["predicted_label"] == int(p > 0.5)
        assert row["labels"] == [0, 1]
        assert row["probability"] == row["raw_score"] == pytest.approx(p)
        assert row["probabilities"] == row["raw_scores"] == pytest.approx([1 - p, p])


def test_softprob_outputs_are_those_of_amazons_image() -> None:
    wanted = ("predicted_label", "labels", "probability", "probabilities", "raw_score", "raw_scores")
    for row, value in zip(answered("multi:softprob", *wanted), RAW["multi:softprob"]["value"], strict=True):
        assert row["predicted_label"] == int(value.argmax())
        assert row["labels"] == [0, 1, 2]
        assert row["probability"] == row["raw_score"] == pytest.approx(value.max())
        assert row["probabilities"] == row["raw_scores"] == pytest.approx(value.tolist())


@pytest.mark.parametrize("objective", ["binary:logitraw", "binary:hinge", "multi:softmax"])
def test_objectives_without_probabilities_have_labels_and_raw_scores(objective: str) -> None:
    values = RAW[objective]["value"][:, 0]
    expected = values > 0 if objective == "binary:logitraw" else values
    assert column(objective, "predicted_label").tolist() == expected.astype(int).tolist()
    assert column(objective, "raw_score") == pytest.approx(values)
    assert column(objective, "raw_scores") == pytest.approx(np.column_stack([1 - values, values]))
    with pytest.raises(OutputUnsupported):
        answered(objective, "probability")


@pytest.mark.parametrize("objective", ["reg:squarederror", "count:poisson"])
def test_what_is_no_classification_has_a_predicted_score(objective: str) -> None:
    assert column(objective, "predicted_score") == pytest.approx(RAW[objective]["value"][:, 0])


@pytest.mark.parametrize("objective", sorted(LABELS))
def test_contributions_add_up_to_the_margin(objective: str) -> None:
    margin = column(objective, "margin")
    for output in ("contribs", "approx_contribs"):
        contribs = column(objective, output)
        assert contribs.shape == (*margin.shape, N_FEATURES + 1)
        assert contribs.sum(axis=-1) == pytest.approx(margin, abs=1e-4)
    interactions = column(objective, "interactions")
    assert interactions.shape == (*margin.shape, N_FEATURES + 1, N_FEATURES + 1)
    assert interactions.sum(axis=(-1, -2)) == pytest.approx(margin, abs=1e-4)


@pytest.mark.parametrize("objective", ["reg:squarederror", "multi:softprob"])
def test_a_leaf_is_an_integer_for_each_tree(objective: str) -> None:
    leaves = column(objective, "leaf")
    assert leaves.dtype.kind == "i"
    assert leaves.shape == (5, 9 if objective == "multi:softprob" else 3)
    assert (leaves == RAW[objective]["leaf"].reshape(5, -1)).all()


def test_several_targets_are_lists() -> None:
    values = np.array([[0.2, 0.7], [0.6, 0.1]], np.float32)
    plan = plan_outputs(("predicted_label", "probabilities"), "binary:logistic", 2)
    outputs = plan.answer({"value": values}).outputs
    assert outputs["predicted_label"].tolist() == [[0, 1], [1, 0]]
    assert outputs["probabilities"].shape == (2, 2, 2)
    regression = plan_outputs(("predicted_score",), "reg:squarederror", 2)
    assert regression.answer({"value": values}).outputs["predicted_score"].shape == (2, 2)


@pytest.mark.parametrize("objective", sorted(LABELS))
@pytest.mark.parametrize(
    "media_type", ["text/csv", "application/jsonlines", "application/x-npy", "application/x-recordio-protobuf"]
)
def test_everything_an_objective_has_can_be_written(objective: str, media_type: str) -> None:
    plan = plan_outputs(allowed_outputs(objective), objective, 3 if objective.startswith("multi:") else 1)
    assert encode(plan.answer(RAW[objective]), media_type)


def test_csv_quotes_lists_as_amazons_image_does() -> None:
    plan = plan_outputs(("predicted_label", "probabilities"), "binary:logistic", 1)
    predictions = plan.answer({"value": np.array([[0.75], [0.25]], np.float32)})
    assert encode(predictions, "text/csv") == b'1,"[0.25, 0.75]"\n0,"[0.75, 0.25]"'


def test_each_raw_prediction_is_asked_for_once() -> None:
    plan = plan_outputs(("leaf", "probability", "predicted_label", "leaf", "margin"), "binary:logistic", 1)
    assert plan == OutputPlan(
        ("leaf", "probability", "predicted_label", "margin"), "binary:logistic", 1, ("leaf", "value", "margin")
    )


@pytest.mark.parametrize(
    ("output", "objective"),
    [
        ("probability", "reg:squarederror"),
        ("predicted_score", "binary:logistic"),
        ("labels", "rank:ndcg"),
        ("shap", "x:y"),
    ],
)
def test_what_an_objective_does_not_have_is_refused_with_what_it_has(output: str, objective: str) -> None:
    with pytest.raises(OutputUnsupported) as refusal:
        plan_outputs(("score", output), objective, 1)
    assert f"output {output!r} does not exist for objective {objective}" in str(refusal.value)
    assert all(name in str(refusal.value) for name in allowed_outputs(objective))


def test_an_answer_too_large_to_hold_is_refused_before_it_is_computed() -> None:
    plan = plan_outputs(("interactions",), "multi:softprob", 3)
    per_row = 3 * 501 * 501
    plan.check_size(MAX_NUMBERS // per_row, 500)
    with pytest.raises(PayloadInvalid, match=f"send at most {MAX_NUMBERS // per_row} rows"):
        plan.check_size(MAX_NUMBERS // per_row + 1, 500)
    plan_outputs((), "reg:squarederror", 1).check_size(1_000_000, 10_000)


def test_names_are_read_as_from_amazons_variable() -> None:
    assert parse_outputs("predicted_label, Probability,,leaf ") == ("predicted_label", "probability", "leaf")
    assert parse_outputs("") == ()


def test_every_output_is_known_to_who_reads_settings() -> None:
    objectives = ("reg:squarederror", "binary:logistic", "multi:softprob", "multi:softmax", "binary:hinge", "rank:ndcg")
    assert {output for objective in objectives for output in allowed_outputs(objective)} == set(OUTPUTS)


@pytest.mark.parametrize(
    ("objective", "n_outputs", "values", "names", "labels"),
    [
        ("multi:softprob", 3, [[0.2, 0.5, 0.3], [0.6, 0.1, 0.3]], (10, 20, 35), [20, 10]),
        ("multi:softmax", 1, [[2.0], [0.0]], ("a", "b", "c"), ["c", "a"]),
        ("binary:logistic", 1, [[0.2], [0.6]], (False, True), [False, True]),
        ("binary:hinge", 1, [[0.0], [1.0]], (0.5, 1.5), [0.5, 1.5]),
    ],
)
def test_classes_go_by_the_names_their_wrapper_gave_them(
    objective: str, n_outputs: int, values: list[list[float]], names: tuple[Any, ...], labels: list[Any]
) -> None:
    plan = plan_outputs(("predicted_label", "labels"), objective, n_outputs, names)
    outputs = plan.answer({"value": np.array(values, np.float32)}).outputs
    assert outputs["predicted_label"].tolist() == labels
    assert [type(label) for label in outputs["predicted_label"].tolist()] == [type(label) for label in labels]
    assert outputs["labels"].tolist() == [list(names)] * 2 if n_outputs == len(names) else True


def test_names_of_one_model_are_not_those_of_another() -> None:
    for names in ((1, 2), (1.0, 2.0), (True, 2), ()):
        plan = plan_outputs(("predicted_label",), "binary:logistic", 1, names)
        assert plan.names == names
        assert list(map(type, plan.names)) == list(map(type, names))


def test_a_row_in_a_class_that_training_did_not_have_is_refused() -> None:
    plan = plan_outputs(("predicted_label",), "binary:logistic", 1, ("only",))
    assert plan.answer({"value": np.array([[0.1]])}).outputs["predicted_label"].tolist() == ["only"]
    with pytest.raises(PayloadInvalid, match="another class than 'only'"):
        plan.answer({"value": np.array([[0.9]])})
