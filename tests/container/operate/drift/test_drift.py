"""`mme drift`: a segment whose calls have moved is told from one whose calls have not."""

from __future__ import annotations

import json
import shlex
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from container.capture import layout
from container.capture.lines import line
from container.operate.drift.captured import Reader, Window
from container.operate.drift.judge import judge
from container.operate.main import main
from container.operate.release.manifest import Features
from container.operate.train.profiles import Profile, profile_of
from container.operate.train.rows import Columns, SegmentRows
from handler.messages import Answer, Exchange, Request
from handler.stores.directory_writing import WritingDirectory

NAMES = ("age", "income")
N_ROWS = 400
LABELS = np.zeros(N_ROWS, np.float32)
DAY = Window(datetime.now(UTC) - timedelta(days=2), datetime.now(UTC) - timedelta(days=1))


def call(
    target: str, row: str, score: float, number: int, status: int = 200, content_type: str = "text/csv"
) -> Exchange:
    request = Request({"content-type": content_type}, row.encode(), f"id-{number}")
    return Exchange(request, Answer(status, "text/csv", str(score).encode()), target, "1", True, 0, (0, 0, 0, 0, 0))


def write(root: Path, calls: list[Exchange], ago_s: float = 60.0) -> None:
    at_s = time.time() - ago_s
    store = WritingDirectory(root, max_artifact_bytes=1 << 30)
    store.put(layout.key("e", "v", at_s, f"{ago_s}"), b"".join(line(at_s, one) for one in calls))


def rows(seed: int, shift: float = 0.0, missing: float = 0.0) -> np.ndarray:
    draw = np.random.default_rng(seed)
    values = draw.random((N_ROWS, 2), np.float32) + np.array([shift, 0], np.float32)
    values[draw.random(N_ROWS) < missing, 1] = np.nan
    return values


def csv(row: np.ndarray) -> str:
    return ",".join("" if np.isnan(value) else str(value) for value in row)


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two segments, trained and live."""
    pytest.importorskip("pyarrow")
    root = tmp_path_factory.mktemp("drift")
    (root / "live").mkdir()
    lines = ["city,age,income,y"]
    for city in ("calm", "moved"):
        for age, income in rows(1):
            lines.append(f"{city},{age},{income},{age + income}")
    (root / "data.csv").write_text("\n".join(lines) + "\n")
    arguments = [
        "--data",
        str(root / "data.csv"),
        "--segment-column",
        "city",
        "--label",
        "y",
        "--to",
        str(root / "live"),
    ]
    assert main(["train", *arguments, "--set", "num_round=3"]) == 0
    release = next(path.name for path in (root / "live.releases" / "releases").iterdir()).removesuffix(".json")
    assert main(["release", "approve", release, "--of", str(root / "live")]) == 0
    return root / "live"


def drift(capsys: pytest.CaptureFixture[str], live: Path, capture: Path, *flags: str) -> tuple[int, Any]:
    capsys.readouterr()
    status = main(["drift", "--capture", str(capture), "--of", str(live), "--json", *flags])
    return status, json.loads(capsys.readouterr().out)


def test_a_segment_that_has_moved_is_told_from_one_that_has_not(
    live: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = sorted(path.name for path in live.iterdir())
    calm, moved = keys
    calls = [call(calm, csv(row), 1.0 + row[0], at) for at, row in enumerate(rows(2))]
    calls += [call(moved, csv(row), 5.0 + row[0], 1000 + at) for at, row in enumerate(rows(3, 0.5, 0.3))]
    calls += [
        call(moved, "1,2,3", 0.0, 2000),
        call(moved, "1,2", 0.0, 2001, 424),
        call("gone.tar.gz", "1,2", 0.0, 2002),
    ]
    write(tmp_path, calls)
    write(tmp_path, [call(moved, csv(row), 1.0 + row[0], 3000 + at) for at, row in enumerate(rows(4))], ago_s=90_000.0)
    status, told = drift(capsys, live, tmp_path, "--most", "0.25")
    assert status == 1
    assert told["of_other_models"] == 1
    found = {one["key"]: one for one in told["segments"]}
    assert found[calm]["index"] < 0.1
    worst = found[moved]["features"][0]
    assert found[moved]["index"] == worst["index"] > 1.0
    assert worst["name"] == "age"
    assert worst["low"] >= 0.5
    assert worst["high"] <= 1.5
    income = next(one for one in found[moved]["features"] if one["name"] == "income")
    assert (income["missing_then"], round(income["missing"], 1)) == (0.0, 0.3)
    assert (found[moved]["n_failed"], found[moved]["n_unread"]) == (1, 1)
    assert found[moved]["score_index"] > 1.0
    assert found[calm]["score_index"] is None  # nothing was captured of it before
    assert drift(capsys, live, tmp_path, "--most", "99")[0] == 0


def test_it_prints_a_table_of_the_worst(live: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, moved = sorted(path.name for path in live.iterdir())
    write(tmp_path, [call(moved, csv(row), 1.0, at) for at, row in enumerate(rows(3, 0.5))])
    capsys.readouterr()
    assert main(["drift", "--capture", str(tmp_path), "--of", str(live)]) == 0
    out = capsys.readouterr().out
    assert "moved     1 segments by 0.25 or more" in out
    assert moved in out.splitlines()[-1]
    assert "age" in out.splitlines()[-1]


def test_scores_that_are_no_numbers_are_told_as_none(
    live: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    calm, _ = sorted(path.name for path in live.iterdir())
    write(tmp_path, [call(calm, csv(row), float("nan"), at) for at, row in enumerate(rows(2))])
    status, told = drift(capsys, live, tmp_path)
    assert status == 0
    (segment,) = told["segments"]
    assert (segment["n_rows"], segment["score_mean"]) == (N_ROWS, None)


@pytest.mark.parametrize(
    ("flags", "status"),
    [
        (["--since", "soon"], 2),
        (["--since", "999999d"], 2),
        (["--since", "9999999999d"], 2),
        (["--of", "/nowhere/at/all"], 2),
    ],
)
def test_what_cannot_be_is_said_in_one_line(
    live: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], status: int
) -> None:
    assert (
        main(["drift", "--capture", str(tmp_path), *(["--of", str(live)] if "--of" not in flags else []), *flags])
        == status
    )
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_too_few_rows_are_not_ranked() -> None:
    features, columns = Features(2, NAMES), Columns(2, NAMES)
    profile = profile_of(SegmentRows("k", rows(1), LABELS, None, None, None), columns)
    reader = Reader({"k": features}, DAY, 100)
    for at, row in enumerate(rows(3, 5.0)[:20]):
        reader._take(line(time.time(), call("k", csv(row), 1.0, at)))
    judged = judge("k", reader.seen["k"], features, profile, {0: 0, 1: 1}, 100)
    assert judged.index is None
    assert judged.features[0].index > 1


def test_a_sample_is_bounded_and_the_same_each_time() -> None:
    features = Features(2, NAMES)
    samples = []
    for _ in range(2):
        reader = Reader({"k": features}, DAY, 50)
        for at in range(2000):
            reader._take(line(time.time(), call("k", f"{at},1", 1.0, at)))
        assert 50 <= reader.seen["k"].n_rows < 50 * 12
        assert reader.seen["k"].n_calls == 2000
        samples.append(reader.seen["k"].features(2).tolist())
    assert samples[0] == samples[1]


def test_an_index_is_zero_where_nothing_has_moved_and_missing_values_count() -> None:
    values = rows(1)
    profile = profile_of(SegmentRows("k", values, LABELS, None, None, None), Columns(2, NAMES))
    assert isinstance(profile, Profile)
    from container.operate.train.profiles import index_of

    assert index_of(values[:, 0], profile, 0) == pytest.approx(0.0, abs=1e-9)
    gone = values[:, 0].copy()
    gone[: N_ROWS // 2] = np.nan
    assert index_of(gone, profile, 0) > 1.0


def label(inference_id: str, data: str) -> bytes:
    truth = {
        "groundTruthData": {"data": data, "encoding": "CSV"},
        "eventMetadata": {"eventId": inference_id},
        "eventVersion": "0",
    }
    return json.dumps(truth).encode() + b"\n"


def named(one: Exchange, inference_id: str) -> Exchange:
    headers = {**one.request.headers, "x-amzn-sagemaker-inference-id": inference_id}
    return one._replace(request=one.request._replace(headers=headers))


def test_calls_and_their_labels_become_a_table_that_train_reads(
    live: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    calm, _ = sorted(path.name for path in live.iterdir())
    values = rows(7)
    calls = [named(call(calm, csv(row), 1.0, at), f"n{at}") for at, row in enumerate(values)]
    calls += [
        named(call(calm, "0.25,\n0.5,0.75", 1.0, 1000), "two"),
        named(call(calm, "1,2", 1.0, 1001), "unknown"),
        named(call(calm, "1,2", 1.0, 1002, 424), "failed"),
        named(call("gone.tar.gz", "1,2", 1.0, 1003), "gone"),
        named(call(calm, "1,2", 1.0, 1004), "n0"),
        named(call(calm, "1,2", 1.0, 1005), "three"),
    ]
    write(tmp_path / "captured", calls)
    elsewhere = line(0.0, named(call(calm, "1,2", 1.0, 1006), "elsewhere")).replace(
        b"1970-01-01T00:00:00Z", b"2026-01-01T01:30:00+0200"
    )
    (tmp_path / "captured" / "a.jsonl").write_bytes(elsewhere)
    (tmp_path / "labels").mkdir()
    lines = [label(f"n{at}", str(row[0] + row[1])) for at, row in enumerate(values)]
    lines += [
        label("two", "1.5\n2.5"),
        label("three", "1,2,3"),
        label("failed", "1"),
        label("gone", "1"),
        b"{}\n",
        label("elsewhere", "4"),
    ]
    (tmp_path / "labels" / "truth.jsonl").write_bytes(b"".join(lines))
    places = ["--capture", str(tmp_path / "captured"), "--labels", str(tmp_path / "labels"), "--of", str(live)]
    capsys.readouterr()
    table = tmp_path / "a table.csv"
    assert main(["labelled", *places, "--out", str(table), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["rows"], told["calls"], told["broken_labels"]) == (N_ROWS + 3, N_ROWS + 2, 1)
    assert told["left_out"] == {
        "without a label": 1, "failed": 1, "of a model that is not live": 1, "asked twice under one InferenceId": 1,
        "not as many labels as rows": 1,
    }  # fmt: skip
    table_of_all = table.read_text()
    head, *written = table_of_all.splitlines()
    assert head == "segment,age,income,captured_at,label"
    assert written[-2].startswith("calm,0.25,,")
    assert written[-1].endswith(",2.5")
    assert "calm,1.0,2.0,2025-12-31T23:30:00Z,4.0" in written
    (tmp_path / "new").mkdir()
    assert main(["labelled", *places, "--out", str(table)]) == 0
    *train, at = shlex.split(capsys.readouterr().out.rpartition("next")[2])
    assert (train[0], train[-1], Path(at)) == ("mme", "--to", live)
    assert main([*train[1:], str(tmp_path / "new"), "--set", "num_round=2"]) == 0
    capsys.readouterr()
    assert main(["labelled", *places[:2], "--labels", str(tmp_path / "new"), *places[4:], "--out", str(table)]) == 1
    assert "\nnext " not in capsys.readouterr().out  # nothing to train with
    assert main(["labelled", *places, "--out", "-"]) == 0
    told = capsys.readouterr()
    assert told.out == table_of_all
    assert "\nnext " not in told.err  # nor a file to name
