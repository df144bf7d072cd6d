"""One segment: its rows held apart, a model fitted, tried as an endpoint would answer with it, judged, packed.

    rows -> fit.py -> document -> importer, walker: the endpoint's own answers, equal to XGBoost's in every bit
                               -> judged beside the live model and a constant
                               -> archive, golden rows, facts

Rule: `train_segment` is the whole of the work and the same wherever it runs. What it says is a function of the rows, the
live model and what was asked.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import xgboost

from container.examine.examiner import facts_of
from container.examine.quarantine import Examined
from container.operate.artifacts.archive import MEMBER, pack
from container.operate.release.golden import golden_rows
from container.operate.release.manifest import DEFAULT_KEY, Features, Judged, Measured, Segment, Trained
from container.operate.release.shelf import digest_of
from container.operate.train.asked import Asked
from container.operate.train.fit import Examples, Fitted, apart, fit, matrix_of
from container.operate.train.live import LiveModel
from container.operate.train.metrics import CHANCES_EACH, CLASSES, OBJECTIVES, answers_of, floor_of, metric
from container.operate.train.parameters import Chosen, why
from container.operate.train.profiles import Drift, Profile
from container.operate.train.rows import Columns, SegmentRows, Span
from handler.errors import ArtifactBroken, ArtifactRefused
from handler.forest.booster_pool import BoosterPool
from handler.forest.packed import document_of
from handler.forest.packed import pack as pack_forest
from handler.importer import Imported, import_booster
from handler.libxgboost import Booster, Kind
from handler.loading.loader import model_of
from handler.payload.rows import Floats
from handler.predictor import HandlePool
from handler.scoring import predict

# zlib's. The sixth takes three times as long and makes them an eighth smaller; a tenth of all work.
PACK_LEVEL = 1
# Rows on which the endpoint's answers are held against XGBoost's.
N_TRIED = 500


class Failed(Exception):
    """A segment gets no model, and why. is_covered: the model over all segments stands in for it."""

    def __init__(self, why: str, *, is_covered: bool = False) -> None:
        super().__init__(why)
        self.is_covered = is_covered


@dataclass(frozen=True, slots=True)
class Came:
    """What came of a segment: a model, packed, and what the release says of it; or why there is none."""

    key: str
    segment: Segment | None
    failed: str = ""
    is_covered: bool = False
    profile: Profile | None = field(default=None, compare=False, repr=False)
    packed: bytes = field(default=b"", compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a segment besides its rows."""

    span: Span
    profile: Profile
    drift: Drift | None


def train_segment(
    rows: SegmentRows,
    asked: Asked,
    columns: Columns,
    live: LiveModel | None,
    known: Known,
    check: Callable[[], None] = lambda: None,
) -> Came:
    """check: called now and then; what it raises ends the work."""
    if not len(rows.labels):  # it gets no profile either, which the next release's drift would be held against
        is_covered = asked.fallback_below is not None and rows.key != DEFAULT_KEY
        return Came(rows.key, None, "none of its rows can be used", is_covered)
    try:
        trials = asked.parameters.of(rows.key)
        seed = trials[0].seed
        learned, judging = _apart(rows, asked, seed)
        _look_at(rows.key, learned, judging, trials[0], asked)
        compared_by = asked.metrics[0] if asked.metrics else trials[0].metric
        fitted = fit(learned, trials, columns, compared_by, seed, check)
        return _made(rows.key, fitted, learned, judging, asked, columns, live, known, compared_by)
    except Failed as error:
        return Came(rows.key, None, str(error), error.is_covered, known.profile)
    except xgboost.core.XGBoostError as error:
        return Came(rows.key, None, f"XGBoost does not train on it: {why(error)}", False, known.profile)


def _apart(rows: SegmentRows, asked: Asked, seed: int) -> tuple[Examples, Examples]:
    """To learn from, and to be judged on."""
    every = Examples(rows.features, rows.labels, rows.weights, rows.groups)
    if every.groups is not None:  # as XGBoost wants them: the rows of a query together
        order = np.argsort(every.groups, kind="stable")
        every = every.take(order)
        is_held = None if rows.is_held is None else rows.is_held[order]
    else:
        is_held = rows.is_held
    if is_held is None:
        is_held = apart(every.groups, len(every), asked.holdout, seed)
    return every.take(~is_held), every.take(is_held)


def _look_at(key: str, learned: Examples, judging: Examples, chosen: Chosen, asked: Asked) -> None:
    """Raises Failed for what nothing can be learned from, or judged on."""
    n_rows = len(learned) + len(judging)
    if key != DEFAULT_KEY and asked.fallback_below is not None and n_rows < asked.fallback_below:
        raise Failed(f"{n_rows} rows, fewer than {asked.fallback_below}", is_covered=True)
    for examples in (learned, judging):
        n_missing = int(np.count_nonzero(~np.isfinite(examples.labels)))
        if n_missing:
            raise Failed(f"{n_missing} of {len(examples)} labels are missing or no numbers")
        if examples.weights is not None and not bool((examples.weights >= 0).all()):
            raise Failed("weights are missing or below 0")
    if len(learned) < asked.min_rows:
        raise Failed(f"{len(learned)} rows to train on, fewer than {asked.min_rows}")
    if not len(judging):
        raise Failed("no rows are kept from training, so its model cannot be judged")
    if learned.weights is not None and not (learned.weights.sum() and judging.weights.sum()):  # type: ignore[union-attr]
        raise Failed("all weights are 0")
    kind = OBJECTIVES[chosen.objective][0]
    labels = np.unique(learned.labels)
    if kind in (CHANCES_EACH, CLASSES) or chosen.objective.startswith("binary:"):
        classes = np.unique(np.concatenate([labels, np.unique(judging.labels)]))
        n_classes = chosen.n_classes or 2
        if not bool(((classes == np.floor(classes)) & (classes >= 0) & (classes < n_classes)).all()):
            raise Failed(f"its labels are not 0 to {n_classes - 1}")
        if len(labels) < 2:
            raise Failed(f"all its labels are of one class, {labels[0]:g}")
    elif len(labels) < 2:
        raise Failed(f"its label is the same in all rows, {labels[0]:g}")


def _made(
    key: str,
    fitted: Fitted,
    learned: Examples,
    judging: Examples,
    asked: Asked,
    columns: Columns,
    live: LiveModel | None,
    known: Known,
    compared_by: str,
) -> Came:
    objective = fitted.chosen.objective
    examined, imported = _examined(key, fitted.document)
    answers = _tried(examined, imported, fitted, judging, columns)
    measured = _measured(answers, objective, fitted.chosen, learned, judging, columns, live, compared_by, asked)
    for one in measured:
        if not math.isfinite(one.candidate):
            raise Failed(f"its {one.metric} on rows held out is no number")
    trained = Trained(
        known.span.n_rows,
        len(judging),
        fitted.n_rounds,
        fitted.chosen.booster,
        measured,
        known.span.dropped,
        known.span.first,
        known.span.last,
        known.drift.feature if known.drift else "",
        known.drift.index if known.drift else None,
    )
    if asked.fallback_below is not None and trained.is_above_floor is False and key != DEFAULT_KEY:
        raise Failed(
            f"its {compared_by} {measured[0].candidate:.6g} is no better than a constant's {measured[0].floor:.6g}",
            is_covered=True,
        )
    packed = pack({MEMBER: fitted.document}, PACK_LEVEL)
    digest = digest_of(packed)
    facts = examined.facts[0]
    judged = Judged(
        measured[0].metric,
        len(judging),
        measured[0].candidate,
        measured[0].live,
        live.digest if live is not None and measured[0].live is not None else None,
    )
    segment = Segment(
        digest,
        len(packed),
        objective,
        Features(facts.n_features, facts.feature_names, facts.feature_types),
        golden=golden_rows([imported.learner], facts, digest, lambda rows: _asked(fitted, rows, columns)),
        judged=judged,
        trained=trained,
    )
    return Came(key, segment, profile=known.profile, packed=packed)


def _examined(key: str, document: bytes) -> tuple[Examined, Imported]:
    """As quarantine would say it; these bytes are XGBoost's own, of a moment ago."""
    try:
        imported = import_booster(document, key)
    except (ArtifactBroken, ArtifactRefused) as error:
        raise Failed(f"an endpoint would not take its model: {error.why}") from error
    return Examined((document,), (facts_of(imported),)), imported


def _tried(examined: Examined, imported: Imported, fitted: Fitted, judging: Examples, columns: Columns) -> Any:
    """The endpoint's own answers to the rows held out. Raises Failed where one bit of them is not XGBoost's."""
    forest = pack_forest(imported.learner)
    facts = examined.facts[0]
    pool = BoosterPool(HandlePool(), document_of)
    if forest is not None:
        scorer = model_of(forest, replace(facts, is_forest=True, resident_bytes=len(forest)), pool)
    else:
        scorer = model_of(examined.documents[0], facts, pool)
    try:
        rows = np.ascontiguousarray(judging.features)
        ours = np.asarray(predict(scorer, rows).outputs)
    finally:
        scorer.close()
    if ours[:N_TRIED].astype(np.float32).tobytes() != _asked(fitted, rows[:N_TRIED], columns).tobytes():
        raise Failed("an endpoint would answer otherwise than XGBoost; please report it")
    return ours


def _asked(fitted: Fitted, rows: Floats, columns: Columns) -> Floats:
    """XGBoost's own answers, of the booster that was trained: to words as it was told them, to numbers by its library."""
    if not columns.categories:
        return Booster.borrowed(fitted.booster.handle).predict_matrix(np.ascontiguousarray(rows), Kind.VALUE)
    matrix = matrix_of(Examples(rows, np.zeros(len(rows), np.float32)), columns)
    return np.asarray(fitted.booster.predict(matrix, strict_shape=True), np.float32)


def _measured(
    answers: Any,
    objective: str,
    chosen: Chosen,
    learned: Examples,
    judging: Examples,
    columns: Columns,
    live: LiveModel | None,
    compared_by: str,
    asked: Asked,
) -> tuple[Measured, ...]:
    truth = judging.truth
    candidate = answers_of(objective, answers)
    before = None if live is None else live.answers(np.ascontiguousarray(judging.features), columns, objective)
    if before is not None and before.shape != candidate.shape:
        before = None
    floor = floor_of(
        objective,
        learned.labels.astype(np.float64),
        None if learned.weights is None else learned.weights.astype(np.float64),
        len(judging),
        chosen.n_classes,
    )
    names = dict.fromkeys([compared_by, chosen.metric, *asked.metrics])
    with np.errstate(divide="ignore", invalid="ignore"):
        return tuple(
            Measured(
                name,
                metric(name)(truth, candidate),
                *(None if one is None else _finite(metric(name)(truth, one)) for one in (before, floor)),
            )
            for name in names
        )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
