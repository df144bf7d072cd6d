"""A packed forest as a model."""

from __future__ import annotations

from handler.bounds import Blocks, TreeCost, in_blocks
from handler.compiled import row
from handler.errors import FeatureMismatch
from handler.forest import walker
from handler.forest.booster_pool import BoosterPool
from handler.forest.packed import cost_of, shape_of, trees_of
from handler.libxgboost import Floats, Kind
from handler.predictor import Facts, Iterations


class Forest:
    """One segment's trees, walked without libxgboost. Any number of threads may score with it at once.

    packed     as `packed.pack` made it, in quarantine
    boosters   lends a native booster for what is not walked
    crew       other cores for large bodies; None is the caller's thread alone
    """

    __slots__ = (
        "_boosters",
        "_columns",
        "_cost",
        "_crew",
        "_is_plain",
        "_n_best",
        "_n_groups",
        "_n_outputs",
        "_n_trees",
        "_packed",
        "facts",
    )

    def __init__(self, packed: bytes, facts: Facts, boosters: BoosterPool, crew: walker.Crew | None = None) -> None:
        shape = shape_of(packed)
        self._packed = packed
        self._boosters = boosters
        self._crew = crew
        self._columns = shape.n_features
        self._cost: TreeCost | None = None
        self._n_trees, self._n_groups, self._n_outputs = shape.n_trees, shape.n_groups, shape.n_outputs
        self._n_best = self._n_trees if facts.best_rounds is None else trees_of(packed, facts.best_rounds)
        # Nothing to decide and nothing to replace, as for most.
        self._is_plain = facts.best_rounds is None and facts.missing is None and not facts.categories
        self.facts = facts

    @property
    def cost(self) -> TreeCost:
        if self._cost is None:
            self._cost = cost_of(self._packed)
        return self._cost

    @property
    def alone(self) -> bytes | None:
        """Its packed form, where its plain answer is one number made of all trees, as for most."""
        return self._packed if self._is_plain and self._n_groups == 1 else None

    def predict(
        self,
        rows: Floats,
        kind: Kind = Kind.VALUE,
        iterations: Iterations | None = None,
        blocks: Blocks | None = None,
    ) -> Floats:
        """As `Model.predict`, with the same bits in the answer."""
        if rows.shape[1] != self._columns:
            raise FeatureMismatch(f"rows have {rows.shape[1]} features, the model has {self._columns}")
        n_rounds, n_trees = 0, self._n_trees
        if not self._is_plain or iterations is not None:
            n_rounds = self.facts.rounds(iterations)
            n_trees = self._n_best if n_rounds else n_trees
            rows = self.facts.known(rows)
        if kind is not Kind.VALUE and kind is not Kind.MARGIN:
            with self._boosters.booster(self._packed) as booster:
                return in_blocks(rows, lambda block: booster.predict_matrix(block, kind, n_rounds=n_rounds), blocks)
        if blocks is None:
            return self._walk(rows, n_trees, is_margin=kind is Kind.MARGIN)
        return blocks.over(rows, lambda block: self._walk(block, n_trees, is_margin=kind is Kind.MARGIN))

    def _walk(self, rows: Floats, n_trees: int, *, is_margin: bool) -> Floats:
        return walker.predict(
            self._packed,
            rows,
            n_trees,
            self._n_groups,
            self._n_outputs,
            is_margin=is_margin,
            crew=self._crew,
        )

    def score_brief(self, body: bytes, form: int, around: tuple[bytes, bytes, bytes]) -> bytes | None:
        """The plain scores of an ordinary body of few rows, as text; None for anything else, which `predict` and those around
        it answer, or refuse, in the same words.

        form     what the body is in, as `payload.decode.FORMS` has it
        around   what stands before the first score, between two, and behind the last
        """
        if not self._is_plain or self._n_groups != 1 or row is None:
            return None
        return row.score_brief(self._packed, self._columns, self._n_trees, form, body, *around)

    def close(self) -> None:
        """Let go of the booster, if there is one; nobody may be predicting. The rest goes with the last reference."""
        self._boosters.forget(self._packed)
        self._packed = b""
