"""The command as people and SageMaker start it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from container.operate.exits import Exit
from container.operate.main import main
from container.operate.release.figures import Conditions
from container.operate.troubles import Misused
from tests.container.operate.train.test_run import N_SEGMENTS, table, write
from tests.rig.faulty_s3 import ENVIRONMENT, FaultyS3

pa = pytest.importorskip("pyarrow")
PATIENCE_S = 60.0


def command(tmp_path: Path, *more: str) -> list[str]:
    return [
        *("train", "--data", str(tmp_path / "data"), "--segment-column", "city", "--label", "y"),
        *("--to", str(tmp_path / "live"), "--set", "num_round=5", "max_depth=3", "--opt-ml", str(tmp_path / "none")),
        *more,
    ]


def manifest_in(releases: Path) -> dict[str, Any]:
    (path,) = (releases / "releases").glob("*.json")
    found: dict[str, Any] = json.loads(path.read_bytes())
    return found


def test_it_says_what_it_did_and_the_next_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = table(word=pa.array(["x"] * 1500), when=pa.array(["2026-11-01"] * 1500))
    write(data, tmp_path / "data/a.parquet")
    assert main(command(tmp_path, "--date", "when")) == Exit.OK
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("trained   5 segments  1,500 rows")
    assert "unused    columns of words: word" in lines[1]
    assert "data      1,500 rows  2026-11-01 to 2026-11-01" in lines
    assert lines[-1].startswith("next      mme release diff ")
    assert main(["release", "diff", "--of", str(tmp_path / "live")]) == Exit.OK
    assert "new 5" in capsys.readouterr().out
    assert main(command(tmp_path, "--date", "when", "--json")) == Exit.OK
    assert json.loads(capsys.readouterr().out)["is_new"] is False


def test_of_columns_that_were_not_asked_for_nothing_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(table(word=pa.array(["x"] * 1500)), tmp_path / "data/a.parquet")
    assert main(command(tmp_path, "--features", "x0,x1")) == Exit.OK
    assert "unused" not in capsys.readouterr().out


def test_a_release_goes_live_by_itself_only_where_every_condition_holds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(table(), tmp_path / "data/a.parquet")
    assert main(command(tmp_path, "--approve-if", "worse<=1%,failed<=0")) == Exit.OK
    assert len(list((tmp_path / "live").rglob("*.tar.gz"))) == N_SEGMENTS
    live = {path.name: path.read_bytes() for path in (tmp_path / "live").rglob("*.tar.gz")}
    worse = [word if word != "num_round=5" else "num_round=1" for word in command(tmp_path)]
    assert main([*worse, "--approve-if", "worse<=1%"]) == Exit.FAILED
    assert "worse is " in capsys.readouterr().out
    assert {path.name: path.read_bytes() for path in (tmp_path / "live").rglob("*.tar.gz")} == live
    better = [word if word != "num_round=5" else "num_round=20" for word in command(tmp_path)]
    assert main([*better, "--approve-if", "worst<=0"]) == Exit.OK
    assert {path.name: path.read_bytes() for path in (tmp_path / "live").rglob("*.tar.gz")} != live


@pytest.mark.parametrize("text", ["better<=1", "worse=1", "worse<=x", "", "worse<=nan"])
def test_conditions_that_say_nothing_are_refused(text: str) -> None:
    with pytest.raises(Misused):
        Conditions.parse(text)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--holdout", "1.5"], "share between"),
        (["--group", "city"], "go together"),
        (["--metrics", "auc"], "says nothing"),
        (["--features", "x0,y"], "cannot be a feature"),
        (["--features", "x0,x1,x0"], "--features: column 'x0' is there twice"),
        (["--categories", "x0,x0"], "--categories: column 'x0' is there twice"),
        (["--target-from", "path"], "which of them"),
        (["--min-rows", "0"], "--min-rows 0"),
        (["--fallback-below", "-1"], "--fallback-below -1"),
        (["--id-file", "nowhere/id"], "--id-file nowhere/id: there is no such directory"),
    ],
)
def test_what_does_not_go_together_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], says: str
) -> None:
    assert main(command(tmp_path, *more)) == Exit.USAGE
    assert says in capsys.readouterr().err


@pytest.mark.parametrize("inside", ["", "releases"])
def test_releases_may_not_lie_among_what_endpoints_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], inside: str
) -> None:
    write(table(50), tmp_path / "data/a.parquet")
    assert main(command(tmp_path, "--releases", str(tmp_path / "live" / inside))) == Exit.USAGE
    assert "would be among what endpoints read" in capsys.readouterr().err
    assert not (tmp_path / "live").exists()


def test_rows_that_are_not_there_are_told_by_the_flag_that_named_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(table(50), tmp_path / "data/a.parquet")
    assert main(command(tmp_path, "--validation", "nowhere")) == Exit.USAGE
    assert capsys.readouterr().err == "mme train: --validation nowhere: there is no such file or directory\n"


def test_a_killed_run_goes_on_and_its_models_are_those_of_an_undisturbed_one(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    cities = pa.array([f"c{at:03}" for at in draw.integers(0, 60, 12_000)])
    write(table(12_000).set_column(0, "city", cities), tmp_path / "data/a.parquet")
    arguments = [sys.executable, "-m", "container.operate.main", *command(tmp_path), "--json"]
    arguments = [word if word != "num_round=5" else "num_round=60" for word in arguments]
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    runs = tmp_path / "live.releases/runs"
    deadline = time.monotonic() + PATIENCE_S
    while not list(runs.glob("*/done/0*")) and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    again = json.loads(subprocess.run(arguments, check=True, capture_output=True).stdout)
    assert again["n_trained"] + again["n_before"] == 60 or not again["is_new"]
    whole = [word if word != str(tmp_path / "live") else str(tmp_path / "whole") for word in arguments]
    subprocess.run(whole, check=True, capture_output=True)
    ours, theirs = (manifest_in(tmp_path / f"{name}.releases") for name in ("live", "whole"))
    assert ours["segments"] == theirs["segments"]
    assert ours["id"].rsplit("-", 1)[1] == theirs["id"].rsplit("-", 1)[1]


def test_a_bucket_that_is_not_there_and_no_credentials_are_not_to_be_tried_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    write(table(50), tmp_path / "data/a.parquet")
    with FaultyS3() as s3:
        words = [*command(tmp_path), "--s3-endpoint-url", s3.url, "--to"]
        assert main([*words, "s3://nobodys/live/"]) == Exit.REFUSED
        assert capsys.readouterr().err.strip().endswith("(NoSuchBucket): there is no such bucket")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(name)
        assert main([*words, f"s3://{s3.bucket}/live/"]) == Exit.REFUSED
        assert capsys.readouterr().err.strip().endswith("(NoCredentials): this machine has no credentials for AWS")


def opt_ml(root: Path, parameters: dict[str, str], *, hosts: int = 1, host: int = 1, sharded: bool = False) -> Path:
    """As the platform writes it."""
    config = root / "input/config"
    config.mkdir(parents=True)
    names = [f"algo-{number}" for number in range(1, hosts + 1)]
    (config / "resourceconfig.json").write_text(json.dumps({"current_host": f"algo-{host}", "hosts": names}))
    (config / "hyperparameters.json").write_text(json.dumps(parameters))
    kind = "ShardedByS3Key" if sharded else "FullyReplicated"
    (config / "inputdataconfig.json").write_text(json.dumps({"train": {"S3DistributionType": kind}}))
    return root


PARAMETERS = {
    "segment-column": "city",
    "label": "y",
    "num_round": "5",
    "max_depth": "3",
    "min_rows": "10",
    "sagemaker_program": "theirs",
    "approve-if": "failed<=0",
}


def test_as_a_training_job_it_reads_channels_and_strings_and_keeps_releases_in_checkpoints(tmp_path: Path) -> None:
    root = opt_ml(tmp_path / "ml", PARAMETERS)
    (root / "checkpoints").mkdir()
    write(table(), root / "input/data/train/a.parquet")
    write(table(300, seed=2), root / "input/data/validation/a.parquet")
    assert main(["train", "--opt-ml", str(root)]) == Exit.OK
    manifest = manifest_in(root / "checkpoints/releases")
    assert sum(one["trained"]["n_held_out"] for one in manifest["segments"].values()) == 300
    assert {tuple(one["trained"]["parameters"][0]) for one in manifest["segments"].values()} == {("max_depth", "3")}
    assert len(list((root / "model").glob("*.tar.gz"))) == N_SEGMENTS


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"max_deth": "3"}, "max_deth"),
        ({"holdout": "half"}, "hyperparameters: argument --holdout: invalid float value"),
    ],
)
def test_why_a_training_job_failed_is_where_the_platform_looks(tmp_path: Path, more: dict[str, str], says: str) -> None:
    root = opt_ml(tmp_path / "ml", {**PARAMETERS, **more})
    write(table(), root / "input/data/train/a.parquet")
    assert main(["train", "--opt-ml", str(root)]) == Exit.USAGE
    assert says in (root / "output/failure").read_text()


def test_why_nothing_of_a_training_job_went_live_is_there_too(tmp_path: Path) -> None:
    root = opt_ml(tmp_path / "ml", {**PARAMETERS, "approve-if": "worse<=-1,drift<=-2"})
    write(table(), root / "input/data/train/a.parquet")
    assert main(["train", "--opt-ml", str(root)]) == Exit.FAILED
    said = (root / "output/failure").read_text()
    assert "worse is 0, more than -1" in said
    assert "drift is 0, more than -2" in said


@pytest.mark.parametrize(("more", "says"), [({}, "in S3"), ({"to": "s3://bucket/live/"}, "FullyReplicated")])
def test_hosts_that_cannot_see_each_other_or_all_rows_are_refused(
    tmp_path: Path, more: dict[str, str], says: str
) -> None:
    root = opt_ml(tmp_path / "ml", {**PARAMETERS, **more}, hosts=2, sharded=bool(more))
    write(table(), root / "input/data/train/a.parquet")
    assert main(["train", "--opt-ml", str(root)]) == Exit.USAGE
    assert says in (root / "output/failure").read_text()


def test_sigterm_ends_a_job_soon_and_the_next_one_goes_on(tmp_path: Path) -> None:
    root = opt_ml(tmp_path / "ml", {**PARAMETERS, "num_round": "3000"})
    (root / "checkpoints").mkdir()
    write(table(5000), root / "input/data/train/a.parquet")
    arguments = [sys.executable, "-m", "container.operate.main", "train", "--opt-ml", str(root)]
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=dict(os.environ))
    deadline = time.monotonic() + PATIENCE_S
    while not list(root.glob("checkpoints/releases/runs/*/run.json")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.terminate()
    assert process.wait(PATIENCE_S) in (Exit.INTERRUPTED, Exit.OK)
    if process.returncode:
        assert "goes on" in (root / "output/failure").read_text()
