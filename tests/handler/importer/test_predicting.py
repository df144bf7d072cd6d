"""What a file or a pickle says about predicting, when it is odd; what real releases wrote is compared in
tests/container/examine/test_predicting.py."""

from __future__ import annotations

import copyreg
import io
import json
import pickle
import sys
import types
from typing import Any

import numpy as np
import pytest
import xgboost

from handler.errors import ArtifactBroken, ArtifactRefused
from handler.importer import import_booster
from handler.importer.learner import Predicting
from handler.importer.predicting import KEPT, SAVED


class Stated:
    """The document of a booster of five rounds, and what is said beside it."""

    def __init__(self, json_bytes: bytes, version: list[int]) -> None:
        self.document = json.loads(json_bytes)
        self.document["version"] = version

    def with_(self, **attributes: Any) -> Predicting:
        texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in attributes.items()}
        self.document["learner"]["attributes"] = texts
        return import_booster(json.dumps(self.document).encode(), "x").facts.predicting


@pytest.fixture
def stated(json_bytes: bytes) -> Stated:
    return Stated(json_bytes, [3, 2, 0])


def test_a_best_round_that_is_the_last_or_behind_it_is_all_of_them(stated: Stated) -> None:
    wrapper = {SAVED: '{"_estimator_type": "regressor"}'}
    assert stated.with_(best_iteration="1", **wrapper).best_rounds == 2
    for best in ("4", "5", "400", "-1", "1.5", "", "x", "99999999999999999999"):
        assert stated.with_(best_iteration=best, **wrapper).best_rounds is None, best


@pytest.mark.parametrize("text", ["", "{", "[]", "7", '"x"', "null", "[" * 100_000])
def test_what_a_wrapper_saved_and_is_none_is_broken(text: str, stated: Stated) -> None:
    with pytest.raises(ArtifactBroken, match="scikit-learn wrapper"):
        stated.with_(**{SAVED: text})


def test_what_a_wrapper_saved_is_bounded(stated: Stated) -> None:
    with pytest.raises(ArtifactRefused, match="characters"):
        stated.with_(**{SAVED: {"x": "x" * (1 << 20)}})


def test_a_wrapper_has_the_name_of_a_class_or_none(stated: Stated) -> None:
    assert stated.with_(**{SAVED: {"type": "Mine"}}).writer == "Mine"
    for name in ("a b", "\n", "", 7, ["x"], "x" * 65):
        assert stated.with_(**{SAVED: {"type": name}}).writer == "XGBModel"


@pytest.mark.parametrize(
    ("value", "missing"), [("NaN", None), ("null", None), ("-999", -999.0), ("0", 0.0), ("1e400", np.inf)]
)
def test_a_number_that_means_missing_is_told(value: str, missing: float | None, stated: Stated) -> None:
    assert stated.with_(**{SAVED: f'{{"missing": {value}}}'}).missing == missing


@pytest.mark.parametrize("value", ['"NaN"', "[0]", "{}"])
def test_anything_else_that_means_missing_is_refused(value: str, stated: Stated) -> None:
    with pytest.raises(ArtifactRefused, match="missing"):
        stated.with_(**{SAVED: f'{{"missing": {value}}}'})


def labelled(labels: object) -> dict[str, object]:
    return {SAVED: {"type": "XGBClassifier", "_le": {"classes_": labels}}}


@pytest.mark.parametrize("labels", [["a", "b"], [3, 7], [0.5, 1.5], [False, True], ["one"]])
def test_labels_are_told_as_they_are(labels: list[Any], stated: Stated) -> None:
    told = stated.with_(**labelled(labels)).labels
    assert list(told) == labels
    assert list(map(type, told)) == list(map(type, labels))


@pytest.mark.parametrize("labels", [[0, 1], [], [0]])
def test_labels_that_are_the_classes_numbers_are_none(labels: list[int], stated: Stated) -> None:
    assert stated.with_(**labelled(labels)).labels == ()


@pytest.mark.parametrize(
    ("labels", "why"),
    [
        ([1, "a"], "all numbers or all texts"),
        ([1, 2.5], "all numbers or all texts"),
        ([None, 1], "all numbers or all texts"),
        ([[1], [2]], "all numbers or all texts"),
        ([1, 2, 3], "3 labels for 2 classes"),
        ([1, 1 << 63], "64 bits"),
        (["x"] * 20_000, "20000 labels"),
    ],
)
def test_labels_that_cannot_be_answered_are_refused(labels: list[Any], why: str, stated: Stated) -> None:
    with pytest.raises(ArtifactRefused, match=why):
        stated.with_(**labelled(labels))


def test_what_convert_wrote_is_read_and_nothing_else(stated: Stated) -> None:
    kept = {
        "writer": "XGBClassifier",
        "best_rounds": 2,
        "why_unknown": "",
        "stops_early": True,
        "is_undecided": False,
        "missing": "-999.0",
        "labels": ["a", "b"],
        "categories": [[0, [10, 11]]],
    }
    told = stated.with_(**{KEPT: kept})
    assert (told.best_rounds, told.stops_early, told.missing, told.labels) == (2, True, -999.0, ("a", "b"))
    assert stated.with_(**{KEPT: {**kept, "best_rounds": 50}}).best_rounds is None
    for change in (
        {"best_rounds": 0},
        {"best_rounds": "2"},
        {"best_rounds": True},
        {"writer": 1},
        {"stops_early": 1},
        {"missing": "x"},
        {"labels": [[1]]},
        {"labels": 7},
        {"categories": [[0, [None]]]},
        {"categories": [["a", ["b"]]]},
        {"categories": 7},
        {"more": 1},
    ):
        with pytest.raises(ArtifactBroken, match=KEPT):
            stated.with_(**{KEPT: {**kept, **change}})
    for text in ("", "{}", "[]", "7"):
        with pytest.raises(ArtifactBroken, match=KEPT):
            stated.with_(**{KEPT: text})


class LabelEncoder:
    """Stands for scikit-learn's, which need not be here."""

    def __init__(self, classes: object) -> None:
        self.classes_ = classes


@pytest.fixture
def sklearn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Enough of it that pickle writes the names it would."""
    for name in ("sklearn", "sklearn.preprocessing", "sklearn.preprocessing._label"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    sys.modules["sklearn.preprocessing._label"].LabelEncoder = LabelEncoder  # type: ignore[attr-defined]
    monkeypatch.setattr(LabelEncoder, "__module__", "sklearn.preprocessing._label")


class Plainly(pickle._Pickler):  # type: ignore[misc, name-defined]
    """Pickles a wrapper by its dictionary, as Python does where scikit-learn's base class is there to say nothing else."""

    def reducer_override(self, value: Any) -> Any:
        if not isinstance(value, xgboost.XGBClassifier):
            return NotImplemented
        kind, state = type(value), dict(value.__dict__)
        if self.proto < 2:
            return copyreg._reconstructor, (kind, object, None), state  # type: ignore[attr-defined]
        return copyreg.__newobj__, (kind,), state  # type: ignore[attr-defined]


def pickled(booster: xgboost.Booster, classes: object, protocol: int) -> Predicting:
    wrapper = object.__new__(xgboost.XGBClassifier)
    wrapper.__dict__.update(_Booster=booster, _le=LabelEncoder(classes), missing=np.float32(-1.5))
    file = io.BytesIO()
    Plainly(file, protocol).dump(wrapper)
    return import_booster(file.getvalue(), "x").facts.predicting


@pytest.mark.usefixtures("sklearn")
@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    "classes",
    [
        np.array([3, 7]),
        np.array([3, 7], ">i4"),
        np.array([3, 7], np.uint8),
        np.array([0.5, 1.5], np.float32),
        np.array([False, True]),
        np.array(["bad", "ü, good"]),
        np.array(["bad", "ü, good"], object),
        ["bad", "good"],
        [np.str_("bad"), np.str_("good")],
        [np.int64(3), np.int64(7)],
    ],
    ids=lambda value: f"{type(value).__name__}-{getattr(value, 'dtype', '')}",
)
def test_labels_are_read_out_of_every_protocol(protocol: int, classes: Any, trained: xgboost.Booster) -> None:
    told = pickled(trained, classes, protocol)
    assert told.labels == tuple(np.asarray(classes).tolist())
    assert told.missing == -1.5
    assert told.writer == "XGBClassifier"


@pytest.mark.usefixtures("sklearn")
@pytest.mark.parametrize("classes", [np.array([1 + 2j, 3]), np.array([[1, 2]]), np.array([b"a", b"b"]), {"a": 1}, None])
def test_labels_of_any_other_kind_are_refused(classes: object, trained: xgboost.Booster) -> None:
    with pytest.raises(ArtifactRefused, match="label"):
        pickled(trained, classes, 4)
