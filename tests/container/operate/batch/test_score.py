"""`mme score` as a shell runs it: beside the endpoint over HTTP, killed, stopped, asked for a sample."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from container.operate.exits import Exit
from container.operate.main import main
from tests.container.operate.batch.test_run import NAMES, files_below
from tests.rig import boosters
from tests.rig.command import Command
from tests.rig.endpoint import Endpoint, until

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

N_MODELS = 50
# Every output that a model of binary:logistic has.
OUTPUTS = (
    *("score", "predicted_label", "labels", "probability", "probabilities", "raw_score", "raw_scores"),
    *("margin", "contribs", "approx_contribs", "interactions", "leaf"),
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """50 models of two classes, one of three, and 1,000 rows of them in two files."""
    root: Path = tmp_path_factory.mktemp("score")
    (root / "models").mkdir()
    for number in range(N_MODELS):
        booster = boosters.train(n_rounds=1 + number % 30, seed=number, objective="binary:logistic")
        (root / f"models/{number}.tar.gz").write_bytes(boosters.archive({"xgboost-model": boosters.document(booster)}))
    (root / "data").mkdir()
    for number in range(2):
        rows = boosters.rows(500, 6, 100 + number)
        rows[::7, 2] = np.nan
        segments = np.random.default_rng(number).integers(0, N_MODELS, 500).astype(str)
        table = pa.table({"segment": segments, **{name: rows[:, at] for at, name in enumerate(NAMES)}})
        pq.write_table(table, root / f"data/{number}.parquet", row_group_size=300)
    return root


@pytest.fixture(scope="module")
def endpoint(place: Path) -> Iterator[Endpoint]:
    scratch = Path(f"/tmp/mt-{os.getpid()}-score")
    scratch.mkdir()
    with Endpoint(place / "models", scratch, "--workers", "4") as endpoint:
        yield endpoint
    scratch.rmdir()


def arguments(place: Path, out: Path, *more: str) -> list[str]:
    return [
        "score", "--models", str(place / "models"), "--data", str(place / "data"), "--segment-column", "segment",
        "--out", str(out), *more,
    ]  # fmt: skip


def test_each_output_is_the_endpoints_to_the_last_bit(
    place: Path, endpoint: Endpoint, tmp_path: Path, run: Callable[..., Command]
) -> None:
    command = run(*arguments(place, tmp_path / "out", "--output", ",".join(OUTPUTS), "--strict"))
    assert command.wait() == 0, command.trouble
    for number in range(2):
        data = pq.read_table(place / f"data/{number}.parquet").to_pylist()
        part = pq.read_table(tmp_path / f"out/rows/{number}.parquet").to_pylist()
        by_segment: dict[str, list[int]] = {}
        for at, row in enumerate(data):
            by_segment.setdefault(row["segment"], []).append(at)
        for segment, rows in by_segment.items():
            body = "\n".join(
                ",".join("" if np.isnan(data[at][name]) else repr(data[at][name]) for name in NAMES) for at in rows
            )
            reply = endpoint.post(
                f"{segment}.tar.gz", body, Accept="application/json",
                X_Amzn_SageMaker_Custom_Attributes=f"Output={'|'.join(OUTPUTS)}",
            )  # fmt: skip
            assert reply.status == 200, reply
            for at, answer in zip(rows, reply.json["predictions"], strict=True):
                for output in OUTPUTS:
                    theirs = np.array(answer[output], np.float32)
                    assert np.array(part[at][output], np.float32).tobytes() == theirs.tobytes(), (at, output)


def test_killed_again_and_again_it_ends_with_the_bytes_of_an_undisturbed_run(
    place: Path, tmp_path: Path, run: Callable[..., Command]
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    table = pq.read_table(place / "data/0.parquet")
    for number in range(12):
        pq.write_table(table, data / f"{number:02}.parquet")
    whole = arguments(place, tmp_path / "whole")
    whole[4] = str(data)
    assert run(*whole).wait() == 0
    broken = [*whole]
    broken[whole.index("--out") + 1] = str(tmp_path / "broken")
    choice = random.Random(5)
    n_killed = 0
    for _ in range(10):
        n_parts = len(list((tmp_path / "broken/ledger").glob("*.json")))
        command = run(*broken)
        more = choice.randrange(1, 3)

        def is_so_far(command: Command = command, n_wanted: int = n_parts + more) -> bool:
            done = len(list((tmp_path / "broken").glob("ledger/*.json")))
            return done >= n_wanted or not command.is_running

        until(is_so_far, 60)
        n_killed += command.is_running
        for pid in command.family():
            with contextlib.suppress(ProcessLookupError):  # it ended meanwhile
                os.kill(pid, signal.SIGKILL)
        command.wait()
    assert n_killed
    assert run(*broken).wait() == 0
    assert files_below(tmp_path / "broken") == files_below(tmp_path / "whole")


def test_a_sample_tells_what_a_run_would_meet_and_writes_nothing(
    place: Path, tmp_path: Path, run: Callable[..., Command]
) -> None:
    command = run(*arguments(place, tmp_path / "out", "--target", "{segment}.tgz", "--sample", "100", "--json"))
    assert command.wait() == 0, command.trouble
    seen = json.loads(command.output)
    assert (seen["rows"], seen["files"], seen["columns"]["f0"]) == (100, 2, "float")
    assert len(seen["missing"]) == seen["segments"]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("more", "why"),
    [
        (["--target", "x.tar.gz"], "names of columns in braces"),
        (["--target", "{town}.tar.gz"], "does not name --segment-column"),
        (["--target-from", "path"], "which of them"),
        (["--keep", "score"], "one name"),
        (["--data-format", "parquet", "--memory", "much"], "--memory"),
    ],
)
def test_what_cannot_be_understood_is_refused(
    place: Path, tmp_path: Path, run: Callable[..., Command], more: list[str], why: str
) -> None:
    command = run(*arguments(place, tmp_path / "out", *more))
    assert command.wait() == 2
    assert why in command.trouble
    assert not (tmp_path / "out").exists()


def opt_ml(root: Path, host: str, hosts: list[str], parameters: dict[str, str] | None = None) -> Path:
    """What SageMaker writes: for a Processing job, or with hyperparameters for a Training job."""
    config = root / ("config" if parameters is None else "input/config")
    config.mkdir(parents=True)
    (config / "resourceconfig.json").write_text(json.dumps({"current_host": host, "hosts": hosts}))
    if parameters is not None:
        (config / "hyperparameters.json").write_text(json.dumps(parameters))
    return root


@pytest.mark.parametrize(
    ("parameters", "why"), [({"max-errors": "few"}, "argument --max-errors: invalid int"), ({"town": "x"}, "--town=x")]
)
def test_a_job_that_cannot_be_understood_says_why_where_the_platform_looks(
    place: Path, tmp_path: Path, parameters: dict[str, str], why: str
) -> None:
    root = opt_ml(tmp_path / "ml", "algo-1", ["algo-1"], parameters)
    assert main([*arguments(place, tmp_path / "out"), "--opt-ml", str(root)]) == Exit.USAGE
    assert why in (root / "output/failure").read_text()


def copied(data: Path, to: Path) -> Path:
    """Onto another host: the same content, other dates."""
    to.mkdir()
    for number, path in enumerate(sorted(data.iterdir())):
        (to / path.name).write_bytes(path.read_bytes())
        os.utime(to / path.name, (1_000_000 + number, 1_000_000 + number))
    return to


def test_two_hosts_of_a_job_make_the_bytes_of_one(place: Path, tmp_path: Path, run: Callable[..., Command]) -> None:
    assert run(*arguments(place, tmp_path / "one")).wait() == 0
    hosts = ["algo-1", "algo-2"]
    commands = []
    for host in hosts:
        data, models = copied(place / "data", tmp_path / f"data-{host}"), copied(place / "models", tmp_path / host)
        root = opt_ml(tmp_path / f"opt-{host}", host, hosts)
        commands.append(
            run(
                "score",
                "--models",
                str(models),
                "--data",
                str(data),
                "--segment-column",
                "segment",
                "--out",
                str(tmp_path / "two"),
                "--opt-ml",
                str(root),
            )
        )
    for command in commands:
        assert command.wait() == 0, command.trouble
    whole, shared = files_below(tmp_path / "one"), files_below(tmp_path / "two")
    # The run's own file names data and models, by their content in a job and by their dates elsewhere.
    assert whole.pop("run.json") != shared.pop("run.json")
    assert shared == whole


def test_a_training_jobs_hyperparameters_are_flags(place: Path, tmp_path: Path, run: Callable[..., Command]) -> None:
    said = {
        "models": str(place / "models"), "data": str(place / "data"), "segment-column": "segment",
        "out": str(tmp_path / "out"), "strict": "true", "sagemaker_region": "eu-west-1",
    }  # fmt: skip
    command = run("score", "--opt-ml", str(opt_ml(tmp_path / "opt", "algo-1", ["algo-1"], said)))
    assert command.wait() == 0, command.trouble
    assert (tmp_path / "out/_SUCCESS").exists()


def test_a_job_that_fails_says_why_where_the_platform_looks(
    place: Path, tmp_path: Path, run: Callable[..., Command]
) -> None:
    root = opt_ml(tmp_path / "opt", "algo-1", ["algo-1"])
    command = run(*arguments(place, tmp_path / "out", "--opt-ml", str(root), "--strict", "--target", "{segment}.tgz"))
    assert command.wait() == 4
    assert (root / "output/message").read_text().startswith("1000 errors, 0 are allowed")
    assert (root / "output/failure").read_text() == (root / "output/message").read_text()
    assert not (tmp_path / "out/_SUCCESS").exists()


def test_a_signal_ends_a_run_in_time_and_it_goes_on(place: Path, tmp_path: Path, run: Callable[..., Command]) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for number in range(40):
        (data / f"{number:02}.parquet").write_bytes((place / "data/0.parquet").read_bytes())
    root = opt_ml(tmp_path / "opt", "algo-1", ["algo-1"])
    said = arguments(place, tmp_path / "out", "--opt-ml", str(root))
    said[4] = str(data)
    command = run(*said)
    until(lambda: list((tmp_path / "out").glob("ledger/*.json")) or not command.is_running, 60)
    command.signal(signal.SIGTERM)
    status = command.wait()
    assert status in (0, 130)  # it may have been done
    if status:
        assert "the same command goes on" in (root / "output/failure").read_text()
    assert run(*said).wait() == 0
    assert (tmp_path / "out/_SUCCESS").exists()
    assert len(list((tmp_path / "out/rows").iterdir())) >= 40


def test_without_pyarrow_it_says_how_to_have_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert (
        main(["score", "--models", "models", "--data", "data", "--segment-column", "s", "--out", "out"]) == Exit.USAGE
    )
    told = capsys.readouterr().err
    assert "multi-model-endpoint[arrow]" in told
    assert "build.sh image --arrow" in told
