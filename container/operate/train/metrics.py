"""How good answers are: XGBoost's own evaluation metrics, of any model's answers, whoever made them.

Rule: the numbers are XGBoost's to six digits (its guide, "Learning Task Parameters"; tests hold each against `Booster.eval`).
Candidate, live model and floor go through the same function, so that what differs is the model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from container.operate.troubles import Misused

Doubles = NDArray[np.float64]
# As XGBoost clips probabilities before it takes their logarithm.
_EPSILON = 1e-16

# What an objective is judged by when nobody says, and what its answers are. Objectives that are not here cannot be judged.
VALUES, CHANCES, MARGINS, CLASSES, CHANCES_EACH, ORDER = (
    "values",
    "chances",
    "margins",
    "classes",
    "chances each",
    "order",
)
OBJECTIVES: dict[str, tuple[str, str]] = {
    "reg:squarederror": (VALUES, "rmse"),
    "reg:linear": (VALUES, "rmse"),
    "reg:squaredlogerror": (VALUES, "rmsle"),
    "reg:pseudohubererror": (VALUES, "mae"),
    "reg:absoluteerror": (VALUES, "mae"),
    "count:poisson": (VALUES, "poisson-nloglik"),
    "reg:gamma": (VALUES, "gamma-nloglik"),
    "reg:tweedie": (VALUES, "tweedie-nloglik@1.5"),
    "reg:logistic": (CHANCES, "rmse"),
    "binary:logistic": (CHANCES, "logloss"),
    "binary:logitraw": (MARGINS, "logloss"),
    "binary:hinge": (CHANCES, "error"),
    "multi:softprob": (CHANCES_EACH, "mlogloss"),
    "multi:softmax": (CLASSES, "merror"),
    "rank:ndcg": (ORDER, "ndcg"),
    "rank:pairwise": (ORDER, "ndcg"),
    "rank:map": (ORDER, "map"),
}


@dataclass(frozen=True, slots=True, eq=False)
class Truth:
    """What answers are held against. groups: where each query of a ranking begins, and the end; None for no ranking."""

    labels: Doubles
    weights: Doubles | None = None
    groups: NDArray[np.int64] | None = None


def answers_of(objective: str, scores: NDArray[Any]) -> Doubles:
    """A model's scores, (n_rows, n_outputs), as metrics take them: chances where a class is asked for."""
    answers = scores.astype(np.float64)
    if answers.shape[1] == 1:
        answers = answers[:, 0]
    if OBJECTIVES.get(objective, ("",))[0] == MARGINS:
        return 1 / (1 + np.exp(-answers))
    return answers


def metric(name: str) -> Callable[[Truth, Doubles], float]:
    """A metric by XGBoost's name. Raises Misused for one that we do not have."""
    word, _, after = name.partition("@")
    made = _PLAIN.get(word)
    try:
        if made is not None and not after:
            return made
        if word == "error":
            return partial(_error, threshold=float(after or 0.5))
        if word == "tweedie-nloglik" and after and 1 < float(after) < 2:
            return partial(_tweedie, power=float(after))
        if word in _RANKED:
            is_zero = after.endswith("-")
            top = int(after.rstrip("-")) if after.rstrip("-") else None
            if top is None or top > 0:
                return partial(_ranked, each=_RANKED[word], top=top, without_any=0.0 if is_zero else 1.0)
    except ValueError:
        pass
    known = ", ".join(sorted([*_PLAIN, *_RANKED, "error@T", "tweedie-nloglik@P"]))
    raise Misused(f"no metric {name!r}; there are {known}, and those of rankings with @N")


def check(names: Sequence[str], objective: str) -> None:
    """Raises Misused for metrics that say nothing of such answers."""
    kind = OBJECTIVES[objective][0]
    for name in names:
        metric(name)
        word = name.partition("@")[0]
        fits = {
            ORDER: word in _RANKED,
            CHANCES_EACH: word in ("mlogloss", "merror"),
            CLASSES: word == "merror",
            CHANCES: word not in (*_RANKED, "mlogloss", "merror"),
            MARGINS: word not in (*_RANKED, "mlogloss", "merror"),
            VALUES: word not in (*_RANKED, "mlogloss", "merror", "logloss", "error", "auc", "aucpr"),
        }[kind]
        if not fits:
            raise Misused(f"metric {name!r} says nothing of {objective}")


def floor_of(objective: str, labels: Doubles, weights: Doubles | None, n_rows: int, n_classes: int) -> Doubles | None:
    """What somebody who knows no feature would answer: the mean of the labels trained on, or how often each class is. None
    for a ranking, where there is no such answer."""
    kind = OBJECTIVES[objective][0]
    if kind == ORDER:
        return None
    if kind in (CHANCES_EACH, CLASSES):
        shares = np.bincount(labels.astype(np.int64), weights, n_classes).astype(np.float64)
        shares /= shares.sum()
        return np.full(n_rows, float(shares.argmax())) if kind == CLASSES else np.tile(shares, (n_rows, 1))
    mean = float(np.average(labels, weights=weights))
    if objective == "binary:hinge":
        mean = float(mean > 0.5)
    return np.full(n_rows, mean)


def _mean(losses: Doubles, truth: Truth) -> float:
    return float(np.average(losses, weights=truth.weights))


def _rmse(truth: Truth, answers: Doubles) -> float:
    return float(np.sqrt(_mean((answers - truth.labels) ** 2, truth)))


def _rmsle(truth: Truth, answers: Doubles) -> float:
    return float(np.sqrt(_mean((np.log1p(answers) - np.log1p(truth.labels)) ** 2, truth)))


def _mae(truth: Truth, answers: Doubles) -> float:
    return _mean(np.abs(answers - truth.labels), truth)


def _mape(truth: Truth, answers: Doubles) -> float:
    return _mean(np.abs((truth.labels - answers) / truth.labels), truth)


def _logloss(truth: Truth, answers: Doubles) -> float:
    # XGBoost's own arithmetic is float32, where 1 - 1e-16 is 1.
    yes = np.log(np.clip(answers, _EPSILON, None))
    no = np.log(np.clip(1 - answers, _EPSILON, None))
    return _mean(-truth.labels * yes - (1 - truth.labels) * no, truth)


def _error(truth: Truth, answers: Doubles, threshold: float = 0.5) -> float:
    return _mean(np.where(answers > threshold, 1 - truth.labels, truth.labels), truth)


def _mlogloss(truth: Truth, answers: Doubles) -> float:
    own = answers[np.arange(len(answers)), truth.labels.astype(np.int64)]
    return _mean(-np.log(np.clip(own, _EPSILON, None)), truth)


def _merror(truth: Truth, answers: Doubles) -> float:
    said = answers.argmax(axis=1) if answers.ndim == 2 else answers
    return _mean((said != truth.labels).astype(np.float64), truth)


def _poisson(truth: Truth, answers: Doubles) -> float:
    rate = np.clip(answers, _EPSILON, None)
    return _mean(_log_gamma(truth.labels + 1) + rate - np.log(rate) * truth.labels, truth)


def _gamma(truth: Truth, answers: Doubles) -> float:
    rate = np.clip(answers, 1e-6, None)
    return _mean(truth.labels / rate + np.log(rate), truth)


def _gamma_deviance(truth: Truth, answers: Doubles) -> float:
    rate, label = answers + 1e-6, truth.labels + 1e-6
    losses = np.log(rate / label) + label / rate - 1
    return (
        2
        * float(np.sum(losses if truth.weights is None else losses * truth.weights))
        / (len(losses) if truth.weights is None else float(truth.weights.sum()))
    )


def _tweedie(truth: Truth, answers: Doubles, power: float = 1.5) -> float:
    log = np.log(answers)
    return _mean(
        -truth.labels * np.exp((1 - power) * log) / (1 - power) + np.exp((2 - power) * log) / (2 - power), truth
    )


def _log_gamma(values: Doubles) -> Doubles:
    from math import lgamma

    unique, at = np.unique(values, return_inverse=True)
    return np.array([lgamma(value) for value in unique])[at]


def _auc(truth: Truth, answers: Doubles) -> float:
    """Area under the curve of true over false positives; half a point where answers are the same. 0.5 for one class."""
    weights = np.ones(len(answers)) if truth.weights is None else truth.weights
    order = np.argsort(-answers, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(answers[order]) != 0, True))
    positive = np.concatenate(([0.0], np.cumsum((truth.labels * weights)[order])[ends]))
    negative = np.concatenate(([0.0], np.cumsum(((1 - truth.labels) * weights)[order])[ends]))
    if not positive[-1] or not negative[-1]:
        return 0.5
    area = np.sum(np.diff(negative) * (positive[1:] + positive[:-1]) / 2)
    return float(area / (positive[-1] * negative[-1]))


def _aucpr(truth: Truth, answers: Doubles) -> float:
    """Area under precision over recall, between two points by Davis and Goadrich, as XGBoost does."""
    weights = np.ones(len(answers)) if truth.weights is None else truth.weights
    order = np.argsort(-answers, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(answers[order]) != 0, True))
    tp = np.cumsum((truth.labels * weights)[order])[ends]
    fp = np.cumsum(((1 - truth.labels) * weights)[order])[ends]
    total = tp[-1]
    if not total or not fp[-1]:
        return 0.0
    area, tp_before, fp_before = 0.0, 0.0, 0.0
    for true, false in zip(tp.tolist(), fp.tolist(), strict=True):
        if true != tp_before:
            slope = (false - fp_before) / (true - tp_before)
            begin = fp_before - slope * tp_before
            low, high = tp_before / total, true / total
            if begin:
                rate = begin / total
                area += (
                    (high - low)
                    - rate / (slope + 1) * (np.log((slope + 1) * high + rate) - np.log((slope + 1) * low + rate))
                ) / (slope + 1)
            else:
                area += (high - low) / (slope + 1)
        tp_before, fp_before = true, false
    return float(area)


def _ranked(
    truth: Truth, answers: Doubles, each: Callable[..., float | None], top: int | None, without_any: float
) -> float:
    """The mean over queries; `without_any` for one in which nothing is relevant."""
    assert truth.groups is not None
    found = [
        each(truth.labels[start:end], answers[start:end], top)
        for start, end in zip(truth.groups[:-1], truth.groups[1:], strict=True)
    ]
    return float(np.mean([without_any if one is None else one for one in found]))


def _ndcg(labels: Doubles, answers: Doubles, top: int | None) -> float | None:
    gains = np.exp2(labels) - 1
    discounts = 1 / np.log2(np.arange(len(labels)) + 2)
    discounts[len(labels) if top is None else top :] = 0
    ideal = float(np.sum(np.sort(gains)[::-1] * discounts))
    return float(np.sum(gains[np.argsort(-answers, kind="stable")] * discounts)) / ideal if ideal else None


def _map(labels: Doubles, answers: Doubles, top: int | None) -> float | None:
    is_hit = labels[np.argsort(-answers, kind="stable")] > 0
    n_hits = np.cumsum(is_hit)
    within = slice(None, top)
    if not n_hits[-1]:
        return None
    precision = (n_hits / np.arange(1, len(labels) + 1))[within][is_hit[within]]
    return float(precision.sum() / min(int(n_hits[-1]), len(labels) if top is None else top))


_PLAIN: dict[str, Callable[[Truth, Doubles], float]] = {
    "rmse": _rmse,
    "rmsle": _rmsle,
    "mae": _mae,
    "mape": _mape,
    "logloss": _logloss,
    "error": _error,
    "auc": _auc,
    "aucpr": _aucpr,
    "mlogloss": _mlogloss,
    "merror": _merror,
    "poisson-nloglik": _poisson,
    "gamma-nloglik": _gamma,
    "gamma-deviance": _gamma_deviance,
}
_RANKED = {"ndcg": _ndcg, "map": _map}
