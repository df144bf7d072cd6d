"""What wrappers and Boosters of every release from 0.72 to 3.2 wrote answers as they did, or is refused: 0 wrong.

The files, and what their own releases answered: tests/fixtures/make_predicting.py.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from container.examine import examiner
from container.examine.examiner import Task
from handler.archives.limits import Limits
from handler.errors import ArtifactRefused, IterationsUndecided
from handler.forest import walker
from handler.forest.booster_pool import BoosterPool
from handler.importer import import_booster
from handler.libxgboost import Kind
from handler.loading.loader import model_of
from handler.outputs import plan_outputs
from handler.predictor import Facts, HandlePool, Iterations, Scorer

ARCHIVE = Path(__file__).resolve().parents[2] / "fixtures" / "predicting.tar.xz"
RELEASES = (
    *("0.72.1", "0.80", "0.81", "0.82", "0.90", "1.0.2", "1.1.1", "1.2.1", "1.3.3", "1.4.2", "1.5.2", "1.6.2", "1.7.6"),
    *("2.0.3", "2.1.4", "3.0.5", "3.1.3", "3.2.0"),
)


@dataclass(frozen=True)
class Written:
    """The files by their names, and the manifest's entries."""

    files: dict[str, bytes]
    entries: list[dict[str, Any]]

    def probe(self, entry: dict[str, Any]) -> np.ndarray[Any, Any]:
        name = "probe-coded.npy" if entry.get("coded") else "probe.npy"
        return np.load(io.BytesIO(self.files[name])).astype(np.float32)

    def entry(self, file: str) -> dict[str, Any]:
        return next(entry for entry in self.entries if entry["file"] == file)


@pytest.fixture(scope="module")
def written() -> Written:
    with tarfile.open(ARCHIVE) as tar:
        files = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
    return Written(files, json.loads(files["manifest.json"]))


@pytest.fixture(params=["walked", "by libxgboost"])
def opened(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Opens a file as an endpoint does: examined, then ready to score."""
    if request.param == "walked" and not walker.is_available():
        pytest.skip("there was no compiler")
    monkeypatch.setattr(examiner, "_packs", request.param == "walked")
    boosters = BoosterPool(HandlePool())
    models: list[Scorer] = []

    def open_(data: bytes, name: str = "model") -> Scorer:
        documents, verdict = examiner._verdict(data, Task(name, None, len(data), Limits()))
        facts = Facts.from_dict(json.loads(json.dumps(verdict["facts"]))[0])
        models.append(model_of(documents[0], facts, boosters))
        return models[-1]

    yield open_
    for model in models:
        model.close()


def is_near(got: np.ndarray[Any, Any], expected: Any) -> bool:
    wanted = np.asarray(expected, np.float64)
    return float(np.abs(got.reshape(wanted.shape) - wanted).max()) <= 1e-5 * max(float(np.abs(wanted).max()), 1e-30)


# What may be refused, and why: nothing that could be answered.
MAY_BE_REFUSED = {
    ("0.72.1", "regressor_early_dart"),  # drops trees at random when it predicts
    *((release, "regressor_early_dart") for release in ("0.80", "0.81", "0.82", "0.90")),
    # Pickles of 0.72, 0.80 and 0.81 hold the same fields, and 0.72 predicts with other rounds.
    *(
        (release, case)
        for release in ("0.72.1", "0.80", "0.81")
        for case in (
            "regressor_early",
            "regressor_early_forest",
            "classifier_early",
            "classifier_binary_early",
            "classifier_numbers",
        )
    ),
}


@pytest.mark.parametrize("release", RELEASES)
def test_every_file_answers_as_its_writer_predicts(release: str, written: Written, opened: Any) -> None:
    wrong, refused = [], set()
    entries = [entry for entry in written.entries if entry["release"] == release]
    assert len(entries) > 25
    for entry in entries:
        try:
            model = opened(written.files[entry["file"]], entry["file"])
            got = model.predict(written.probe(entry))
        except (ArtifactRefused, IterationsUndecided):
            refused.add((release, entry["case"]))
            continue
        if not is_near(got, entry["expected"]):
            wrong.append(entry["file"])
        if "labels" in entry and _labels(model, got) != entry["labels"]:
            wrong.append(entry["file"] + ": labels")
        if "names" in entry and [list(names) for _, names in model.facts.categories] != _readable(entry["names"]):
            wrong.append(entry["file"] + ": categories")
        if "features" in entry and list(model.facts.feature_names) != entry["features"]:
            wrong.append(entry["file"] + ": feature names")
    assert not wrong
    assert refused <= MAY_BE_REFUSED


def _labels(model: Scorer, scores: np.ndarray[Any, Any]) -> Any:
    plan = plan_outputs(("predicted_label",), model.facts.objective, model.facts.n_outputs, model.facts.labels)
    outputs = plan.answer({"value": scores}).outputs
    assert isinstance(outputs, dict)
    return outputs["predicted_label"].tolist()


def _readable(names: list[Any]) -> list[list[Any]]:
    """XGBoost 3.1 and 3.2 cut categories beyond ASCII in the wrong places; those are not told."""
    return [names] if names and all(str(name).isascii() for name in names) else []


def test_stopping_early_and_missing_numbers_matter_in_what_is_compared(written: Written) -> None:
    changed = {
        (entry["release"], entry["case"])
        for entry in written.entries
        if "all" in entry and not is_near(np.array(entry["all"]), entry["expected"])
    }
    releases = {release for release, _ in changed}
    # Pickles up to 1.7 and files of 1.4 to 1.7; from 2.0 on AWS's image answers with all rounds.
    assert releases == {release for release in RELEASES if not release.startswith(("2", "3"))}


@pytest.mark.parametrize("release", RELEASES)
def test_a_request_may_ask_for_all_rounds_or_the_best(release: str, written: Written, opened: Any) -> None:
    wrong = []
    for entry in written.entries:
        if entry["release"] != release or "all" not in entry:
            continue
        model = opened(written.files[entry["file"]], entry["file"])
        if not is_near(model.predict(written.probe(entry), iterations=Iterations.ALL), entry["all"]):
            wrong.append((entry["file"], "all"))
        if "best" not in entry:
            continue
        if model.facts.best_unknown:
            # Before 1.4 a file of one output says the best round, and not how many trees a round has.
            assert not entry["file"].endswith(".pkl")
            with pytest.raises(IterationsUndecided, match="how many trees"):
                model.predict(written.probe(entry), iterations=Iterations.BEST)
            continue
        best = model.predict(written.probe(entry), iterations=Iterations.BEST)
        if not is_near(best, entry["best"]):
            wrong.append((entry["file"], "best"))
    assert not wrong


@pytest.mark.parametrize(
    "file", ["regressor_early.ubj", "regressor_early_dart.ubj", "classifier_early.ubj", "regressor_early_forest.ubj"]
)
@pytest.mark.parametrize("iterations", [None, Iterations.ALL, Iterations.BEST])
def test_explanations_and_leaves_are_of_the_rounds_that_answer(
    file: str, iterations: Iterations | None, written: Written, opened: Any
) -> None:
    name = f"xgboost-3.2.0/{file}"
    model, probe = opened(written.files[name]), written.probe(written.entry(name))
    assert model.facts.best_rounds is not None
    margin = model.predict(probe, Kind.MARGIN, iterations)
    for kind in (Kind.CONTRIBS, Kind.APPROX_CONTRIBS):
        np.testing.assert_allclose(model.predict(probe, kind, iterations).sum(axis=-1), margin, rtol=1e-4, atol=1e-4)
    interactions = model.predict(probe, Kind.INTERACTIONS, iterations)
    np.testing.assert_allclose(interactions.sum(axis=(-1, -2)), margin, rtol=1e-4, atol=1e-4)
    leaves = model.predict(probe, Kind.LEAF, iterations)
    n_rounds = model.predict(probe, Kind.LEAF, Iterations.ALL).shape[1]
    assert n_rounds > model.facts.best_rounds
    assert leaves.shape[1] == (n_rounds if iterations is Iterations.ALL else model.facts.best_rounds)


def test_walked_and_native_models_stop_at_the_same_tree_to_the_last_bit(
    written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not walker.is_available():
        pytest.skip("there was no compiler")
    boosters, answers = BoosterPool(HandlePool()), []
    for packs in (True, False):
        monkeypatch.setattr(examiner, "_packs", packs)
        for file in ("regressor_early", "regressor_early_dart", "classifier_early"):
            data = written.files[f"xgboost-1.7.6/{file}.pkl"]
            documents, verdict = examiner._verdict(data, Task("x", None, len(data), Limits()))
            facts: Any = verdict["facts"]
            model = model_of(documents[0], Facts.from_dict(json.loads(json.dumps(facts))[0]), boosters)
            probe = np.repeat(written.probe({}), 20, axis=0)
            answers.append([model.predict(rows).tobytes() for rows in (probe, probe[:1])])
            model.close()
    assert answers[:3] == answers[3:]


@pytest.mark.parametrize("release", RELEASES)
def test_what_is_converted_predicts_as_before(release: str, written: Written) -> None:
    for entry in written.entries:
        if entry["release"] != release:
            continue
        try:
            before = import_booster(written.files[entry["file"]], "x")
        except ArtifactRefused:
            continue
        after = import_booster(before.document, "x")
        assert after.document == before.document, entry["file"]
        for name in ("categories", "n_rounds", "feature_names"):
            assert getattr(after.facts, name) == getattr(before.facts, name), entry["file"]
        said, told = before.facts.predicting, after.facts.predicting
        assert replace(told, writer="") == replace(said, writer=""), entry["file"]
