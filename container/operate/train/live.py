"""What is live for a segment, opened as an endpoint opens it, for a candidate to be held against.

Rule: it is the object that endpoints read, whoever put it there and in whatever old format; somebody else's bytes are opened
in the process that may die.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from container.operate.release.shelf import digest_of
from container.operate.train.metrics import OBJECTIVES, answers_of
from container.operate.train.rows import Columns
from handler.errors import ArtifactBroken, ArtifactMissing, ArtifactRefused, ServingError
from handler.forest.booster_pool import BoosterPool
from handler.forest.packed import document_of
from handler.loading.loader import model_of
from handler.predictor import Ensemble, FoldsDisagree, HandlePool, Scorer, facts_of_ensemble
from handler.scoring import predict
from handler.stores import Store

if TYPE_CHECKING:
    from container.examine.quarantine import Quarantine
    from container.operate.train.metrics import Doubles
    from handler.payload.rows import Floats


@dataclass(frozen=True, slots=True)
class LiveModel:
    """digest: of the artifact."""

    scorer: Scorer
    digest: str

    def answers(self, features: Floats, columns: Columns, objective: str) -> Doubles | None:
        """Its answers to rows of a candidate with this objective; None where they cannot be compared."""
        facts = self.scorer.facts
        if not _are_comparable(objective, facts.objective):
            return None
        rows = features
        if facts.feature_names and columns.names and facts.feature_names != columns.names:
            at = {name: number for number, name in enumerate(columns.names)}
            if not all(name in at for name in facts.feature_names):
                return None
            rows = np.ascontiguousarray(features[:, [at[name] for name in facts.feature_names]])
        if rows.shape[1] != facts.n_features:
            return None
        of_live = {number: tuple(map(str, words)) for number, words in facts.categories}
        if of_live != columns.categories and (of_live or columns.categories):
            return None  # the same word has another code there
        try:
            return answers_of(facts.objective, np.asarray(predict(self.scorer, rows).outputs))
        except ServingError:
            return None

    def close(self) -> None:
        self.scorer.close()


def _are_comparable(candidate: str, live: str) -> bool:
    """Whether numbers of both mean the same. Margins are made chances before."""
    kinds = [OBJECTIVES.get(one, ("",))[0] for one in (candidate, live)]
    kinds = ["chances" if kind == "margins" else kind for kind in kinds]
    return bool(kinds[0]) and kinds[0] == kinds[1]


class LiveModels:
    """Those of a live prefix. keys: that held something when the run began."""

    def __init__(self, store: Store, keys: Container[str], quarantine: Quarantine) -> None:
        self._store = store
        self._keys = keys
        self._quarantine = quarantine
        self._boosters = BoosterPool(HandlePool(), lambda forest: quarantine.booster_of(document_of(forest)))

    def model(self, key: str) -> LiveModel | None:
        """None where there is none, or none that an endpoint could answer with. Raises ArtifactError when the store fails."""
        if key not in self._keys:
            return None
        try:
            data = self._store.fetch(key).data
            examined = self._quarantine.examine(data, key)
            facts = facts_of_ensemble(examined.facts)
        except (ArtifactMissing, ArtifactBroken, ArtifactRefused, FoldsDisagree):
            return None
        made: list[Scorer] = [
            model_of(document, one, self._boosters)
            for document, one in zip(examined.documents, examined.facts, strict=True)
        ]
        return LiveModel(made[0] if len(made) == 1 else Ensemble(made, facts), digest_of(data))
