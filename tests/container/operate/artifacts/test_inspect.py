"""What an archive is, from the shell: facts, refusals in the endpoint's words, and exit codes."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xgboost

from container.operate.exits import Exit
from container.operate.main import main
from handler.archives.limits import Limits
from handler.archives.members import read_artifact
from tests.rig import boosters

BOOSTERS_ARCHIVE = Path(__file__).resolve().parents[3] / "fixtures" / "boosters.tar.gz"

Mme = Callable[..., tuple[int, str, str]]


@pytest.fixture
def mme(capfd: pytest.CaptureFixture[str]) -> Mme:
    """`mme ...`: its exit code, stdout and stderr."""

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        status = main([str(argument) for argument in arguments])
        return status, *capfd.readouterr()

    return run


@pytest.fixture(scope="module")
def stock() -> dict[str, bytes]:
    """Files written by real releases: see tests/fixtures/make_boosters.py."""
    with tarfile.open(BOOSTERS_ARCHIVE) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}


def old_archive(stock: dict[str, bytes], path: Path, case: str = "logistic", release: str = "0.90") -> dict[str, Any]:
    """An archive as that release's image wrote it, and what the manifest knows of it."""
    entries = json.loads(stock["manifest.json"])
    entry = next(one for one in entries if one["file"] == f"xgboost-{release}/{case}.bin")
    path.write_bytes(boosters.archive({"xgboost-model": stock[entry["file"]]}))
    return entry


def segment(path: Path) -> Path:
    path.write_bytes(boosters.segment_archive(1))
    return path


def test_a_current_archive_and_the_next_step(mme: Mme, tmp_path: Path) -> None:
    path = segment(tmp_path / "one.tar.gz")
    status, out, err = mme("inspect", path)
    assert (status, err) == (Exit.OK, "")
    words = {line.split()[0]: line.split(maxsplit=1)[1] for line in out.splitlines()}
    assert words["archive"].startswith(f"{path}  ")
    assert "ubj, written by XGBoost 3.2.0" in words["member"]
    assert words["objective"] == "reg:squarederror  one output  gbtree"
    assert words["features"] == "6 without names"
    assert words["trees"] == "10 in 10 rounds"
    assert "KiB once loaded" in words["memory"]
    assert out.splitlines()[-1] == f"next      mme serve --models {tmp_path}  and call one.tar.gz"


def test_names_types_classes_and_best_iteration(mme: Mme, tmp_path: Path) -> None:
    x = boosters.rows(100, 3)
    data = xgboost.DMatrix(
        x, np.floor(x[:, 0] * 3), feature_names=["age", "sq ft", "city"], feature_types=["int", "float", "q"]
    )
    settings = {"objective": "multi:softprob", "num_class": 3, "nthread": 1, "verbosity": 0}
    booster = xgboost.train(settings, data, 4)
    booster.set_attr(best_iteration="2")
    path = tmp_path / "named.tar.gz"
    path.write_bytes(boosters.archive({"xgboost-model": boosters.document(booster)}))
    _, out, _ = mme("inspect", path)
    assert "features  3  age (int), sq ft (float), city (q)" in out
    assert "multi:softprob  3 classes" in out
    assert "trees     12 in 4 rounds\n" in out
    assert "predicts  all 4 rounds, as Booster.predict of its release; the 3 rounds up to the best of 4 with" in out
    _, out, _ = mme("inspect", path, "--json")
    (facts,) = json.loads(out)["boosters"]
    assert facts["feature_names"] == ["age", "sq ft", "city"]
    assert (facts["n_trees"], facts["n_rounds"], facts["n_classes"], facts["best_iteration"]) == (12, 4, 3, 2)
    assert facts["release"] == "3.2.0"
    assert facts["resident_bytes"] > 500


def test_a_target_below_a_location(mme: Mme, tmp_path: Path) -> None:
    (tmp_path / "us").mkdir()
    segment(tmp_path / "us" / "a.tar.gz")
    status, out, _ = mme("inspect", "us/a.tar.gz", "--models", tmp_path)
    assert status == Exit.OK
    assert f"mme serve --models {tmp_path}  and call us/a.tar.gz" in out


def test_an_old_archive_is_told_with_its_corrections_and_how_to_convert_it(
    mme: Mme, tmp_path: Path, stock: dict[str, bytes]
) -> None:
    path = tmp_path / "old.tar.gz"
    old_archive(stock, path)
    status, out, _ = mme("inspect", path)
    assert status == Exit.OK
    assert "binary, written by" in out
    assert out.splitlines()[-1] == f"next      mme convert {path} -o converted.tar.gz"


def test_folds_are_told_one_by_one_and_together(mme: Mme, tmp_path: Path) -> None:
    path = tmp_path / "folds.tar.gz"
    members = {f"xgboost-model-{n}": boosters.document(boosters.segment(n)) for n in range(3)}
    path.write_bytes(boosters.archive(members))
    _, out, _ = mme("inspect", path)
    assert out.count("\nmember") == 3
    assert "together  3 folds answer as one" in out


@pytest.mark.parametrize(
    ("data", "exit", "name", "says"),
    [
        (b"no archive", Exit.MODEL_ERROR, "ArtifactBroken", "neither an archive nor a booster"),
        (b"PK\x03\x04rest", Exit.MODEL_ERROR, "ArtifactRefused", "a zip archive"),
        (boosters.segment_archive(1)[:-30], Exit.MODEL_ERROR, "ArtifactBroken", "truncated"),
        (None, Exit.REFUSED, "ArtifactMissing", "does not exist"),
    ],
)
def test_what_cannot_be_served_is_told_with_the_reason_and_an_exit_code(
    mme: Mme, tmp_path: Path, data: bytes | None, exit: Exit, name: str, says: str
) -> None:
    path = tmp_path / "bad.tar.gz"
    if data is not None:
        path.write_bytes(data)
    status, out, err = mme("inspect", path)
    assert (status, out) == (exit, "")
    assert err.startswith("mme inspect: ")
    assert says in err
    status, out, _ = mme("inspect", path, "--json")
    assert status == exit
    assert json.loads(out)["error"] == name


def test_folds_that_could_not_answer_as_one_are_refused_as_an_endpoint_would(mme: Mme, tmp_path: Path) -> None:
    path = tmp_path / "folds.tar.gz"
    wide = boosters.document(boosters.train(n_features=7))
    path.write_bytes(
        boosters.archive({"xgboost-model-0": boosters.document(boosters.segment(0)), "xgboost-model-1": wide})
    )
    status, _, err = mme("inspect", path)
    assert status == Exit.MODEL_ERROR
    assert "differ in n_features" in err


def test_code_is_refused_unless_told_to_look_past_it(mme: Mme, tmp_path: Path) -> None:
    path = tmp_path / "code.tar.gz"
    members = {"xgboost-model": boosters.document(boosters.segment(1)), "code/inference.py": b"raise SystemExit"}
    path.write_bytes(boosters.archive(members))
    status, _, err = mme("inspect", path)
    assert status == Exit.MODEL_ERROR
    assert "code/inference.py" in err
    assert mme("inspect", path, "--ignore-code")[0] == Exit.OK


@pytest.mark.parametrize(
    ("arguments", "exit", "says"),
    [
        (["../x", "--models", "."], Exit.USAGE, "path segment"),
        (["x", "--models", "gs://bucket/"], Exit.USAGE, "not supported"),
        (["nothing.tar.gz", "--models", "."], Exit.REFUSED, "does not exist"),
        (["."], Exit.MODEL_ERROR, "no regular file"),
    ],
)
def test_a_command_line_that_names_no_archive(mme: Mme, arguments: list[str], exit: Exit, says: str) -> None:
    status, _, err = mme("inspect", *arguments)
    assert status == exit
    assert says in err


def test_an_object_in_s3_by_its_address(mme: Mme, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.rig.faulty_s3 import ENVIRONMENT, FaultyS3

    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    with FaultyS3() as s3:
        s3.put("models/us/a.tar.gz", boosters.segment_archive(1))
        address = f"s3://{s3.bucket}/models/us/a.tar.gz"
        status, out, err = mme("inspect", address, "--s3-endpoint-url", s3.url)
        assert (status, err) == (Exit.OK, "")
        assert out.startswith(f"archive   {address}  ")


# -- mme convert -------------------------------------------------------------------------------------------------------


def test_an_old_archive_becomes_a_current_one_that_answers_the_same(
    mme: Mme, tmp_path: Path, stock: dict[str, bytes]
) -> None:
    entry = old_archive(stock, tmp_path / "old.tar.gz")
    out = tmp_path / "new.tar.gz"
    status, said, err = mme("convert", tmp_path / "old.tar.gz", "-o", out)
    assert (status, err) == (Exit.OK, "")
    assert said.splitlines()[-1] == f"next      mme inspect {out}"
    (member,) = read_artifact(out.read_bytes(), "new", Limits())
    assert member.name == "xgboost-model"
    booster = xgboost.Booster()
    booster.load_model(bytearray(member.data))
    load = lambda name: np.load(io.BytesIO(stock[name]))  # noqa: E731
    rows = load("probe-coded.npy" if entry["coded"] else "probe.npy")
    expected = load(f"xgboost-{entry['release']}/{entry['case']}.npy")
    answer = booster.predict(xgboost.DMatrix(rows), validate_features=False)
    np.testing.assert_allclose(answer, expected, rtol=1e-5, atol=1e-6)
    status, said, _ = mme("inspect", out, "--json")
    (facts,) = json.loads(said)["boosters"]
    assert (facts["format"], facts["corrections"]) == ("ubj", [])


def test_converting_twice_changes_nothing_and_the_bytes_are_the_same_every_time(mme: Mme, tmp_path: Path) -> None:
    path = segment(tmp_path / "a.tar.gz")
    first, second = tmp_path / "b.tar.gz", tmp_path / "c.tar.gz"
    assert mme("convert", path, "-o", first)[0] == Exit.OK
    assert mme("convert", first, "-o", second)[0] == Exit.OK
    assert first.read_bytes() == second.read_bytes()


def test_folds_keep_their_numbers(mme: Mme, tmp_path: Path) -> None:
    path = tmp_path / "folds.tar.gz"
    path.write_bytes(
        boosters.archive({f"xgboost-model-{n}": boosters.document(boosters.segment(n), "json") for n in range(2)})
    )
    assert mme("convert", path, "-o", tmp_path / "new.tar.gz")[0] == Exit.OK
    members = read_artifact((tmp_path / "new.tar.gz").read_bytes(), "new", Limits())
    assert [member.name for member in members] == ["xgboost-model-0", "xgboost-model-1"]


def test_what_is_there_is_replaced_only_by_force(mme: Mme, tmp_path: Path) -> None:
    path, out = segment(tmp_path / "a.tar.gz"), tmp_path / "b.tar.gz"
    out.write_bytes(b"mine")
    status, _, err = mme("convert", path, "-o", out)
    assert status == Exit.USAGE
    assert "--force" in err
    assert out.read_bytes() == b"mine"
    assert mme("convert", path, "-o", out, "--force")[0] == Exit.OK
    assert out.read_bytes() != b"mine"


def test_a_broken_archive_leaves_nothing_behind(mme: Mme, tmp_path: Path) -> None:
    (tmp_path / "bad").write_bytes(b"no archive")
    assert mme("convert", tmp_path / "bad", "-o", tmp_path / "out.tar.gz")[0] == Exit.MODEL_ERROR
    assert os.listdir(tmp_path) == ["bad"]


def test_a_place_that_cannot_be_written_is_told(mme: Mme, tmp_path: Path) -> None:
    path = segment(tmp_path / "a.tar.gz")
    status, _, err = mme("convert", path, "-o", tmp_path / "no" / "such" / "out.tar.gz")
    assert status == Exit.FAILED
    assert "cannot write" in err
    assert os.listdir(tmp_path) == ["a.tar.gz"]
