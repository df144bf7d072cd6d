"""From the bytes of a booster file to a checked booster in XGBoost's current format.

    bytes -> formats: which format is it?
          -> ubj | json_text, then document | legacy | pickles -> Learner
          -> corrections -> checks -> writer -> bytes

Rule: pure. No XGBoost, no file, no code of the file's is run; what comes out was written by us, field by field.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from handler.errors import ArtifactBroken, ArtifactRefused
from handler.importer import (
    checks,
    corrections,
    document,
    foreign,
    formats,
    json_text,
    legacy,
    pickles,
    predicting,
    ubj,
    writer,
)
from handler.importer.broken import Damaged, Unsupported
from handler.importer.formats import Format
from handler.importer.learner import Categories, Learner, Predicting


@dataclass(frozen=True, slots=True)
class Stated:
    """What a booster is. `release` wrote it, None when the file does not say. `best_iteration` counts from 0, and
    `predicting` says whether it matters. `corrections` say, each in a sentence, what had to change for XGBoost 3.2 to
    answer as the release that wrote the file did."""

    format: str
    release: tuple[int, ...] | None
    objective: str
    booster: str
    n_features: int
    feature_names: tuple[str, ...]
    feature_types: tuple[str, ...]
    n_trees: int
    n_classes: int
    n_targets: int
    n_outputs: int
    n_rounds: int
    best_iteration: int | None
    base_score: tuple[float, ...]
    is_categorical: bool
    corrections: tuple[str, ...]
    predicting: Predicting
    categories: tuple[Categories, ...]

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Stated:
        """Facts that travelled as JSON."""
        stated: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
        }
        says = {**values["predicting"], "labels": tuple(values["predicting"]["labels"])}
        categories = tuple((feature, tuple(names)) for feature, names in values["categories"])
        stated |= {"predicting": Predicting(**says), "categories": categories}
        return cls(**stated)


@dataclass(frozen=True, slots=True)
class Imported:
    """A booster, corrected and checked, and what it states about itself."""

    learner: Learner
    facts: Stated

    @property
    def document(self) -> bytes:
        """UBJSON of release 3.2, for XGBoosterLoadModelFromBuffer."""
        return writer.ubj_of(self.learner)


def import_booster(member_bytes: bytes, uri: str) -> Imported:
    """The booster in a file, checked and in the current format.

    raises   ArtifactBroken when the file is damaged or no booster; ArtifactRefused when it is sound but would not be
             answered right here: a newer release, an unknown objective, a shape past our bounds
    """
    try:
        format_, learner = read(member_bytes)
        predicting.read_saved(learner)
        made = corrections.correct(learner)
        checks.check(learner)
        says = predicting.predicting_of(learner)
        note = predicting.note(says, learner.categories)
        if note is not None:
            learner.attributes[predicting.KEPT] = note
        _check_text(learner)
        return Imported(learner, _facts(format_, learner, tuple(made), says))
    except UnicodeEncodeError as error:  # half a surrogate pair: JSON and pickles can spell it, UTF-8 cannot
        raise ArtifactBroken(uri, "one of its names or attributes is no text") from error
    except Damaged as error:
        raise ArtifactBroken(uri, str(error)) from error
    except Unsupported as error:
        raise ArtifactRefused(uri, str(error)) from error


def read(data: bytes) -> tuple[Format, Learner]:
    """The booster as the file states it, before corrections and checks."""
    first: Damaged | Unsupported | None = None
    for found in formats.candidates(data):
        try:
            if found.format is Format.PICKLE:
                return found.format, _pickled(data)
            return found.format, _READERS[found.format](data)
        except (Damaged, Unsupported) as error:
            first = first or error
    if not isinstance(first, Unsupported):
        what = foreign.named(data)
        if what is not None:
            raise Unsupported(f"it is {what}") from first
    raise first or Damaged("it begins like no booster of any release")


def _pickled(data: bytes) -> Learner:
    pickled = pickles.read(data)
    for inside in formats.candidates(pickled.handle):
        if inside.format in _READERS:
            learner = _READERS[inside.format](pickled.handle)
            break
    else:
        raise Damaged("the pickled Booster's handle begins like no booster of any release")
    learner.feature_names = learner.feature_names or pickled.feature_names
    learner.feature_types = learner.feature_types or pickled.feature_types
    learner.wrapper, learner.remembered = pickled.wrapper, pickled.remembered
    return learner


def _check_text(learner: Learner) -> None:
    """Raises UnicodeEncodeError for text that cannot be written."""
    groups = (learner.attributes, *learner.objective_params.values())
    texts = [text for group in groups for pair in group.items() for text in pair]
    "".join([learner.objective, *learner.feature_names, *learner.feature_types, *texts]).encode()


_READERS: dict[Format, Callable[[bytes], Learner]] = {
    Format.UBJ: lambda data: document.learner_of(ubj.read(data)),
    Format.JSON: lambda data: document.learner_of(json_text.read(data)),
    Format.BINARY: legacy.read,
    Format.SERIALIZED: legacy.read_serialized,
}


def _facts(format_: Format, learner: Learner, made: tuple[str, ...], says: Predicting) -> Stated:
    trees = learner.trees
    return Stated(
        format=format_.value,
        release=learner.release,
        objective=learner.objective,
        booster=learner.booster,
        n_features=learner.n_features,
        feature_names=learner.feature_names,
        feature_types=learner.feature_types,
        n_trees=trees.n_trees if trees is not None else 0,
        n_classes=learner.num_class,
        n_targets=learner.n_targets,
        n_outputs=learner.n_groups,
        n_rounds=len(trees.iteration_starts) - 1 if trees is not None else learner.linear_rounds,
        best_iteration=predicting.best_iteration(learner),
        base_score=tuple(learner.base_score.tolist()),
        is_categorical=(trees is not None and trees.is_categorical) or "c" in learner.feature_types,
        corrections=made,
        predicting=says,
        categories=learner.categories,
    )
