"""A packed forest as a model."""

from __future__ import annotations

from functools import partial

from handler.bounds import Blocks, TreeCost, in_blocks
from handler.errors import FeatureMismatch
from handler.forest import walker
from handler.forest.booster_pool import BoosterPool
from handler.forest.packed import cost_of, shape_of
from handler.libxgboost import Floats, Kind
from handler.predictor import Facts


class Forest:
    """One segment's trees, walked without libxgboost. Any number of threads may score with it at once.

    packed     as `packed.pack` made it, in quarantine
    boosters   lends a native booster for what is not walked
    crew       other cores for large bodies; None is the caller's thread alone
    """

    __slots__ = ("_boosters", "_columns", "_cost", "_crew", "_n_groups", "_n_outputs", "_n_trees", "_packed", "facts")

    def __init__(self, packed: bytes, facts: Facts, boosters: BoosterPool, crew: walker.Crew | None = None) -> None:
        shape = shape_of(packed)
        self._packed = packed
        self._boosters = boosters
        self._crew = crew
        self._columns = shape.n_features
        self._cost: TreeCost | None = None
        self._n_trees, self._n_groups, self._n_outputs = shape.n_trees, shape.n_groups, shape.n_outputs
        self.facts = facts

    @property
    def cost(self) -> TreeCost:
        if self._cost is None:
            self._cost = cost_of(self._packed)
        return self._cost

    def predict(self, rows: Floats, kind: Kind = Kind.VALUE, blocks: Blocks | None = None) -> Floats:
        """As `Model.predict`, with the same bits in the answer."""
        if rows.shape[1] != self._columns:
            raise FeatureMismatch(f"rows have {rows.shape[1]} features, the model has {self._columns}")
        if kind is not Kind.VALUE and kind is not Kind.MARGIN:
            with self._boosters.booster(self._packed) as booster:
                return in_blocks(rows, lambda block: booster.predict_matrix(block, kind), blocks)
        if blocks is None:
            return self._walk(rows, is_margin=kind is Kind.MARGIN)
        return blocks.over(rows, partial(self._walk, is_margin=kind is Kind.MARGIN))

    def _walk(self, rows: Floats, *, is_margin: bool) -> Floats:
        return walker.predict(
            self._packed,
            rows,
            self._n_trees,
            self._n_groups,
            self._n_outputs,
            is_margin=is_margin,
            crew=self._crew,
        )

    def close(self) -> None:
        """Let go of the booster, if there is one; nobody may be predicting. The rest goes with the last reference."""
        self._boosters.forget(self._packed)
        self._packed = b""
