"""Golden rows: a few rows for each model that reach different leaves, and what libxgboost says of them.

Rule: the scores are those of the document that is published, asked of libxgboost itself, for rows as our own reader reads
them: what an endpoint answers must be the same, bit for bit.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from container.operate.release.manifest import Golden

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from container.examine.quarantine import Examined
    from handler.importer.learner import Learner
    from handler.payload.rows import Floats
    from handler.predictor import Facts

N_ROWS = 3
PLAIN = [-1.0, 0.5, 2.0]  # values for a model without thresholds: a linear one, or one leaf
MAX_FILLED = 32  # features of a row that have a value; of the others it is missing


def golden_of(examined: Examined, seed: str) -> Golden | None:
    """examined: with its origins, so that its documents are XGBoost's. None for a model whose scores are no numbers."""
    import numpy as np

    from handler.importer.booster import import_booster
    from handler.predictor import Ensemble, HandlePool, Model, Scorer, facts_of_ensemble
    from handler.scoring import predict

    facts = facts_of_ensemble(examined.facts)
    learners = [import_booster(document, "what libxgboost wrote").learner for document in examined.documents]
    pool = HandlePool()
    models: list[Scorer] = [
        Model(pool.load(document), one, pool.rest)
        for document, one in zip(examined.documents, examined.facts, strict=True)
    ]
    model = models[0] if len(models) == 1 else Ensemble(models, facts)
    try:
        return golden_rows(learners, facts, seed, lambda rows: np.asarray(predict(model, rows).outputs))
    finally:
        model.close()


def golden_rows(
    learners: Sequence[Learner], facts: Facts, seed: str, ask: Callable[[Floats], NDArray[Any]]
) -> Golden | None:
    """ask: libxgboost's scores, (n_rows, n_outputs)."""
    from handler.errors import RequestError
    from handler.scoring import read_rows

    lines = _lines(learners, facts, random.Random(seed))  # noqa: S311  the same for the same model
    try:
        scores = ask(read_rows("\n".join(lines).encode(), "text/csv", facts))
    except RequestError:  # it does not say by itself which rounds answer, or takes no such rows
        return None
    if scores.dtype.kind not in "fiu":  # labels that are texts
        return None
    answers = tuple(tuple(map(float, row)) for row in scores.reshape(len(lines), -1).tolist())
    if not all(math.isfinite(score) for row in answers for score in row):
        return None
    return Golden(tuple(lines), answers)


def _lines(learners: Sequence[Learner], facts: Facts, choice: random.Random) -> list[str]:
    """CSV lines of values on both sides of the model's own thresholds, with something missing where there is room."""
    thresholds = {feature: sorted(values) for feature, values in _thresholds(learners).items()}
    types, n_features = facts.feature_types, facts.n_features
    filled = sorted(thresholds, key=lambda feature: (-len(thresholds[feature]), feature))[:MAX_FILLED]
    filled = filled or list(range(min(n_features, MAX_FILLED)))
    lines = []
    for number in range(N_ROWS):
        cells = [""] * n_features
        for feature in filled:
            if types and types[feature] == "c":
                cells[feature] = "0"  # the first category; there need not be another
            else:
                cells[feature] = repr(_value(thresholds.get(feature, PLAIN), number, choice))
        if number == N_ROWS - 1 and len(filled) > 1:
            cells[choice.choice(filled)] = ""
        lines.append(",".join(cells))
    return lines


def _value(thresholds: list[float], number: int, choice: random.Random) -> float:
    """Of the first row below all thresholds, of the second on the greatest, of the others right beside one of them."""
    import numpy as np

    if number == 1:
        return thresholds[-1]
    at = thresholds[0] if number == 0 else choice.choice(thresholds)
    return float(np.nextafter(np.float32(at), np.float32(choice.choice((-np.inf, np.inf)) if number else -np.inf)))


def _thresholds(learners: Sequence[Learner]) -> dict[int, list[float]]:
    """Where the model's trees split, by feature. Of categories and of linear models none."""
    import numpy as np

    found: dict[int, list[float]] = {}
    for learner in learners:
        trees = learner.trees
        if trees is None:
            continue
        is_split = (trees.left >= 0) & (trees.split_type == 0) & np.isfinite(trees.split_condition)
        features, values = trees.split_index[is_split], trees.split_condition[is_split]
        order = np.argsort(features, kind="stable")
        starts = np.flatnonzero(np.diff(features[order], prepend=-1))
        for feature, own in zip(features[order][starts].tolist(), np.split(values[order], starts[1:]), strict=False):
            found.setdefault(feature, []).extend(own.tolist())
    return found
