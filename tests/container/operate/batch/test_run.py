"""Runs over small data and real models: whole, broken off, refused, with every fault a file may have."""

from __future__ import annotations

import inspect
import io
import json
import threading
import weakref
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import xgboost

from container import settings
from container.operate.batch import run, scoring, work
from container.operate.batch.asked import Asked
from container.operate.batch.columns import Features
from container.operate.batch.models import NoRoom, RunModels
from container.operate.batch.share import Share
from container.operate.exits import CommandFailed
from container.operate.tables import files, windows
from container.operate.tables.files import DataFile, FileUnusable
from container.operate.troubles import Misused, NotNow, Stopped
from handler.errors import ArtifactBroken
from handler.predictor import Facts
from handler.stores.store import StoredObject
from tests.rig import boosters
from tests.rig.faulty_s3 import ENVIRONMENT, FaultyS3, cut_short, status

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
csv = pytest.importorskip("pyarrow.csv")

N_MODELS = 4
NAMES = tuple(f"f{number}" for number in range(6))
ASKED = Asked(target_template="us/{city}.tar.gz", keep=("id",))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root: Path = tmp_path_factory.mktemp("models")
    (root / "us").mkdir()
    for number in range(N_MODELS):
        (root / f"us/{number}.tar.gz").write_bytes(boosters.segment_archive(number))
    (root / "us/broken.tar.gz").write_bytes(b"\x1f\x8b and no more")
    return root


def score(models: Path, data: Path | list[str], out: Path, asked: Asked = ASKED, **options: Any) -> run.Outcome:
    locations = data if isinstance(data, list) else [str(data)]
    chosen = settings.read({"models": str(models), "max_age_s": "0", **options.pop("flags", {})}, {})
    given: dict[str, Any] = {"max_errors": None, "stop": threading.Event(), **options}
    return run.run(chosen, asked, locations, str(out), **given)


def table(n_rows: int, seed: int, cities: list[str | None] | None = None) -> Any:
    rng = np.random.default_rng(seed)
    named = cities or [str(number) for number in rng.integers(0, N_MODELS, n_rows)]
    rows = boosters.rows(n_rows, 6, seed)
    return pa.table(
        {"id": np.arange(n_rows), "city": pa.array(named), **{name: rows[:, at] for at, name in enumerate(NAMES)}}
    )


def wanted(data: Any) -> np.ndarray:
    """XGBoost's own answers, row by row."""
    rows = np.stack([data.column(name).to_numpy() for name in NAMES], axis=1).astype(np.float32)
    by_model = [boosters.expected(boosters.segment(number), rows)[:, 0] for number in range(N_MODELS)]
    return np.array([by_model[int(city)][row] for row, city in enumerate(data.column("city").to_pylist())])


def write(data: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(data, path, row_group_size=70)
    elif path.suffix == ".csv":
        csv.write_csv(data, path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in data.to_pylist()))


def read_part(path: Path) -> Any:
    """id and score of each row, whatever the format."""
    if path.suffix == ".parquet":
        return pq.read_table(path)
    if path.suffix == ".csv":
        types = {"score": pa.float32(), "segment": pa.string(), "reason": pa.string()}
        return csv.read_csv(path, convert_options=csv.ConvertOptions(column_types=types, strings_can_be_null=True))
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return pa.table({name: pa.array([row[name] for row in rows]) for name in rows[0]})


def files_below(out: Path) -> dict[str, bytes]:
    """What of a run is the same each time: all but how long it took, and what a killed writer left under hidden names."""
    return {
        str(path.relative_to(out)): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file()
        and path.relative_to(out).parts[0] != "ledger"
        and path.name != "summary.json"
        and path.name[0] != "."
    }


def test_two_segments_of_one_model_load_it_once(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    for number in range(N_MODELS):
        (tmp_path / f"models/x-y-{number}.tar.gz").write_bytes(boosters.segment_archive(number))
    data = table(200, 5)
    cities = data.column("city").to_pylist()
    first = pa.array(["x-y" if at % 2 else "x" for at in range(200)])
    second = pa.array([city if at % 2 else f"y-{city}" for at, city in enumerate(cities)])
    write(data.append_column("a", first).append_column("b", second), tmp_path / "data/a.parquet")
    asked = Asked(target_template="{a}-{b}.tar.gz", keep=("id",))
    outcome = score(tmp_path / "models", tmp_path / "data", tmp_path / "out", asked)
    assert (outcome.summary["errors"], outcome.n_loads) == (0, N_MODELS)
    assert np.array_equal(read_part(tmp_path / "out/rows/a.parquet").column("score").to_numpy(), wanted(data))


@pytest.mark.parametrize("out_format", ["parquet", "csv", "jsonl"])
@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
def test_answers_are_xgboosts_own_in_the_order_of_the_rows(
    models: Path, tmp_path: Path, suffix: str, out_format: str
) -> None:
    datas = {f"a/{number}{suffix}": table(500, number) for number in range(2)}
    for name, data in datas.items():
        write(data, tmp_path / "data" / name)
    asked = Asked(target_template="us/{city}.tar.gz", keep=("id",), out_format=out_format)
    outcome = score(models, tmp_path / "data", tmp_path / "out", asked)
    assert outcome.summary is not None
    assert (outcome.summary["rows"], outcome.summary["errors"], outcome.n_loads) == (1000, 0, N_MODELS)
    assert (tmp_path / "out/_SUCCESS").exists()
    assert not (tmp_path / "out/errors").exists()
    for name, data in datas.items():
        part = read_part((tmp_path / "out/rows" / name).with_suffix(f".{out_format}"))
        assert [int(one) for one in part.column("id").to_pylist()] == list(range(500))
        scores = np.array(part.column("score").to_pylist(), np.float32)
        assert scores.tobytes() == wanted(data).astype(np.float32).tobytes()


def test_windows_groups_and_threads_change_no_bit(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = table(1000, 3)
    write(data, tmp_path / "data/a.parquet")
    monkeypatch.setattr(windows, "MAX_WINDOW_ROWS", 33)
    monkeypatch.setattr(windows, "MIN_WINDOW_ROWS", 33)
    score(models, tmp_path / "data", tmp_path / "out")
    part = pq.read_table(tmp_path / "out/rows/a.parquet")
    assert part.column("score").to_numpy().tobytes() == wanted(data).tobytes()
    assert part.column("id").to_pylist() == list(range(1000))


def test_rows_without_a_model_are_told_and_the_others_scored(models: Path, tmp_path: Path) -> None:
    cities: list[str | None] = ["0", None, "nowhere", "1", "broken", "../x", "2"]
    write(table(7, 1, cities), tmp_path / "data/a.parquet")
    outcome = score(models, tmp_path / "data", tmp_path / "out")
    assert outcome.summary is not None
    assert (outcome.summary["scored"], outcome.summary["errors"]) == (3, 4)
    assert outcome.summary["missing"] == {"us/broken.tar.gz": 1, "us/nowhere.tar.gz": 1}
    scores = pq.read_table(tmp_path / "out/rows/a.parquet").column("score").to_pylist()
    assert [score is None for score in scores] == [False, True, True, False, True, True, False]
    errors = pq.read_table(tmp_path / "out/errors/a.parquet").to_pylist()
    assert [(one["file"], one["row"], one["segment"]) for one in errors] == [
        ("a.parquet", 2, None),
        ("a.parquet", 3, "us/nowhere.tar.gz"),
        ("a.parquet", 5, "us/broken.tar.gz"),
        ("a.parquet", 6, None),
    ]
    assert "is null" in errors[0]["reason"]
    assert errors[1]["reason"] == "the segment has no model"
    assert "refused" in errors[2]["reason"]
    assert "'..'" in errors[3]["reason"]


@pytest.mark.parametrize(
    ("cell", "why"), [("abc", "'abc' is not a number"), ("inf", "infinite"), ("1e39", "too large for a float32")]
)
def test_a_cell_that_is_no_number_costs_its_row(models: Path, tmp_path: Path, cell: str, why: str) -> None:
    data = table(300, 2)
    write(data, tmp_path / "data/a.csv")
    lines = (tmp_path / "data/a.csv").read_text().splitlines()
    cells = lines[200].split(",")
    lines[200] = ",".join([*cells[:3], cell, *cells[4:]])
    (tmp_path / "data/a.csv").write_text("\n".join(lines) + "\n")
    outcome = score(models, tmp_path / "data", tmp_path / "out")
    assert outcome.summary is not None
    assert outcome.summary["errors"] == 1
    (error,) = pq.read_table(tmp_path / "out/errors/a.parquet").to_pylist()
    assert error["row"] == 200
    assert "column 'f1'" in error["reason"]
    assert why in error["reason"]
    scores = pq.read_table(tmp_path / "out/rows/a.parquet").column("score").to_pylist()
    expected = wanted(data).tolist()
    assert scores == [*expected[:199], None, *expected[200:]]


def test_a_row_that_is_too_wide_is_told_and_left_out(models: Path, tmp_path: Path) -> None:
    data = table(300, 2)
    write(data, tmp_path / "data/a.csv")
    lines = (tmp_path / "data/a.csv").read_text().splitlines()
    lines[100] += ",7"
    lines[250] = "1,2"
    (tmp_path / "data/a.csv").write_text("\n".join(lines) + "\n")
    score(models, tmp_path / "data", tmp_path / "out")
    errors = pq.read_table(tmp_path / "out/errors/a.parquet").to_pylist()
    assert [(one["row"], one["reason"]) for one in errors] == [
        (100, "the row has 9 cells, the file 8"), (250, "the row has 2 cells, the file 8"),
    ]  # fmt: skip
    part = pq.read_table(tmp_path / "out/rows/a.parquet")
    expected = wanted(data).tolist()
    assert part.column("score").to_pylist() == [*expected[:99], *expected[100:249], *expected[250:]]


@pytest.mark.parametrize("out_format", ["parquet", "csv", "jsonl"])
def test_a_file_of_no_rows_has_a_part_of_none(models: Path, tmp_path: Path, out_format: str) -> None:
    write(table(0, 1), tmp_path / "data/a.parquet")
    score(models, tmp_path / "data", tmp_path / "out", asked=replace(ASKED, out_format=out_format))
    content = (tmp_path / "out/rows" / f"a.{out_format}").read_bytes()
    assert content == {"csv": b'"id","score"\n', "jsonl": b""}.get(out_format, content)


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("b.parquet", b"PAR1 and no more", "not Parquet"),
        ("b.csv", b"", "empty"),
        ("b.jsonl", b"[1]\nnope\n", "no row of it can be read"),
        ("b.csv", b"id,town,f0\n1,2,3\n", "no column 'city'"),
        ("b.csv", b"city,f0\n1,3\n", "no column 'id' to keep"),
    ],
)
def test_a_file_that_cannot_be_scored_costs_itself(
    models: Path, tmp_path: Path, name: str, content: bytes, why: str
) -> None:
    write(table(100, 1), tmp_path / "data/a.parquet")
    (tmp_path / "data" / name).write_bytes(content)
    outcome = score(models, tmp_path / "data", tmp_path / "out", max_errors=0)
    assert outcome.summary is not None
    assert outcome.summary["scored"] == 100
    assert why in outcome.summary["failed"][name]
    assert why in pq.read_table(tmp_path / "out/errors/b.parquet").to_pylist()[0]["reason"]
    assert not (tmp_path / "out/_SUCCESS").exists()


@pytest.mark.parametrize(
    ("cities", "max_errors", "failure"),
    [
        (["nowhere"] * 20, None, "none of 20 rows was scored; --max-errors may allow it"),
        (["nowhere"] * 20, 19, "20 errors, 19 are allowed"),
        (["nowhere"] * 20, 20, ""),
        (["nowhere"] * 19 + ["1"], None, ""),
        ([], None, ""),
    ],
)
def test_a_run_that_scored_none_of_its_rows_is_a_failure_unless_that_is_allowed(
    models: Path, tmp_path: Path, cities: list[str | None], max_errors: int | None, failure: str
) -> None:
    write(table(20, 1, cities or None).slice(0, len(cities)), tmp_path / "data/a.parquet")
    outcome = score(models, tmp_path / "data", tmp_path / "out", max_errors=max_errors)
    assert outcome.failure == failure
    assert (tmp_path / "out/_SUCCESS").exists() == (failure == "")
    assert outcome.summary is not None
    assert outcome.summary["rows"] == len(cities)
    assert pq.read_table(tmp_path / "out/rows/a.parquet").num_rows == len(cities)


def test_what_is_allowed_afterwards_makes_the_same_run_a_success(models: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/a.csv").write_text("")
    assert (
        score(models, tmp_path / "data", tmp_path / "out").failure
        == "none of 0 rows was scored; --max-errors may allow it"
    )
    assert score(models, tmp_path / "data", tmp_path / "out", max_errors=1).failure == ""
    assert (tmp_path / "out/_SUCCESS").exists()


def test_a_file_that_can_be_scored_the_second_time_leaves_no_error(models: Path, tmp_path: Path) -> None:
    write(table(20, 1), tmp_path / "data/a.parquet")
    with pytest.MonkeyPatch.context() as patch:

        def fail(*_: Any, **__: Any) -> None:
            raise FileUnusable("as if it was being written")

        patch.setattr(work, "score_part", fail)
        outcome = score(models, tmp_path / "data", tmp_path / "out")
    assert outcome.summary is not None
    assert outcome.summary["failed"] == {"a.parquet": "as if it was being written"}
    outcome = score(models, tmp_path / "data", tmp_path / "out")
    assert outcome.summary is not None
    assert (outcome.summary["scored"], outcome.summary["failed"]) == (20, {})
    assert not list((tmp_path / "out/errors").iterdir())


def test_half_a_parquet_file_costs_itself(models: Path, tmp_path: Path) -> None:
    write(table(100, 1), tmp_path / "data/a.parquet")
    write(table(5000, 2), tmp_path / "data/b.parquet")
    whole = (tmp_path / "data/b.parquet").read_bytes()
    middle = len(whole) // 2
    (tmp_path / "data/b.parquet").write_bytes(whole[: middle - 200] + b"\xff" * 400 + whole[middle + 200 :])
    outcome = score(models, tmp_path / "data", tmp_path / "out")
    assert outcome.summary is not None
    assert list(outcome.summary["failed"]) == ["b.parquet"]
    assert not (tmp_path / "out/rows/b.parquet").exists()


def test_missing_columns_are_named(models: Path, tmp_path: Path) -> None:
    write(table(10, 1).drop_columns(["f5"]), tmp_path / "data/a.parquet")
    score(models, tmp_path / "data", tmp_path / "out")
    errors = pq.read_table(tmp_path / "out/errors/a.parquet").to_pylist()
    assert errors[0]["reason"] == "the model has 6 features without names, the data 5 columns for them"


def test_numbers_name_segments_as_people_write_them(models: Path, tmp_path: Path) -> None:
    data = table(4, 1, ["0", "1", "2", "3"])
    numbers = data.set_column(1, "city", pa.array([0.0, 1.0, None, 3.0]))
    write(numbers, tmp_path / "data/a.parquet")
    outcome = score(models, tmp_path / "data", tmp_path / "out")
    assert outcome.summary is not None
    assert (outcome.summary["scored"], outcome.summary["errors"]) == (3, 1)


def test_the_path_may_say_the_segment(models: Path, tmp_path: Path) -> None:
    data = table(50, 1, ["2"] * 50)
    write(data.drop_columns(["city"]), tmp_path / "data/us/2.parquet")
    asked = Asked(target_template="{path}.tar.gz", is_from_path=True, keep=("id",))
    score(models, tmp_path / "data", tmp_path / "out", asked)
    part = pq.read_table(tmp_path / "out/rows/us/2.parquet")
    assert part.column("score").to_numpy().tobytes() == wanted(data).tobytes()


def test_a_manifest_names_the_files(models: Path, tmp_path: Path) -> None:
    for name in "abc":
        write(table(20, 1), tmp_path / f"data/{name}.parquet")
    manifest = tmp_path / "data.manifest"
    manifest.write_text(json.dumps([{"prefix": f"{tmp_path}/data/"}, "a.parquet", "c.parquet"]))
    outcome = score(models, [str(manifest)], tmp_path / "out")
    assert outcome.summary is not None
    assert (outcome.summary["files"], outcome.summary["rows"]) == (2, 40)
    manifest.write_text(json.dumps([{"prefix": f"{tmp_path}/data/"}, "a.parquet", "d.parquet"]))
    with pytest.raises(Misused, match=r"d\.parquet does not exist"):
        score(models, [str(manifest)], tmp_path / "out2")
    manifest.write_text('{"a": 1}')
    with pytest.raises(Misused, match="is no manifest"):
        score(models, [str(manifest)], tmp_path / "out2")


def test_csv_without_a_header_goes_by_order(models: Path, tmp_path: Path) -> None:
    data = table(60, 4)
    (tmp_path / "data").mkdir()
    csv.write_csv(data, tmp_path / "data/a.csv", csv.WriteOptions(include_header=False))
    asked = Asked(target_template="us/{1}.tar.gz", keep=("0",), has_header=False)
    score(models, tmp_path / "data", tmp_path / "out", asked)
    part = pq.read_table(tmp_path / "out/rows/a.parquet")
    assert part.column("score").to_numpy().tobytes() == wanted(data).tobytes()


def test_a_run_that_was_stopped_goes_on_and_ends_with_the_same_bytes(models: Path, tmp_path: Path) -> None:
    for number in range(6):
        write(table(200, number), tmp_path / f"data/{number}.parquet")
    score(models, tmp_path / "data", tmp_path / "whole")
    stop = threading.Event()
    real = work.score_part

    def until_three(file: files.DataFile, *arguments: Any, **options: Any) -> Any:
        if file.name == "3.parquet":
            stop.set()
        return real(file, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(work, "score_part", until_three)
        with pytest.raises(Stopped):
            score(models, tmp_path / "data", tmp_path / "out", stop=stop)
    assert not (tmp_path / "out/_SUCCESS").exists()
    assert not (tmp_path / "out/rows/3.parquet").exists()
    outcome = score(models, tmp_path / "data", tmp_path / "out")
    assert outcome.n_done_before >= 2
    assert files_below(tmp_path / "out") == files_below(tmp_path / "whole")


def test_a_signal_is_seen_between_pieces_of_a_group_whose_rows_take_long(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop, lengths = threading.Event(), []

    def explained(model: Any, rows: np.ndarray, *rest: Any) -> Any:
        lengths.append(len(rows))
        if len(rows) > 1:  # one is a look at which columns the answers have
            stop.set()
        return predict(model, rows, *rest)

    predict = scoring.predict
    monkeypatch.setattr(scoring, "MAX_PIECE_ROWS", 10)
    write(table(100, 1, ["1"] * 100), tmp_path / "data/a.parquet")
    asked = Asked(target_template="us/{city}.tar.gz", outputs=("contribs",))
    score(models, tmp_path / "data", tmp_path / "whole", asked)
    monkeypatch.setattr(scoring, "predict", explained)
    with pytest.raises(Stopped):
        score(models, tmp_path / "data", tmp_path / "out", asked, stop=stop)
    assert lengths == [1, 10]
    monkeypatch.undo()
    score(models, tmp_path / "data", tmp_path / "out", asked)
    assert (tmp_path / "out/rows/a.parquet").read_bytes() == (tmp_path / "whole/rows/a.parquet").read_bytes()


def test_a_file_is_never_in_memory_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "MAX_WINDOW_ROWS", 10_000)
    draw = np.random.default_rng(0)
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({name: draw.random(300_000) for name in "ab"}), path, row_group_size=10_000)
    before = most = pa.total_allocated_bytes()
    for _ in windows.windows(path, DataFile("a.parquet", 1, "1", str(tmp_path), "parquet"), ASKED):
        most = max(most, pa.total_allocated_bytes())
    assert most - before < path.stat().st_size / 4


@pytest.mark.parametrize(("suffix", "is_whole"), [("parquet", True), ("csv", True), ("csv", False), ("jsonl", True)])
def test_a_window_is_gone_when_whoever_asked_for_it_lets_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, *, is_whole: bool
) -> None:
    monkeypatch.setattr(windows, "MAX_WINDOW_ROWS", 1000)
    monkeypatch.setattr(windows, "MIN_WINDOW_ROWS", 1000)
    monkeypatch.setattr(windows, "CSV_BLOCK_BYTES", 4096)
    path = tmp_path / f"a.{suffix}"
    write(table(4000, 1), path)
    if not is_whole:  # from some row on all cells are read as text
        lines = path.read_text().splitlines()
        lines[2500] += ",9"
        path.write_text("\n".join(lines) + "\n")
    n_rows = 0
    found: Any = windows.windows(path, DataFile(path.name, path.stat().st_size, "1", str(tmp_path), suffix), ASKED)
    for window in found:
        if isinstance(window, windows.Window):
            n_rows += len(window.table)
            table_of = weakref.ref(window.table)
            del window
            assert table_of() is None
            held = inspect.getgeneratorlocals(found).values()
            assert max((len(one) for one in held if isinstance(one, list)), default=0) < 100  # no rows
    assert n_rows == 4000 - (not is_whole)


def test_a_window_is_held_by_nobody_but_whoever_asked_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "MAX_WINDOW_ROWS", 25_000)
    monkeypatch.setattr(windows, "READ_ROWS", 2000)
    path = tmp_path / "a.parquet"
    draw = np.random.default_rng(0)
    whole = pa.table({name: draw.random(200_000) for name in "abcd"})
    pq.write_table(whole, path, row_group_size=2000)  # a window ends in the middle of one
    found = windows.windows(path, DataFile("a.parquet", 1, "1", str(tmp_path), "parquet"), ASKED)
    seen, first = [], 1
    before = pa.total_allocated_bytes()
    for window in found:
        assert isinstance(window, windows.Window)
        assert window.numbers.tolist() == list(range(first, first + len(window.table)))
        assert window.table.equals(whole.slice(first - 1, len(window.table)))
        first += len(window.table)
        seen.append(len(window.table))
        n_bytes = window.table.nbytes
        del window
        assert pa.total_allocated_bytes() - before <= n_bytes / 2  # the reader's, and the rest of a row group
    assert seen == [25_000] * 8


def test_a_signal_is_seen_while_models_are_waited_for() -> None:
    """A window may name thousands of segments, whose models come one after the other from far away."""
    asked, may_go, stop = threading.Event(), threading.Event(), threading.Event()

    class FarAway:
        def prepare_kept(self, targets: Sequence[str]) -> Any:
            return [None] * len(targets)

        def prepare_all(self, targets: Sequence[str]) -> Any:
            asked.set()
            may_go.wait(60)
            return [ArtifactBroken(target, "too late") for target in targets]

        def prepare_if_changed(self, target: str, version: str) -> Any:
            raise AssertionError

    def check() -> None:
        if stop.is_set():
            raise Stopped("stopped")

    with ThreadPoolExecutor(2) as threads:
        models = RunModels(FarAway(), {"a": StoredObject("a", 1, "1")}, threads, 1 << 20, "far/")
        models.check = check
        waiting = threads.submit(models.model, "a")
        assert asked.wait(30)
        stop.set()
        with pytest.raises(Stopped):
            waiting.result(30)
        may_go.set()


def test_what_finds_no_room_is_not_examined_for_nothing() -> None:
    class Counting:
        def __init__(self) -> None:
            self.asked: list[str] = []

        def prepare_kept(self, targets: Sequence[str]) -> Any:
            return [None] * len(targets)

        def prepare_all(self, targets: Sequence[str]) -> Any:
            self.asked += targets
            return [
                SimpleNamespace(version="1", n_bytes=100, load=lambda: SimpleNamespace(close=lambda: None))
                for _ in targets
            ]

        def prepare_if_changed(self, target: str, version: str) -> Any:
            raise AssertionError

    artifacts = {str(number): StoredObject(str(number), 10, "1") for number in range(50)}
    loader = Counting()
    with ThreadPoolExecutor(1) as threads:
        models = RunModels(loader, artifacts, threads, 1000, "")
        models.request(artifacts)
        outcomes = [models.model(target) for target in artifacts]
        assert (models.n_loads, sum(isinstance(one, NoRoom) for one in outcomes)) == (10, 40)
        assert len(loader.asked) == 11  # and one which found that there is no room
        assert models.guessed_bytes("3") == 100
        others = models.others(500)
        models.let_go()
        assert [isinstance(others.model(target), NoRoom) for target in list(artifacts)[:11]] == [False] * 5 + [True] * 6


def test_what_is_kept_on_disk_is_loaded_by_whoever_asks_and_the_rest_by_others() -> None:
    by: dict[str, str] = {}

    class Keeping:
        """Even ones on disk, and of every third an older version, which is not taken."""

        def prepare_kept(self, targets: Sequence[str]) -> Any:
            return [
                None if int(target) % 2 else prepared(target) if int(target) % 3 else SimpleNamespace(version="0")
                for target in targets
            ]

        def prepare_all(self, targets: Sequence[str]) -> Any:
            return [prepared(target) for target in targets]

        def prepare_if_changed(self, target: str, version: str) -> Any:
            raise AssertionError

    def prepared(target: str) -> Any:
        assert by.setdefault(target, threading.current_thread().name) == threading.current_thread().name
        return SimpleNamespace(version="1", n_bytes=1, load=lambda: target)

    artifacts = {str(number): StoredObject(str(number), 10, "1") for number in range(400)}
    with ThreadPoolExecutor(2, thread_name_prefix="loader") as loaders, ThreadPoolExecutor(2) as askers:
        models = RunModels(Keeping(), artifacts, loaders, 1000, "")

        def ask(_: int) -> list[Any]:
            models.request(artifacts)
            return [models.model(target) for target in artifacts]

        assert list(askers.map(ask, range(2))) == [list(artifacts)] * 2
    assert (models.n_loads, len(by)) == (400, 400)
    assert {target for target, thread in by.items() if thread.startswith("loader")} == {
        target for target in artifacts if int(target) % 2 or int(target) % 3 == 0
    }
    assert not models.is_all_kept


def test_whoever_waits_for_what_another_reads_hears_why_it_did_not() -> None:
    class Stopping:
        def prepare_kept(self, targets: Sequence[str]) -> Any:
            raise Stopped("stopped")

        def prepare_all(self, targets: Sequence[str]) -> Any:
            raise AssertionError

        prepare_if_changed = prepare_all

    with ThreadPoolExecutor(1) as threads:
        models = RunModels(Stopping(), {"a": StoredObject("a", 1, "1")}, threads, 1 << 20, "")
        with pytest.raises(Stopped):
            models.request(["a"])
        with pytest.raises(Stopped):
            models.model("a")
        models.let_go()


def test_two_hosts_make_the_same_bytes_as_one(models: Path, tmp_path: Path) -> None:
    for number in range(5):
        write(table(100, number), tmp_path / f"data/{number}.parquet")
    score(models, tmp_path / "data", tmp_path / "one", share=Share())
    first = score(models, tmp_path / "data", tmp_path / "two", share=Share(0, 2))
    assert first.summary is None
    assert not (tmp_path / "two/_SUCCESS").exists()
    second = score(models, tmp_path / "data", tmp_path / "two", share=Share(1, 2))
    assert second.summary is not None
    assert (first.n_parts, second.n_parts) == (3, 2)
    assert files_below(tmp_path / "two") == files_below(tmp_path / "one")


@pytest.mark.parametrize("what", ["data", "models", "options"])
def test_another_run_in_the_same_place_is_refused(models: Path, tmp_path: Path, what: str) -> None:
    write(table(10, 1), tmp_path / "data/a.parquet")
    (tmp_path / "models/us").mkdir(parents=True)
    (tmp_path / "models/us/0.tar.gz").write_bytes(boosters.segment_archive(0))
    score(tmp_path / "models", tmp_path / "data", tmp_path / "out")
    asked = ASKED
    if what == "data":
        write(table(10, 2), tmp_path / "data/a.parquet")
    elif what == "models":
        (tmp_path / "models/us/0.tar.gz").write_bytes(boosters.segment_archive(1))
    else:
        asked = Asked(target_template="us/{city}.tar.gz")
    with pytest.raises(Misused, match=f"a run of other {what}"):
        score(tmp_path / "models", tmp_path / "data", tmp_path / "out", asked)


def test_the_place_of_a_run_may_not_lie_among_its_data(models: Path, tmp_path: Path) -> None:
    write(table(10, 1), tmp_path / "data/a.parquet")
    with pytest.raises(Misused, match="below the other"):
        score(models, tmp_path / "data", tmp_path / "data/out")


def test_files_that_would_have_one_part_are_refused(models: Path, tmp_path: Path) -> None:
    write(table(10, 1), tmp_path / "data/a.parquet")
    write(table(10, 1), tmp_path / "data/a.csv")
    with pytest.raises(CommandFailed, match="the same part a") as told:
        score(models, tmp_path / "data", tmp_path / "out")
    assert str(told.value).startswith(f"{tmp_path}/data/a.csv and {tmp_path}/data/a.parquet ")


EXPLAINED = {
    "margin": "output_margin",
    "contribs": "pred_contribs",
    "leaf": "pred_leaf",
    "interactions": "pred_interactions",
}


def test_columns_named_as_xgboost_names_features_go_by_name_whatever_their_order(models: Path, tmp_path: Path) -> None:
    data = table(50, 1)
    write(data.select(["f3", "id", "f0", "city", "f5", "f1", "f4", "f2"]), tmp_path / "data/a.parquet")
    asked = Asked(target_template="us/{city}.tar.gz")
    score(models, tmp_path / "data", tmp_path / "out", asked)
    part = pq.read_table(tmp_path / "out/rows/a.parquet")
    assert part.column("score").to_numpy().tobytes() == wanted(data).tobytes()


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_what_is_written_as_text_is_no_number(models: Path, tmp_path: Path, suffix: str) -> None:
    data = table(4, 1)
    write(data.set_column(4, "f2", pa.array(["1", None, "x", "0.5"])), tmp_path / f"data/a{suffix}")
    outcome = score(models, tmp_path / "data", tmp_path / "out")
    assert outcome.summary is not None
    assert outcome.summary["errors"] == 3
    errors = pq.read_table(tmp_path / "out/errors/a.parquet").to_pylist()
    assert [one["row"] for one in errors] == [1, 3, 4]
    assert all("'f2'" in one["reason"] and "is not a number" in one["reason"] for one in errors)


def test_a_number_that_is_the_code_of_no_category_is_found() -> None:
    facts = Facts("reg:squarederror", "gbtree", 2, 1, 1, categories=((1, ("red", "green", "blue")),))
    rows = np.array([[9, 0], [9, 2], [9, 3], [9, 0.5], [9, -1], [9, np.nan]], np.float32)
    assert Features.odd_codes(rows, facts).tolist() == [False, False, True, True, True, False]


def test_categories_are_scored_by_their_codes(tmp_path: Path) -> None:
    rows = np.stack([np.arange(60) % 3, np.arange(60) / 60], axis=1).astype(np.float32)
    matrix = xgboost.DMatrix(rows, rows.sum(axis=1), feature_names=["c", "x"], feature_types=["c", "q"])
    booster = xgboost.train({"nthread": 1, "max_depth": 3, "max_cat_to_onehot": 1}, matrix, 5)
    (tmp_path / "models").mkdir()
    (tmp_path / "models/m.tar.gz").write_bytes(boosters.archive({"xgboost-model": boosters.document(booster)}))
    write(pa.table({"x": rows[:, 1], "s": ["m"] * 60, "c": rows[:, 0]}), tmp_path / "data/a.parquet")
    score(tmp_path / "models", tmp_path / "data", tmp_path / "out", Asked(target_template="{s}.tar.gz"))
    scores = pq.read_table(tmp_path / "out/rows/a.parquet").column("score")
    assert scores.to_numpy().tobytes() == booster.predict(matrix).tobytes()


@pytest.mark.parametrize("out_format", ["parquet", "csv", "jsonl"])
def test_lists_stand_beside_their_rows_in_every_format(models: Path, tmp_path: Path, out_format: str) -> None:
    cities: list[str | None] = ["1", "nowhere", "2"] * 10
    data = table(30, 1, cities)
    write(data, tmp_path / "data/a.parquet")
    asked = Asked(target_template="us/{city}.tar.gz", keep=("id",), outputs=tuple(EXPLAINED), out_format=out_format)
    score(models, tmp_path / "data", tmp_path / "out", asked)
    part = read_part(tmp_path / f"out/rows/a.{out_format}")
    rows = np.stack([data.column(name).to_numpy() for name in NAMES], axis=1)
    for output, flag in EXPLAINED.items():
        cells = part.column(output).to_pylist()
        if out_format == "csv" and output != "margin":
            cells = [json.loads(cell) if cell else None for cell in cells]
        for row, city in enumerate(cities):
            if city == "nowhere":
                assert cells[row] is None
            else:
                matrix = xgboost.DMatrix(rows[row : row + 1])
                expected = boosters.segment(int(city or "")).predict(matrix, **{flag: True})
                np.testing.assert_array_equal(np.array(cells[row], np.float32), expected[0].astype(np.float32))


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyS3]:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    with FaultyS3() as s3:
        for number in range(N_MODELS):
            s3.put(f"models/us/{number}.tar.gz", boosters.segment_archive(number))
        yield s3


def as_bytes(data: Any) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(data, sink)
    return bytes(sink.getvalue().to_pybytes())


def score_s3(s3: FaultyS3, **options: Any) -> run.Outcome:
    flags = {
        "models": f"s3://{s3.bucket}/models/",
        "endpoint_url": s3.url,
        "max_age_s": "0",
        **options.pop("flags", {}),
    }
    chosen = settings.read(flags, {})
    given: dict[str, Any] = {"max_errors": None, "stop": threading.Event(), **options}
    return run.run(chosen, ASKED, [f"s3://{s3.bucket}/data/"], f"s3://{s3.bucket}/out/", **given)


def test_models_data_and_parts_may_all_be_in_s3(s3: FaultyS3) -> None:
    datas = {name: table(200, at) for at, name in enumerate("ab")}
    for name, data in datas.items():
        s3.put(f"data/{name}.parquet", as_bytes(data))
    # A body that breaks off is fetched anew.
    s3.faults["data/a.parquet"] = cut_short(after_bytes=1000, times=1)
    outcome = score_s3(s3)
    assert outcome.summary is not None
    assert (outcome.summary["scored"], outcome.summary["errors"]) == (400, 0)
    assert "out/_SUCCESS" in s3.objects
    for name, data in datas.items():
        part = pq.read_table(io.BytesIO(s3.objects[f"out/rows/{name}.parquet"]))
        assert part.column("score").to_numpy().tobytes() == wanted(data).tobytes()


@pytest.mark.parametrize("key", ["data/b.parquet", "models/us/2.tar.gz"])
def test_while_s3_refuses_nothing_is_lost_and_the_same_command_goes_on(s3: FaultyS3, key: str) -> None:
    for at, name in enumerate("abc"):
        cities: list[str | None] = ["2" if name == "b" else "1"] * 50
        s3.put(f"data/{name}.parquet", as_bytes(table(50, at, cities)))
    s3.faults[key] = status(403, "ExpiredToken")
    with pytest.raises(NotNow, match=r"1 files could not be had.*b\.parquet"):
        score_s3(s3)
    assert "out/rows/a.parquet" in s3.objects
    assert "out/rows/c.parquet" in s3.objects
    assert "out/_SUCCESS" not in s3.objects
    del s3.faults[key]
    outcome = score_s3(s3)
    assert outcome.n_parts == 1
    assert outcome.summary is not None
    assert outcome.summary["scored"] == 150


def test_a_model_that_is_overwritten_while_a_run_lasts_ends_it(s3: FaultyS3, monkeypatch: pytest.MonkeyPatch) -> None:
    s3.put("data/a.parquet", as_bytes(table(50, 1)))
    real = run.Models.__init__

    def then_overwritten(*arguments: Any) -> None:
        real(*arguments)
        s3.put("models/us/2.tar.gz", boosters.segment_archive(3))

    monkeypatch.setattr(run.Models, "__init__", then_overwritten)
    with pytest.raises(Misused, match="was overwritten after the run began"):
        score_s3(s3)
    assert "out/rows/a.parquet" not in s3.objects
