"""Archives on which this endpoint once failed, from reports in public: tests/fixtures/bugs/fNN, each with its README."""

from __future__ import annotations

import json
import struct
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from container.examine import examiner
from container.examine.examiner import Task
from handler.archives.limits import Limits
from handler.errors import ArtifactBroken, ArtifactRefused
from handler.forest.booster_pool import BoosterPool
from handler.importer import import_booster
from handler.loading.loader import model_of
from handler.messages import Request
from handler.predictor import Facts, HandlePool, Iterations, Scorer
from handler.scoring import PlainScoring

BUGS = Path(__file__).resolve().parents[2] / "fixtures" / "bugs"


def opened(archive: Path) -> Scorer:
    data = archive.read_bytes()
    documents, verdict = examiner._verdict(data, Task(archive.name, None, len(data), Limits()))
    facts: Any = verdict["facts"]
    return model_of(documents[0], Facts.from_dict(json.loads(json.dumps(facts[0]))), BoosterPool(HandlePool()))


def answer(model: Scorer, body: bytes, media_type: str, *outputs: str, **more: Any) -> bytes:
    request = Request({"content-type": media_type}, body, "1")
    return PlainScoring().score(request, "model.tar.gz", model, outputs, "text/csv", **more).body


def member(archive: Path) -> bytes:
    with tarfile.open(archive) as tar:
        file = tar.extractfile("xgboost-model")
        assert file is not None
        return file.read()


# f01


@pytest.mark.parametrize("name", ["model.tar.gz", "model-pickle.tar.gz", "looks-like-pickle.bin", "magic-4.786924.bin"])
def test_f01_a_binary_booster_is_one_whatever_its_base_score_spells(name: str) -> None:
    model = opened(BUGS / "f01" / name)
    if model.facts.n_features == 3:
        assert float(answer(model, b"1,2,3", "text/csv")) == pytest.approx(0.3158906, rel=1e-6)


def test_f01_all_base_scores_of_two_decimals_are_read() -> None:
    whole = member(BUGS / "f01" / "model.tar.gz")
    for hundredth in range(-1000, 1000):
        value = np.float32(hundredth / 100)
        learner = import_booster(struct.pack("<f", value) + whole[4:], "x").learner
        assert learner.base_score.tolist() == [value], hundredth


@pytest.mark.parametrize(
    "spelled",
    [
        *(
            b"{L\0\0",
            b'{"le',
            b'\n {"',
            b"\x80\x03\0\0",
            b"\x80\x02\x8a?",
            b"\x1f\x8b\x08\0",
            b"\x78\x9c\0?",
            b"PK\x03\x04",
        ),
        *(b"BZh?", b"CONF", b"]q\0?", b"(dp0", b"\xfd7z?"),
    ],
)
def test_f01_the_same_for_beginnings_of_every_other_format(spelled: bytes, tmp_path: Path) -> None:
    path = tmp_path / "booster.bin"
    path.write_bytes(spelled + member(BUGS / "f01" / "model.tar.gz")[4:])
    model = opened(path)
    (base_score,) = struct.unpack("<f", spelled)
    before = opened(BUGS / "f01" / "model.tar.gz").predict(np.ones((1, 3), np.float32))
    assert model.predict(np.ones((1, 3), np.float32)) == pytest.approx(before - 0.34 + base_score, rel=1e-5)


# f07


def test_f07_a_dictionary_column_is_coded_by_the_models_own_categories() -> None:
    model = opened(BUGS / "f07" / "model.tar.gz")
    assert model.facts.categories == ((0, ("Cairo", "Lima", "Oslo")), (2, (10, 11, 12, 13)))
    expected = json.loads((BUGS / "f07" / "expected.json").read_bytes())
    got = answer(model, (BUGS / "f07" / "rows.parquet").read_bytes(), "application/x-parquet").split()
    assert [float(number) for number in got] == pytest.approx(expected, rel=1e-6)


# f08


def test_f08_an_early_stopped_regressor_answers_as_its_own_predict_does() -> None:
    model = opened(BUGS / "f08" / "model.tar.gz")
    expected = json.loads((BUGS / "f08" / "expected.json").read_bytes())
    rows = (BUGS / "f08" / "rows.json").read_bytes()
    got = [float(line) for line in answer(model, rows, "application/json").split()]
    assert got == pytest.approx(expected, rel=1e-6)
    assert answer(model, rows, "application/json", iterations=Iterations.BEST).split() == [str(n).encode() for n in got]
    everything = [float(n) for n in answer(model, rows, "application/json", iterations=Iterations.ALL).split()]
    assert max(abs(a - b) / abs(b) for a, b in zip(everything, expected, strict=True)) > 1


# f09


def test_f09_a_classifier_answers_with_its_own_labels() -> None:
    model = opened(BUGS / "f09" / "model.tar.gz")
    expected = json.loads((BUGS / "f09" / "expected.json").read_bytes())
    rows = (BUGS / "f09" / "rows.json").read_bytes()
    got = answer(model, rows, "application/json", "predicted_label").split()
    assert [int(label) for label in got] == expected
    assert answer(model, rows, "application/json", "labels").split(b"\n")[0] == b'"[10, 20, 35]"'


# f11, f12, f21


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("catboost.cbm", "a CatBoost model"),
        ("catboost.json", "a CatBoost model"),
        ("lightgbm.json", "a LightGBM model"),
        ("lightgbm.txt", "a LightGBM model"),
        ("dump_model.json", "a dump for people to read .*save_model"),
        ("dump_model.txt", "a dump for people to read .*save_model"),
        ("save_config.json", "a configuration .*save_model"),
        ("empty-member", "an empty file"),
        ("onnx", "an ONNX model"),
        ("pmml", "a PMML document"),
        ("treelite", "a Treelite model"),
    ],
)
def test_f11_what_is_no_booster_is_refused_by_what_it_is(name: str, what: str) -> None:
    with pytest.raises(ArtifactRefused, match=f"is refused: it is {what}"):
        opened(BUGS / "f11" / f"{name}.tar.gz")


def test_f12_a_pickled_dict_is_called_a_dict_and_told_what_to_do() -> None:
    with pytest.raises(ArtifactRefused, match=r"holds a dict with the keys 'model', 'features'.* save_model"):
        opened(BUGS / "f12" / "model.tar.gz")


@pytest.mark.parametrize("name", ["spark-classifier", "spark-classifier-ubj"])
def test_f21_what_spark_saves_for_a_classifier_is_named_with_its_member(name: str) -> None:
    with pytest.raises(ArtifactBroken, match=r"XGBoostClassificationModel .*xgboost4j-spark.*nativeBooster"):
        opened(BUGS / "f21" / f"{name}.tar.gz")
