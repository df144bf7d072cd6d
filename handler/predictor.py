"""A model ready to score, and the native handles it lives in.

Rule: rows that reach libxgboost have been counted. It accepts 1 of 20 columns without a word and answers something.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from functools import partial
from typing import Annotated, Any, Protocol

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Meta

from handler.bounds import Blocks, TreeCost, in_blocks
from handler.errors import FeatureMismatch, IterationsUndecided
from handler.libxgboost import Booster, Floats, Kind

# libxgboost keeps a buffer of the largest answer for every pair of a handle and a thread. Answers of this many numbers
# keep it at 512 bytes; a call costs about 40 us, so larger blocks would save a row no more than 0.3 us.
SCORES_PER_CALL = 128
# What such a pair costs besides (measured: mallinfo2 around the first prediction of each of 100 boosters).
BYTES_PER_THREAD = 392 + 4 * SCORES_PER_CALL

# A resting handle keeps some 25 KB from the system: its few blocks lie scattered over the pages of the model that was in
# it. A cache that thrashes lets one rest for a moment; only one that empties has more, and those are worth a freed
# handle's leak of 400 bytes for each thread that has scored with it.
MAX_RESTING = 64

# What libxgboost keeps for a node, and what is taken for a tree's shape where nobody knows it.
BYTES_PER_NODE = 53
GUESSED_NODES, GUESSED_DEPTH = 127, 8

_DENSE_KINDS = frozenset({Kind.VALUE, Kind.MARGIN})


class Iterations(Enum):
    """Which boosting rounds a model that stopped early answers with."""

    ALL = "all"
    BEST = "best"


@dataclass(frozen=True, slots=True)
class Facts:
    """What a caller may want to know of a model without asking libxgboost.

    resident_bytes   what it takes in memory once loaded, measured where it was examined
    booster          gbtree, dart or gblinear
    is_forest        it is walked by us; otherwise libxgboost scores with it
    feature_types    one of q, int, float, i, c for each feature, or empty
    corrections      what was changed so that it answers as the release that wrote it did
    categories       of features that came as a DataFrame's: (feature, its categories in the order of their codes)
    labels           of its classes in their order; empty when they are 0, 1, 2, ...
    missing          a number that means missing, besides NaN
    best_rounds      boosting rounds up to the best one; None when that is all of them
    best_unknown     why best_rounds is None though a best one was noted; empty otherwise
    stops_early      it answers with best_rounds when nobody asks for others, as whoever wrote it does
    is_undecided     two releases that may have written it differ in that, so somebody has to ask
    """

    objective: str
    booster: str
    n_features: Annotated[int, Meta(ge=1)]
    n_outputs: Annotated[int, Meta(ge=1)]
    resident_bytes: Annotated[int, Meta(ge=0)]
    feature_names: tuple[str, ...] = ()
    feature_types: tuple[str, ...] = ()
    corrections: tuple[str, ...] = ()
    is_forest: bool = False
    categories: tuple[tuple[int, tuple[str | int | float, ...]], ...] = ()
    labels: tuple[str | int | float | bool, ...] = ()
    missing: float | None = None
    best_rounds: Annotated[int, Meta(ge=1)] | None = None
    best_unknown: str = ""
    stops_early: bool = False
    is_undecided: bool = False

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Facts:
        """Facts that travelled as JSON. Raises ValueError where they are not as they were written."""
        try:
            return msgspec.convert(values, cls)
        except msgspec.ValidationError as error:
            raise ValueError(str(error)) from error

    def as_dict(self) -> dict[str, Any]:
        """What `from_dict` takes, for JSON. It holds nothing that dataclasses.asdict would have to copy, for 20 us."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    @property
    def votes(self) -> bool:
        """Whether several of it answer with their majority rather than their mean."""
        return self.objective in _VOTING

    @property
    def is_categorical(self) -> bool:
        return "c" in self.feature_types

    def rounds(self, asked: Iterations | None) -> int:
        """How many boosting rounds answer, 0 for all. Raises IterationsUndecided when nothing says, and we do not guess."""
        if asked is Iterations.BEST and self.best_unknown:
            raise IterationsUndecided(f"the best iteration cannot be answered with: {self.best_unknown}")
        if self.best_rounds is None or asked is Iterations.ALL:
            return 0
        if asked is None and self.is_undecided:
            raise IterationsUndecided(
                "this model stopped early, and was pickled by XGBoost 0.72, which answers with all rounds, or by 0.80 or "
                "0.81, which answer with those up to the best; say Iterations=all or Iterations=best"
            )
        return self.best_rounds if asked is Iterations.BEST or self.stops_early else 0

    def known(self, rows: Floats) -> Floats:
        """The rows with NaN where they hold the number that means missing."""
        if self.missing is None:
            return rows
        return np.where(rows == np.float32(self.missing), np.float32(np.nan), rows)


class HandlePool:
    """Native handles between two models.

    Freeing a handle leaks what every other thread's predictions left for it (see `Booster`); loading the next model
    into it does not. A resting handle holds the smallest model there is, about 5 KB.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._resting: list[Booster] = []

    def load(self, document: bytes) -> Booster:
        """A booster with this document in it. Raises XGBoostError, and then the handle rests again."""
        with self._lock:
            booster = self._resting.pop() if self._resting else None
        if booster is None:
            booster = Booster()
        try:
            booster.load(document)
        except BaseException:
            self.rest(booster)
            raise
        return booster

    def rest(self, booster: Booster) -> None:
        """Take a handle that nobody uses any more; the memory of its model is free when this returns."""
        if len(self._resting) >= MAX_RESTING:
            booster.free()
            return
        booster.load(SMALLEST)
        with self._lock:
            self._resting.append(booster)

    @property
    def n_resting(self) -> int:
        return len(self._resting)


# One leaf, one feature: XGBoost's own JSON, by hand.
SMALLEST = (
    b'{"learner":{"attributes":{},"feature_names":[],"feature_types":[],"gradient_booster":{"model":{"cats":{"enc":[],'
    b'"feature_segments":[],"sorted_idx":[]},"gbtree_model_param":{"num_parallel_tree":"1","num_trees":"0"},'
    b'"iteration_indptr":[0],"tree_info":[],"trees":[]},"name":"gbtree"},"learner_model_param":{"base_score":"[0E0]",'
    b'"boost_from_average":"0","num_class":"0","num_feature":"1","num_target":"1"},"objective":{"name":'
    b'"reg:squarederror","reg_loss_param":{"scale_pos_weight":"1"}}},"version":[3,2,0]}'
)


class Scorer(Protocol):
    """What the cache holds and a request asks: a `Model`, an `Ensemble`, or one that the endpoint's own code made."""

    @property
    def facts(self) -> Facts: ...
    @property
    def cost(self) -> TreeCost: ...
    def predict(
        self, rows: Floats, kind: Kind = ..., iterations: Iterations | None = ..., blocks: Blocks | None = ...
    ) -> npt.NDArray[Any]: ...
    def close(self) -> None: ...


class Model:
    """One segment's booster. Any number of threads may score with it at once; one closes it, after the last.

    on_close   is handed the native handle, once
    """

    __slots__ = ("_booster", "_columns", "_is_dense", "_lock", "_on_close", "_rows_per_call", "facts")

    def __init__(self, booster: Booster, facts: Facts, on_close: Callable[[Booster], None]) -> None:
        self._booster: Booster | None = booster
        self._on_close = on_close
        self._columns = facts.n_features
        self._rows_per_call = max(1, SCORES_PER_CALL // max(1, facts.n_outputs))
        # gblinear has no in-place prediction; the DMatrix path shares a cache inside the handle, hence the lock
        self._is_dense = facts.booster != "gblinear" and not facts.is_categorical
        self._lock = threading.Lock()
        self.facts = facts

    @property
    def cost(self) -> TreeCost:
        """Guessed from what it takes in memory: libxgboost tells nobody what its trees look like."""
        if self.facts.booster == "gblinear":
            return TreeCost(0, 0, 0, self.facts.n_features)
        n_nodes = self.facts.resident_bytes // BYTES_PER_NODE
        n_leaves = n_nodes // 2
        return TreeCost(
            max(1, n_nodes // GUESSED_NODES), GUESSED_DEPTH, n_leaves * (GUESSED_DEPTH + 1) ** 2, self._columns
        )

    def predict(
        self,
        rows: Floats,
        kind: Kind = Kind.VALUE,
        iterations: Iterations | None = None,
        blocks: Blocks | None = None,
    ) -> Floats:
        """Score rows.

        rows        float32, C-contiguous, (n_rows, n_features); NaN is a missing value
        iterations  which rounds answer; None leaves it to the model
        blocks      how to go through many; None is all at once
        returns     float32, (n_rows, n_outputs), two axes even for one output; the other kinds have XGBoost's own axes
        raises      FeatureMismatch when n_features is not the model's, IterationsUndecided
        source      XGBoost guide, "Prediction", strict_shape
        """
        booster = self._booster
        assert booster is not None, "predict after close"
        if rows.shape[1] != self._columns:
            raise FeatureMismatch(f"rows have {rows.shape[1]} features, the model has {self._columns}")
        n_rounds = self.facts.rounds(iterations)
        rows = self.facts.known(rows)
        if not (self._is_dense and kind in _DENSE_KINDS):
            return in_blocks(rows, partial(self._predict_matrix, booster, kind, n_rounds), blocks)
        return in_blocks(rows, partial(self._predict_dense, booster, kind, n_rounds), blocks)

    def _predict_dense(self, booster: Booster, kind: Kind, n_rounds: int, rows: Floats) -> Floats:
        step = self._rows_per_call
        if len(rows) <= step:
            return booster.predict_dense(rows, kind, n_rounds)
        parts = [
            booster.predict_dense(rows[start : start + step], kind, n_rounds) for start in range(0, len(rows), step)
        ]
        return np.concatenate(parts)

    def _predict_matrix(self, booster: Booster, kind: Kind, n_rounds: int, rows: Floats) -> Floats:
        with self._lock:
            return booster.predict_matrix(rows, kind, self.facts.feature_types, n_rounds)

    def close(self) -> None:
        """Give the memory back. Safe to call twice; nobody may be predicting."""
        booster, self._booster = self._booster, None
        if booster is not None:
            self._on_close(booster)


# Their boosters answer classes, which have a majority and no mean.
_VOTING = frozenset({"multi:softmax", "binary:hinge"})


class Ensemble:
    """The boosters of a k-fold archive, answering as one: their mean, or for classes their majority.

    source   AWS's XGBoost images 1.2-2 to 3.0-5 behind a single-model endpoint (algorithm_mode/serve_utils.py, predict): the
             mean, and of multi:softmax and binary:hinge the majority, where a tie goes to the smaller class. Behind a
             multi-model endpoint the same images average classes as well, for their handler does not say the objective
             (handler_service.py, default_predict_fn); images before 1.2-2 answer with whichever file they list first.
    """

    __slots__ = ("_models", "facts")

    def __init__(self, models: Sequence[Scorer], facts: Facts) -> None:
        self._models = tuple(models)
        self.facts = facts

    @property
    def cost(self) -> TreeCost:
        costs = [model.cost for model in self._models]
        return TreeCost(
            sum(cost.n_trees for cost in costs),
            max(cost.depth for cost in costs),
            sum(cost.leaf_work for cost in costs),
            self.facts.n_features,
        )

    def predict(
        self,
        rows: Floats,
        kind: Kind = Kind.VALUE,
        iterations: Iterations | None = None,
        blocks: Blocks | None = None,
    ) -> Floats:
        """As `Model.predict`. Raises FoldsDisagree for leaves, which are each tree's own."""
        if kind is Kind.LEAF:
            raise FoldsDisagree("the leaves of several boosters are not one answer")
        answers = np.stack([model.predict(rows, kind, iterations, blocks) for model in self._models])
        if kind is Kind.VALUE and self.facts.votes:
            classes = np.unique(answers)
            votes = (answers == classes.reshape(-1, 1, 1, 1)).sum(axis=1)
            majority: Floats = classes[votes.argmax(axis=0)]
            return majority
        mean: Floats = answers.mean(axis=0)
        return mean

    def close(self) -> None:
        for model in self._models:
            model.close()


class FoldsDisagree(Exception):
    """Boosters that cannot answer as one."""


def facts_of_ensemble(folds: Sequence[Facts]) -> Facts:
    """What they have in common, with the memory of all. Raises FoldsDisagree when one could not stand in for another."""
    first = folds[0]
    if len(folds) == 1:
        return first
    for fold in folds[1:]:
        for name in ("objective", "n_features", "n_outputs", "feature_names", "feature_types", "categories", "labels"):
            if getattr(fold, name) != getattr(first, name):
                raise FoldsDisagree(f"its boosters differ in {name}: {getattr(first, name)} and {getattr(fold, name)}")
    return replace(
        first,
        resident_bytes=sum(fold.resident_bytes for fold in folds),
        corrections=tuple(dict.fromkeys(text for fold in folds for text in fold.corrections)),
    )
