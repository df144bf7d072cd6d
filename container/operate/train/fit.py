"""One segment's booster out of its rows.

Rule: its bytes are a function of rows, parameters and XGBoost's release: one thread, or for a large segment as many as its
size says, whatever machine it is trained on.

Rounds and parameters are chosen on rows taken from the training rows, never on those that judge the model: chosen there, it
would look better than it is beside the live one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xgboost
from numpy.typing import NDArray

from container.operate.release.manifest import MORE_IS_BETTER
from container.operate.train.metrics import Truth, answers_of, metric
from container.operate.train.parameters import Chosen
from container.operate.train.rows import Columns
from handler.libxgboost import XGBoostError, boost_once
from handler.payload.rows import Floats

INNER_SHARE = 0.2
# Features times rows. Chosen, not measured: at 12,000 a second thread gains nothing even on an idle core.
LARGE_CELLS = 2_000_000
LARGE_THREADS = 4
# Rounds between two looks at whether the run is to end.
LOOK_EVERY = 10


@dataclass(frozen=True, slots=True, eq=False)
class Examples:
    """Rows to learn from or to be judged on. groups: of a ranking, codes of queries, in runs."""

    features: Floats
    labels: Floats
    weights: Floats | None = None
    groups: NDArray[np.int32] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: NDArray[Any]) -> Examples:
        """Some of them, in this order, as blocks of their own."""
        return Examples(
            np.ascontiguousarray(self.features[rows]),
            self.labels[rows],
            None if self.weights is None else self.weights[rows],
            None if self.groups is None else self.groups[rows],
        )

    @property
    def truth(self) -> Truth:
        return Truth(
            self.labels.astype(np.float64),
            None if self.weights is None else self.weights.astype(np.float64),
            None if self.groups is None else starts_of(self.groups),
        )


@dataclass(frozen=True, slots=True)
class Fitted:
    """document: UBJSON, as XGBoost writes it. n_rounds: it has."""

    document: bytes
    booster: xgboost.Booster
    chosen: Chosen
    n_rounds: int


def starts_of(groups: NDArray[np.int32]) -> NDArray[np.int64]:
    """Where each run of the same code begins, and the end."""
    return np.append(np.flatnonzero(np.diff(groups, prepend=groups[0] - 1)), len(groups))


def apart(examples_groups: NDArray[np.int32] | None, n_rows: int, share: float, seed: int) -> NDArray[np.bool_]:
    """Which of so many rows are kept apart: a share of them, drawn by the seed; whole queries of a ranking."""
    is_apart = np.zeros(n_rows, np.bool_)
    if examples_groups is None:
        order = np.random.Generator(np.random.PCG64(seed)).permutation(n_rows)
        is_apart[order[: round(share * n_rows)]] = True
        return is_apart
    codes = np.unique(examples_groups)
    order = np.random.Generator(np.random.PCG64(seed)).permutation(len(codes))
    return np.isin(examples_groups, codes[order[: round(share * len(codes))]])


def fit(
    examples: Examples,
    trials: Sequence[Chosen],
    columns: Columns,
    compared_by: str,
    seed: int,
    check: Callable[[], None] = lambda: None,
) -> Fitted:
    """check: called now and then; what it raises ends the work. Raises xgboost.core.XGBoostError."""
    chosen = trials[0]
    inner: tuple[Examples, Examples] | None = None
    if len(trials) > 1 or chosen.stops_after is not None:
        is_apart = apart(examples.groups, len(examples), INNER_SHARE, seed + 1)
        inner = examples.take(~is_apart), examples.take(is_apart)
    if len(trials) > 1:
        assert inner is not None
        chosen = _best(inner, trials, columns, compared_by, check)
    if chosen.stops_after is None:
        booster = _boosted(examples, chosen, columns, chosen.n_rounds, check)
    else:
        assert inner is not None
        booster = _stopped(inner, chosen, columns, compared_by, check)
    return Fitted(bytes(booster.save_raw("ubj")), booster, chosen, booster.num_boosted_rounds())


def matrix_of(examples: Examples, columns: Columns, n_threads: int = 1) -> xgboost.DMatrix:
    more: dict[str, Any] = {"label": examples.labels, "weight": examples.weights, "nthread": n_threads}
    if examples.groups is not None:
        more["qid"] = examples.groups
    if columns.categories:
        return xgboost.DMatrix(_table(examples.features, columns), enable_categorical=True, **more)
    return xgboost.DMatrix(examples.features, feature_names=list(columns.names) or None, **more)


def _table(features: Floats, columns: Columns) -> Any:
    """As Arrow, whose words XGBoost keeps in the model."""
    import pyarrow as pa

    made = []
    for at in range(features.shape[1]):
        values = np.ascontiguousarray(features[:, at])
        words = columns.categories.get(at)
        if words is None:
            made.append(pa.array(values))
            continue
        is_null = np.isnan(values)
        codes = pa.array(np.where(is_null, 0, values).astype(np.int32), mask=is_null)
        made.append(pa.DictionaryArray.from_arrays(codes, pa.array(words, pa.string())))
    names = columns.names or tuple(f"f{at}" for at in range(features.shape[1]))
    return pa.table(dict(zip(names, made, strict=True)))


def _threads(examples: Examples) -> int:
    return LARGE_THREADS if examples.features.size >= LARGE_CELLS else 1


def _given(chosen: Chosen, n_threads: int, *, eval_metric: str | None = None) -> dict[str, Any]:
    given: dict[str, Any] = {**dict(chosen.booster), "nthread": n_threads, "verbosity": 0}
    if eval_metric is not None:
        given |= {"eval_metric": eval_metric, "disable_default_eval_metric": 1}
    return given


def _boosted(
    examples: Examples, chosen: Chosen, columns: Columns, n_rounds: int, check: Callable[[], None]
) -> xgboost.Booster:
    n_threads = _threads(examples)
    matrix = matrix_of(examples, columns, n_threads)
    booster = xgboost.Booster(_given(chosen, n_threads), [matrix])
    for number in range(n_rounds):
        if number % LOOK_EVERY == 0:
            check()
        _update(booster, matrix, number)
    return booster


def _update(booster: xgboost.Booster, matrix: xgboost.DMatrix, number: int) -> None:
    """One round, by libxgboost's C API. `Booster.update`, whose users are told not to call it, compares the names of features
    each time: 13 us of the 540 that a round of 2,000 rows takes; the callbacks of `xgboost.train` take another 50. A booster
    that was made with this matrix has its names already. Seen with 3.2.0; tests hold the bytes against `xgboost.train`."""
    try:
        boost_once(booster.handle, matrix.handle, number)
    except XGBoostError as error:
        raise xgboost.core.XGBoostError(str(error)) from error


def _stopped(
    inner: tuple[Examples, Examples], chosen: Chosen, columns: Columns, compared_by: str, check: Callable[[], None]
) -> xgboost.Booster:
    """With the rounds up to the best one on the rows apart."""
    assert chosen.stops_after is not None
    n_threads = _threads(inner[0])
    matrix, judging = (matrix_of(one, columns, n_threads) for one in inner)
    booster = xgboost.Booster(_given(chosen, n_threads, eval_metric=compared_by), [matrix, judging])
    best, n_best = None, 0
    for number in range(chosen.n_rounds):
        check()
        _update(booster, matrix, number)
        value = float(booster.eval(judging, iteration=number).rsplit(":", 1)[1])
        loss = -value if more_is_better(compared_by) else value
        if best is None or loss < best:
            best, n_best = loss, number + 1
        elif number + 1 - n_best >= chosen.stops_after:
            break
    if n_best == booster.num_boosted_rounds():
        return booster
    if dict(chosen.booster).get("booster") == "gblinear":  # has no rounds to be cut
        return _boosted(inner[0], chosen, columns, n_best, check)
    return booster[:n_best]


def _best(
    inner: tuple[Examples, Examples],
    trials: Sequence[Chosen],
    columns: Columns,
    compared_by: str,
    check: Callable[[], None],
) -> Chosen:
    """The trial whose model is best on the rows apart; the first of several that are."""
    learned, apart_rows = inner
    measure, truth = metric(compared_by), apart_rows.truth
    judging = matrix_of(apart_rows, columns)
    found: list[tuple[float, int]] = []
    for number, chosen in enumerate(trials):
        if chosen.stops_after is None:
            booster = _boosted(learned, chosen, columns, chosen.n_rounds, check)
        else:
            booster = _stopped(inner, chosen, columns, compared_by, check)
        scores = booster.predict(judging, strict_shape=True)
        value = measure(truth, answers_of(chosen.objective, scores))
        found.append((-value if more_is_better(compared_by) else value, number))
    return trials[min(found, key=lambda one: (one[0] if one[0] == one[0] else np.inf, one[1]))[1]]


def more_is_better(name: str) -> bool:
    return MORE_IS_BETTER.fullmatch(name) is not None
