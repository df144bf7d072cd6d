"""What is predicted: a plain score, SageMaker's selectable outputs, and what XGBoost can tell beyond them.

    output             from          what
    score              value         what Booster.predict gives; the answer when nothing is asked for
    predicted_label    value         classification: the class, an integer, or what an XGBClassifier calls it
    labels             value         classification: all classes
    probability        value         of class 1, or of the winning class
    probabilities      value         of every class
    raw_score          value         AWS's word for the number behind the label, be it a probability
    raw_scores         value         the same for every class
    predicted_score    value         not classification: the score
    margin             margin        the sum of the leaves, before the objective's transformation
    contribs           contribs      SHAP values, one per feature and the bias last; per class when there are classes
    approx_contribs    approx_...    the same by Saabas' method, much faster
    interactions       interactions  SHAP interaction values, a matrix over features and bias
    leaf               leaf          the leaf each tree ends in

Rule: an output an objective does not have is refused. AWS's image answers NaN and logs a warning nobody reads.
source   aws/sagemaker-xgboost-container, algorithm_mode/serve_utils.py (SAGEMAKER_INFERENCE_OUTPUT); XGBoost guide,
         "Prediction"
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handler.errors import OutputUnsupported, PayloadInvalid
from handler.payload import Predictions

Array = NDArray[Any]

SCORE = "score"

# Interactions are a matrix per row: 1,000 rows of 500 features would be a gigabyte. This is 64 MB of float32.
MAX_NUMBERS = 16_000_000

_LABELLED = ("predicted_label", "labels", "raw_score", "raw_scores")
_PROBABLE = ("predicted_label", "labels", "probability", "probabilities", "raw_score", "raw_scores")

_CLASSIFICATION = {
    "binary:logistic": _PROBABLE,
    "binary:logitraw": _LABELLED,
    "binary:hinge": _LABELLED,
    "multi:softmax": _LABELLED,
    "multi:softprob": _PROBABLE,
}

# Beside the plain value, each of these is a prediction of XGBoost's own and exists for every objective.
_OWN_KIND = ("margin", "contribs", "approx_contribs", "interactions", "leaf")


@dataclass(frozen=True, slots=True)
class OutputPlan:
    """What to ask of XGBoost, and how to make the answer of it.

    outputs     asked for, in order; empty for the plain score
    kinds       raw predictions needed, of: value, margin, contribs, approx_contribs, interactions, leaf
    names       what the classes are called, in their order; empty where they are 0, 1, 2, ...
    """

    outputs: tuple[str, ...]
    objective: str
    n_outputs: int
    kinds: tuple[str, ...]
    names: tuple[str | int | float | bool, ...] = ()

    def answer(self, raw: Mapping[str, Array]) -> Predictions:
        """The predictions to encode.

        raw      for each of `kinds` XGBoost's array in its "strict_shape": value and margin (n_rows, n_outputs),
                 contribs (n_rows, n_outputs, n_features + 1), interactions with another such axis,
                 leaf (n_rows, n_rounds, n_outputs, n_parallel_trees)
        """
        if not self.outputs:
            return Predictions(raw["value"])
        return Predictions({output: self._column(output, raw) for output in self.outputs})

    def numbers_per_row(self, n_features: int, n_trees: int) -> int:
        """Of an answer, at most."""
        own = {
            "margin": self.n_outputs,
            "contribs": self.n_outputs * (n_features + 1),
            "approx_contribs": self.n_outputs * (n_features + 1),
            "interactions": self.n_outputs * (n_features + 1) ** 2,
            "leaf": max(1, n_trees),
        }
        # Of two classes, both are told where all are asked for.
        return sum(own.get(output, max(2, self.n_outputs)) for output in self.outputs)

    def check_size(self, n_rows: int, n_features: int) -> None:
        """Refuse an answer too large to hold, before it is computed.

        raises   PayloadInvalid beyond MAX_NUMBERS; only contributions and interactions of many rows get there
        """
        numbers = {"contribs": n_features + 1, "approx_contribs": n_features + 1, "interactions": (n_features + 1) ** 2}
        per_row = self.n_outputs * sum(numbers.get(kind, 1) for kind in self.kinds)
        if n_rows * per_row > MAX_NUMBERS:
            what = ", ".join(self.outputs) or SCORE
            raise PayloadInvalid(
                "",
                f"{n_rows} rows of {what} are {n_rows * per_row} numbers; send at most {MAX_NUMBERS // per_row} rows",
            )

    def _column(self, output: str, raw: Mapping[str, Array]) -> Array:
        array = raw[_kind(output)]
        if output == "leaf":
            return array.reshape(len(array), -1).astype(np.int64)
        if output in _OWN_KIND or output in {SCORE, "predicted_score"}:
            return _one_or_all(array)
        if output == "labels":
            n_classes = self.n_outputs if self.objective.startswith("multi:") else 2
            return np.tile(np.array(self.names) if self.names else np.arange(n_classes), (len(array), 1))
        column = _READ[output](self.objective, array)
        return self._named(column) if self.names and output == "predicted_label" else column

    def _named(self, classes: Array) -> Array:
        """Raises PayloadInvalid where a row falls into a class that training did not have."""
        if classes.max(initial=0) >= len(self.names):
            raise PayloadInvalid(
                "", f"a row is put into another class than {self.names[0]!r}, the only one with a label"
            )
        return np.array(self.names)[classes]


def plan_outputs(
    wanted: tuple[str, ...], objective: str, n_outputs: int, names: tuple[str | int | float | bool, ...] = ()
) -> OutputPlan:
    """How to answer a request for some outputs.

    wanted      names from the table above, in the order of the answer; empty for the plain score
    objective   XGBoost's name for it
    n_outputs   classes of a multi:* model, targets of any other; 1 mostly
    names       of its classes, where its scikit-learn wrapper gave them some
    raises      OutputUnsupported, naming what this objective has
    """
    plan = _plan(wanted, objective, n_outputs)
    return replace(plan, names=names) if names else plan


# Without names: 1, 1.0 and True are one key to a cache and three names to a caller.
@lru_cache(maxsize=256)
def _plan(wanted: tuple[str, ...], objective: str, n_outputs: int) -> OutputPlan:
    outputs = tuple(dict.fromkeys(wanted))
    allowed = allowed_outputs(objective)
    for output in outputs:
        if output not in allowed:
            raise OutputUnsupported(output, objective, allowed)
    kinds = tuple(dict.fromkeys(_kind(output) for output in outputs or (SCORE,)))
    return OutputPlan(outputs, objective, n_outputs, kinds)


def allowed_outputs(objective: str) -> tuple[str, ...]:
    """The outputs a model of this objective has."""
    return (SCORE, *_CLASSIFICATION.get(objective, ("predicted_score",)), *_OWN_KIND)


def parse_outputs(text: str) -> tuple[str, ...]:
    """The names in a comma list; case and spaces do not matter, as in SAGEMAKER_INFERENCE_OUTPUT."""
    return tuple(name for name in text.replace(" ", "").lower().split(",") if name)


def _kind(output: str) -> str:
    return output if output in _OWN_KIND else "value"


def _one_or_all(array: Array) -> Array:
    """Without the axis of outputs when there is but one, so that the answer holds a number and no list of one."""
    return array[:, 0] if array.shape[1] == 1 else array


def _predicted_label(objective: str, values: Array) -> Array:
    """AWS writes 1.0 for hinge and softmax and 1 for the others; a label is an integer, so 1 for all."""
    if objective == "multi:softprob":
        return np.asarray(values.argmax(axis=1))
    if objective in {"binary:logistic", "binary:logitraw"}:
        values = values > (0.5 if objective == "binary:logistic" else 0.0)
    return _one_or_all(values).astype(np.int64)


def _of_winner(objective: str, values: Array) -> Array:
    return values.max(axis=1) if objective == "multi:softprob" else _one_or_all(values)


def _of_every_class(objective: str, values: Array) -> Array:
    """AWS answers [1 - x, x] for everything but softprob, also where x is a margin or, in softmax, a class.

    Kept, so that answers do not change when an endpoint moves here; `margin` has the number for each class.
    """
    if objective == "multi:softprob":
        return values
    return _one_or_all(np.stack([1 - values, values], axis=-1))


_READ: dict[str, Callable[[str, Array], Array]] = {
    "predicted_label": _predicted_label,
    "probability": _of_winner,
    "probabilities": _of_every_class,
    "raw_score": _of_winner,
    "raw_scores": _of_every_class,
}
