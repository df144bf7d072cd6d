"""A packed forest as a model."""

from __future__ import annotations

from handler.compiled import row
from handler.errors import FeatureMismatch
from handler.forest import walker
from handler.forest.booster_pool import BoosterPool
from handler.forest.packed import shape_of
from handler.libxgboost import Floats, Kind
from handler.predictor import Facts


class Forest:
    """One segment's trees, walked without libxgboost. Any number of threads may score with it at once.

    packed     as `packed.pack` made it, in quarantine
    boosters   lends a native booster for what is not walked
    crew       other cores for large bodies; None is the caller's thread alone
    """

    __slots__ = ("_boosters", "_columns", "_crew", "_n_groups", "_n_outputs", "_n_trees", "_packed", "facts")

    def __init__(self, packed: bytes, facts: Facts, boosters: BoosterPool, crew: walker.Crew | None = None) -> None:
        shape = shape_of(packed)
        self._packed = packed
        self._boosters = boosters
        self._crew = crew
        self._columns = shape.n_features
        self._n_trees, self._n_groups, self._n_outputs = shape.n_trees, shape.n_groups, shape.n_outputs
        self.facts = facts

    def predict(self, rows: Floats, kind: Kind = Kind.VALUE) -> Floats:
        """As `Model.predict`, with the same bits in the answer."""
        if rows.shape[1] != self._columns:
            raise FeatureMismatch(f"rows have {rows.shape[1]} features, the model has {self._columns}")
        if kind is not Kind.VALUE and kind is not Kind.MARGIN:
            with self._boosters.booster(self._packed) as booster:
                return booster.predict_matrix(rows, kind)
        return walker.predict(
            self._packed,
            rows,
            self._n_trees,
            self._n_groups,
            self._n_outputs,
            is_margin=kind is Kind.MARGIN,
            crew=self._crew,
        )

    def score_line(self, body: bytes) -> bytes | None:
        """The plain score of one ordinary line of CSV, as CSV; None for anything else, which `predict` and those around it
        answer, or refuse, in the same words."""
        if self._n_groups != 1 or self._n_trees > walker.BRIEF or row is None:
            return None
        return row.score_line(self._packed, self._columns, body)

    def close(self) -> None:
        """Let go of the booster, if there is one; nobody may be predicting. The rest goes with the last reference."""
        self._boosters.forget(self._packed)
        self._packed = b""
