"""Runs whose models do not fit into memory together: the bytes of a run with room for all, and each model loaded once."""

from __future__ import annotations

import errno
import json
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from container.operate.batch import buckets, spilled, work
from container.operate.batch.asked import Asked
from container.operate.batch.buckets import Bucket
from container.operate.batch.models import RunModels
from container.operate.batch.share import Share
from container.operate.tables import spill, windows
from container.operate.troubles import NotNow, Stopped
from tests.container.operate.batch import test_run, test_words
from tests.container.operate.batch.test_run import N_MODELS, files_below, models, s3, score, table, wanted, write
from tests.rig import boosters
from tests.rig.faulty_s3 import FaultyS3, status

__all__ = ["models", "s3"]

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

CITIES: list[str | None] = ["0", "1", None, "2", "nowhere", "3", "broken"]
TIGHT = {"memory_bytes": "8000"}  # two models at most


@pytest.fixture(autouse=True)
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "MAX_WINDOW_ROWS", 77)
    monkeypatch.setattr(windows, "MIN_WINDOW_ROWS", 77)


@pytest.fixture
def spills(monkeypatch: pytest.MonkeyPatch) -> list[spilled.SpilledFiles]:
    """Of the runs of a test."""
    made: list[spilled.SpilledFiles] = []
    real = spilled.SpilledFiles.__init__

    def noted(self: spilled.SpilledFiles, *arguments: Any, **options: Any) -> None:
        real(self, *arguments, **options)
        made.append(self)

    monkeypatch.setattr(spilled.SpilledFiles, "__init__", noted)
    return made


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Of every format, with a fault of every kind."""
    folder = tmp_path / "data"
    for number, suffix in enumerate(["csv", "parquet", "jsonl", "csv"]):
        rows = table(400, number, [CITIES[(at * (number + 1)) % 7] for at in range(400)])
        write(rows, folder / f"{number}.{suffix}")
    lines = (folder / "3.csv").read_text().splitlines()
    lines[100] += ",9"
    lines[202] = lines[202].replace(lines[202].split(",")[3], "text")
    (folder / "3.csv").write_text("\n".join(lines) + "\n")
    lines = (folder / "2.jsonl").read_text().splitlines()
    lines[150] = "no JSON"
    lines[301] = json.dumps({**json.loads(lines[301]), "f2": "text"})
    (folder / "2.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def alike(models: Path, data: Path, tmp_path: Path, asked: Asked, memory: dict[str, str] | None = None) -> None:
    """A run with room for all models and one without."""
    whole = score(models, data, tmp_path / "whole", asked)
    tight = score(models, data, tmp_path / "tight", asked, flags=TIGHT if memory is None else memory)
    assert whole.summary is not None
    assert tight.summary is not None
    assert files_below(tmp_path / "tight") == files_below(tmp_path / "whole")
    assert {**tight.summary, "seconds": 0} == {**whole.summary, "seconds": 0}
    assert whole.summary["loads"] == whole.summary["segments"]


@pytest.mark.parametrize("few_cells", [0, buckets.FEW_CELLS])
@pytest.mark.parametrize(
    ("out_format", "outputs"),
    [("parquet", ()), ("jsonl", ("score", "contribs")), ("csv", ("margin", "leaf"))],
)
def test_every_fault_of_every_format_is_told_as_in_a_run_with_room(
    models: Path,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    out_format: str,
    outputs: tuple[str, ...],
    few_cells: int,
    spills: list[Any],
) -> None:
    monkeypatch.setattr(buckets, "FEW_CELLS", few_cells)
    asked = Asked(target_template="us/{city}.tar.gz", keep=("id", "city"), outputs=outputs, out_format=out_format)
    alike(models, data, tmp_path, asked)
    assert len(spills) == 1
    made: list[Bucket] = spills[0].buckets
    assert any(bucket.is_loaded for bucket in made) == bool(few_cells)
    assert sum(len(bucket.values) for bucket in made) >= N_MODELS - 2  # but for those that were there


def test_what_was_put_by_is_not_in_memory_while_the_rest_is_scored(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    n_rows = 20_000
    monkeypatch.setattr(windows, "MAX_WINDOW_ROWS", n_rows)
    monkeypatch.setattr(windows, "READ_ROWS", n_rows // 20)
    monkeypatch.setattr(buckets, "FEW_CELLS", 0)
    rows = table(n_rows, 0, ["0", "1"] + ["2", "3"] * (n_rows // 2 - 1))
    (tmp_path / "data").mkdir()
    pq.write_table(rows, tmp_path / "data/a.parquet", row_group_size=n_rows // 20)
    held: list[tuple[int, int]] = []
    real = spilled.score_groups

    def noted(window: windows.Window, *others: Any) -> Any:
        held.append((len(window.table), pa.total_allocated_bytes()))
        return real(window, *others)

    monkeypatch.setattr(spilled, "score_groups", noted)
    before = pa.total_allocated_bytes()
    assert score(models, tmp_path / "data", tmp_path / "out", flags=TIGHT).n_loads == 4
    n_at_once, n_bytes = held[0]
    assert n_at_once < n_rows / 2
    assert n_bytes - before < rows.nbytes * (n_at_once / n_rows + 0.3)


def test_where_all_models_fit_nothing_is_put_by(models: Path, data: Path, tmp_path: Path, spills: list[Any]) -> None:
    assert score(models, data, tmp_path / "out").n_loads == N_MODELS
    assert spills == []


def test_a_guess_that_was_too_low_costs_another_turn_and_no_second_load(
    models: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spills: list[Any]
) -> None:
    monkeypatch.setattr(RunModels, "guessed_bytes", lambda *_: 1.0)
    alike(models, data, tmp_path, test_run.ASKED)
    assert [bucket.is_loaded for bucket in spills[0].buckets] == [True, False]


def test_a_model_that_is_larger_than_all_room_has_it_alone(models: Path, data: Path, tmp_path: Path) -> None:
    alike(models, data, tmp_path, test_run.ASKED, {"memory_bytes": "1"})


def test_what_tells_the_segment_may_be_a_feature_too(tmp_path: Path) -> None:
    """As a number, and as the model's own word."""
    folder = tmp_path / "models"
    folder.mkdir()
    for number in range(3):
        shutil.copy(test_words.SAMPLE / "model.tar.gz", folder / f"{number}.tar.gz")
    found = pq.read_table(test_words.SAMPLE / "rows.parquet")
    names = np.arange(len(found)) % 3
    write(found.append_column("s", pa.array(names.astype(str))), tmp_path / "data/a.parquet")
    write(found.append_column("s", pa.array(names)), tmp_path / "data/b.parquet")
    for name in ("c.parquet", "d.jsonl"):
        whole = found.replace_schema_metadata().append_column("s", pa.array(names.astype(str)))
        write(
            whole.set_column(2, "n", found.column("n").combine_chunks().dictionary_encode()), tmp_path / "data" / name
        )
    alike(folder, tmp_path / "data", tmp_path, Asked(target_template="{s}.tar.gz", keep=("n",)), {"memory_bytes": "1"})


@pytest.mark.parametrize("suffix", ["parquet", "jsonl", "csv"])
def test_a_segment_that_is_a_feature_is_read_as_it_was(tmp_path: Path, suffix: str) -> None:
    for number in range(3):
        folder = tmp_path / "models"
        folder.mkdir(exist_ok=True)
        booster = boosters.train(seed=number)
        booster.feature_names = ["f0", "s", "f1", "f2", "f3", "id"]
        archive = boosters.archive({"xgboost-model": boosters.document(booster)})
        (folder / f"{number}.tar.gz").write_bytes(archive)
    rows = table(300, 1, [str(at % 3) for at in range(300)]).rename_columns({"city": "s"})
    write(rows, tmp_path / f"data/text.{suffix}")
    write(rows.set_column(1, "s", pa.array(np.arange(300) % 3)), tmp_path / f"data/number.{suffix}")
    alike(folder, tmp_path / "data", tmp_path, Asked(target_template="{s}.tar.gz", keep=("id",)), {"memory_bytes": "1"})


def test_columns_no_model_takes_are_put_by_as_they_are(models: Path, tmp_path: Path) -> None:
    rows = table(200, 1)
    inner = pa.StructArray.from_arrays([pa.array(["x", "y"] * 100).dictionary_encode()], ["k"])
    for number, column in enumerate([inner, pa.array([[1], None] * 100), pa.nulls(200)]):
        write(rows.set_column(3, "f1", column), tmp_path / f"data/{number}.parquet")
    alike(models, tmp_path / "data", tmp_path, test_run.ASKED)


def test_a_file_that_breaks_off_costs_itself_alone(models: Path, data: Path, tmp_path: Path) -> None:
    whole = (data / "1.parquet").read_bytes()
    (data / "half.parquet").write_bytes(
        whole[: len(whole) // 3] + bytes(len(whole) // 3) + whole[len(whole) * 2 // 3 :]
    )
    (data / "empty.csv").write_text("")
    (data / "header.csv").write_text("id,city,f0\n")
    write(table(100, 1).drop_columns(["id"]), data / "no_id.parquet")
    alike(models, data, tmp_path, test_run.ASKED)


def test_a_path_may_say_the_segment(models: Path, tmp_path: Path) -> None:
    for number in range(N_MODELS):
        for name in "ab":
            write(table(150, number).drop_columns(["city"]), tmp_path / f"data/us/{number}/{name}.parquet")
    asked = Asked(target_template="{folder}.tar.gz", is_from_path=True, keep=("id",))
    alike(models, tmp_path / "data", tmp_path, asked, {"memory_bytes": "1"})


def test_answers_are_xgboosts_own(models: Path, tmp_path: Path) -> None:
    datas = {str(number): table(500, number) for number in range(3)}
    for name, rows in datas.items():
        write(rows, tmp_path / f"data/{name}.parquet")
    outcome = score(models, tmp_path / "data", tmp_path / "out", flags={"memory_bytes": "1"})
    assert outcome.n_loads == N_MODELS
    for name, rows in datas.items():
        part = pq.read_table(tmp_path / f"out/rows/{name}.parquet")
        assert part.column("score").to_numpy().tobytes() == wanted(rows).tobytes()
        assert part.column("id").to_pylist() == list(range(500))


@pytest.mark.parametrize("step", ["_put_window_by", "_score_blocks", "_put_together"])
def test_a_run_that_is_stopped_goes_on_and_leaves_nothing_in_the_scratch_folder(
    models: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    score(models, data, tmp_path / "whole")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    flags = {**TIGHT, "scratch": str(scratch)}
    stop = threading.Event()
    real: Callable[..., Any] = getattr(spilled.SpilledFiles, step)
    seen: list[list[str]] = []

    def then_stopped(*arguments: Any) -> Any:
        seen.append(os.listdir(scratch))
        stop.set()
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(spilled.SpilledFiles, step, then_stopped)
        with pytest.raises(Stopped):
            score(models, data, tmp_path / "out", flags=flags, stop=stop)
    assert seen[0]  # so it is looked at where it is
    assert os.listdir(scratch) == []
    assert not (tmp_path / "out/_SUCCESS").exists()
    score(models, data, tmp_path / "out", flags=flags)
    assert os.listdir(scratch) == []
    assert files_below(tmp_path / "out") == files_below(tmp_path / "whole")


def test_two_hosts_put_by_what_is_theirs(models: Path, data: Path, tmp_path: Path) -> None:
    score(models, data, tmp_path / "one", share=Share())
    for number in range(2):
        last = score(models, data, tmp_path / "two", share=Share(number, 2), flags=TIGHT)
    assert last.summary is not None
    assert last.summary["loads"] == 2 * N_MODELS  # each host has rows of all
    assert files_below(tmp_path / "two") == files_below(tmp_path / "one")


def test_a_full_disk_ends_the_run_with_the_place_named(
    models: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(spill.os, "pwritev", full)
        with pytest.raises(NotNow, match=f"{scratch}/.* is full .No space left on device.; TMPDIR names another place"):
            score(models, data, tmp_path / "out", flags={**TIGHT, "scratch": str(scratch)})
    assert os.listdir(scratch) == []
    score(models, data, tmp_path / "out", flags=TIGHT)
    assert (tmp_path / "out/_SUCCESS").exists()


def test_room_on_the_disk_is_looked_for_before(
    models: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spill.shutil, "disk_usage", lambda _: SimpleNamespace(free=10))
    monkeypatch.setattr(work.SpilledFiles, "put_by", lambda *_: pytest.fail("there is no room"))
    with pytest.raises(NotNow, match=r"has room for 10 bytes; .* at least will be put by there"):
        score(models, data, tmp_path / "out", flags=TIGHT)


def test_a_model_that_cannot_be_had_just_now_keeps_back_the_files_that_need_it(s3: FaultyS3) -> None:
    for at, name in enumerate("abc"):
        cities: list[str | None] = [["0", "1", "2"][row % (3 if name == "b" else 2)] for row in range(150)]
        s3.put(f"data/{name}.parquet", test_run.as_bytes(table(150, at, cities)))
    s3.faults["models/us/2.tar.gz"] = status(403, "ExpiredToken")
    with pytest.raises(NotNow, match=r"1 files could not be had.*b\.parquet"):
        test_run.score_s3(s3, flags={"memory_bytes": "1"})
    assert {"out/rows/a.parquet", "out/rows/c.parquet"} < set(s3.objects)
    assert "out/rows/b.parquet" not in s3.objects
    del s3.faults["models/us/2.tar.gz"]
    outcome = test_run.score_s3(s3, flags={"memory_bytes": "1"})
    assert outcome.summary is not None
    assert (outcome.n_parts, outcome.summary["scored"]) == (1, 450)
