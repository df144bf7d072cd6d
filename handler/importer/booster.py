"""From the bytes of a booster file to a checked booster in XGBoost's current format.

    bytes -> formats: which format is it?
          -> ubj | json_text, then document | legacy | pickles -> Learner
          -> corrections -> checks -> writer -> bytes

Rule: pure. No XGBoost, no file, no code of the file's is run; what comes out was written by us, field by field.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from handler.errors import ArtifactBroken, ArtifactRefused
from handler.importer import checks, corrections, document, formats, json_text, legacy, pickles, ubj, writer
from handler.importer.broken import Damaged, Unsupported
from handler.importer.formats import Format
from handler.importer.learner import Learner

ZLIB = (b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda")  # what joblib.dump(compress=...) begins with


@dataclass(frozen=True, slots=True)
class Stated:
    """What a booster is. `release` wrote it, None when the file does not say. `best_iteration` counts from 0;
    Booster.predict of every release scores with all trees and leaves early stopping to its caller. `corrections` say,
    each in a sentence, what had to change for XGBoost 3.2 to answer as the release that wrote the file did."""

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
        made = corrections.correct(learner)
        checks.check(learner)
        if learner.trees is not None:
            checks.canonical(learner.trees)
        _check_text(learner)
        return Imported(learner, _facts(format_, learner, tuple(made)))
    except UnicodeEncodeError as error:  # half a surrogate pair: JSON and pickles can spell it, UTF-8 cannot
        raise ArtifactBroken(uri, "one of its names or attributes is no text") from error
    except Damaged as error:
        raise ArtifactBroken(uri, str(error)) from error
    except Unsupported as error:
        raise ArtifactRefused(uri, str(error)) from error


def read(data: bytes) -> tuple[Format, Learner]:
    """The booster as the file states it, before corrections and checks."""
    found = formats.sniff(data)
    if found is None:
        if data[:2] in ZLIB:
            raise Unsupported("it is compressed the way joblib does it; save the booster with Booster.save_model")
        raise Damaged("it begins like no booster of any release")
    if found.format is not Format.PICKLE:
        return found.format, _READERS[found.format](data)
    pickled = pickles.read(data)
    inside = formats.sniff(pickled.handle)
    if inside is None or inside.format not in _READERS:
        raise Damaged("the pickled Booster's handle begins like no booster of any release")
    learner = _READERS[inside.format](pickled.handle)
    learner.feature_names = learner.feature_names or pickled.feature_names
    learner.feature_types = learner.feature_types or pickled.feature_types
    learner.forest_size = learner.forest_size or pickled.forest_size
    return found.format, learner


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


def _facts(format_: Format, learner: Learner, made: tuple[str, ...]) -> Stated:
    trees = learner.trees
    best = learner.attributes.get("best_iteration", "")
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
        best_iteration=int(best) if best.isascii() and best.isdigit() and len(best) < 10 else None,
        base_score=tuple(learner.base_score.tolist()),
        is_categorical=bool(trees is not None and trees.split_type.any()) or "c" in learner.feature_types,
        corrections=made,
    )
