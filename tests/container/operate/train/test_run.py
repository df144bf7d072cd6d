"""Training runs: what comes of them, held against XGBoost itself, and that nothing but the data decides it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xgboost

from container.examine.quarantine import Quarantine
from container.operate.artifacts.archive import MEMBER
from container.operate.release import shelf
from container.operate.release.approve import approve
from container.operate.release.choice import Choice
from container.operate.release.diff import Gate, compare
from container.operate.release.live import settled
from container.operate.release.manifest import DEFAULT_KEY, Manifest
from container.operate.release.place import Place, place_at
from container.operate.release.trouble import NoneSound
from container.operate.train import fit, rows
from container.operate.train import run as running
from container.operate.train.asked import Asked
from container.operate.train.ledger import Ledger
from container.operate.train.parameters import read
from container.operate.train.rows import N_REASONS
from container.operate.train.segment import Came
from container.operate.troubles import Misused, NotNow, Refused, Stopped
from handler.archives.limits import Limits
from handler.archives.members import read_artifact
from handler.forest.booster_pool import BoosterPool
from handler.forest.packed import document_of
from handler.loading.loader import model_of
from handler.predictor import HandlePool
from handler.scoring import predict
from tests.rig.faulty_s3 import ENVIRONMENT, FaultyS3

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
csv = pytest.importorskip("pyarrow.csv")

NAMES = tuple(f"x{at}" for at in range(4))
N_SEGMENTS = 5
ROUNDS = {"num_round": "8", "max_depth": "3"}
BEGAN = datetime(2026, 11, 29, tzinfo=UTC)


def table(n_rows: int = 1500, seed: int = 0, **more: Any) -> Any:
    draw = np.random.default_rng(seed)
    x = draw.random((n_rows, len(NAMES)), np.float32)
    cities = draw.integers(0, N_SEGMENTS, n_rows)
    y = x @ np.arange(1, 5) + cities + draw.normal(0, 0.1, n_rows)
    return pa.table(
        {
            "city": pa.array([f"c{at}" for at in cities]),
            **{name: x[:, at] for at, name in enumerate(NAMES)},
            "y": y,
            **more,
        }
    )


def write(data: Any, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(data, path, row_group_size=70)
    elif path.suffix == ".csv":
        csv.write_csv(data, path)
    else:
        path.write_text("".join(json.dumps(row, default=str) + "\n" for row in data.to_pylist()))
    return path


def asked(*given: str, **more: Any) -> Asked:
    values = ROUNDS | dict(one.split("=") for one in given)
    if values.get("booster") == "gblinear":  # has no trees
        del values["max_depth"]
    return Asked(
        **{
            "target_template": "us/{city}.tar.gz",
            "label": "y",
            "parameters": read(
                None, [f"{name}={value}" for name, value in values.items()], more.pop("search", []), None
            ),
            **more,
        }
    )


def train(data: Path, to: Path | Place, what: Asked | None = None, **more: Any) -> Manifest:
    outcome = outcome_of(data, to, what, **more)
    assert outcome.manifest is not None
    return outcome.manifest


def outcome_of(data: Path, to: Path | Place, what: Asked | None = None, **more: Any) -> running.Outcome:
    place = to if isinstance(to, Place) else place_at(str(to))
    validation = (str(more.pop("validation")),) if "validation" in more else ()
    given: dict[str, Any] = {"who": "me", "stop": threading.Event(), "now": lambda: BEGAN, **more}
    return running.run(place, what or asked(), running.Sources((str(data),), validation), **given)


def document_in(place: Path, digest: str) -> bytes:
    archive = place.with_name(place.name + ".releases") / "artifacts" / f"{digest}.tar.gz"
    (member,) = read_artifact(archive.read_bytes(), "it", Limits())
    assert member.name == MEMBER
    return bytes(member.data)


def shelf_of(place: Path) -> dict[str, bytes]:
    """All that a run leaves but for its ledger."""
    root = place.with_name(place.name + ".releases")
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and not str(path.relative_to(root)).startswith("runs/") and path.name[0] != "."
    }


@pytest.fixture(scope="module")
def quarantine() -> Any:
    quarantine = Quarantine(1)
    quarantine.start()
    yield quarantine
    quarantine.close()


def endpoint_answers(quarantine: Quarantine, archive: bytes, rows: np.ndarray) -> Any:
    """As an endpoint would load and ask it."""
    examined = quarantine.examine(archive, "it")
    scorer = model_of(examined.documents[0], examined.facts[0], BoosterPool(HandlePool(), document_of))
    try:
        return predict(scorer, rows).outputs
    finally:
        scorer.close()


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
def test_a_model_is_xgboosts_own_of_the_rows_that_were_not_held_out(tmp_path: Path, suffix: str) -> None:
    data = table()
    is_held = np.arange(len(data)) % 5 == 0
    path = write(data.append_column("judge", pa.array(is_held.astype(int))), tmp_path / f"data/a{suffix}")
    manifest = train(path, tmp_path / "live", asked(holdout_column="judge"))
    assert sorted(manifest.segments) == [f"us/c{at}.tar.gz" for at in range(N_SEGMENTS)]
    x = np.stack([data.column(name).to_numpy() for name in NAMES], axis=1)
    y = data.column("y").to_numpy()
    for number in range(N_SEGMENTS):
        own = np.array(data.column("city").to_pylist()) == f"c{number}"
        learned, judging = own & ~is_held, own & is_held
        theirs = xgboost.train(
            {"max_depth": 3, "nthread": 1, "seed": 0, "objective": "reg:squarederror"},
            xgboost.DMatrix(x[learned], y[learned], feature_names=list(NAMES)),
            8,
        )
        segment = manifest.segments[f"us/c{number}.tar.gz"]
        assert document_in(tmp_path / "live", segment.digest) == bytes(theirs.save_raw("ubj"))
        answers = theirs.predict(xgboost.DMatrix(x[judging], feature_names=list(NAMES)))
        rmse = float(np.sqrt(np.mean((answers - y[judging].astype(np.float32)) ** 2)))
        assert segment.judged is not None
        assert segment.judged.candidate == pytest.approx(rmse, rel=1e-6)
        assert segment.trained is not None
        assert (segment.trained.n_rows, segment.trained.n_held_out) == (own.sum(), judging.sum())
        assert segment.features.names == NAMES
        assert segment.trained.is_above_floor


def test_the_same_data_make_the_same_bytes_however_they_lie_and_with_how_much_memory(tmp_path: Path) -> None:
    data = table()
    more = ["subsample=0.7", "colsample_bytree=0.5", "seed=3"]
    one = write(data, tmp_path / "one/a.parquet").parent
    for number in range(3):
        write(data.slice(number * 500, 500), tmp_path / f"three/{number}.parquet")
    train(one, tmp_path / "a", asked(*more))
    train(tmp_path / "three", tmp_path / "b", asked(*more), budget_bytes=1)
    a, b = (
        {name: one for name, one in shelf_of(tmp_path / place).items() if name.startswith("artifacts/")}
        for place in "ab"
    )
    assert a == b
    assert len(a) == N_SEGMENTS


def test_two_hosts_make_what_one_makes(tmp_path: Path) -> None:
    data = write(table(), tmp_path / "data/a.parquet")
    what = asked(fallback_below=10)
    train(data, tmp_path / "one", what)
    first = outcome_of(data, tmp_path / "two", what, share=running.Share(0, 2))
    assert first.manifest is None
    assert 0 < first.n_trained < N_SEGMENTS + 1
    second = outcome_of(data, tmp_path / "two", what, share=running.Share(1, 2))
    assert second.n_trained + first.n_trained == N_SEGMENTS + 1
    assert second.manifest is not None
    assert shelf_of(tmp_path / "one") == shelf_of(tmp_path / "two")


def test_a_host_that_ends_while_another_makes_the_release_finds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write(table(), tmp_path / "data/a.parquet")
    first = outcome_of(data, tmp_path / "live", share=running.Share(0, 2))
    assert first.manifest is None
    true_lines = Ledger.lines
    n_reads = 0

    def lines_late(ledger: Ledger) -> Any:
        nonlocal n_reads
        n_reads += 1
        if n_reads == 2:  # this one has trained; now the other finishes the run
            monkeypatch.setattr(Ledger, "lines", true_lines)
            outcome_of(data, tmp_path / "live", share=running.Share(0, 2))
        return true_lines(ledger)

    monkeypatch.setattr(Ledger, "lines", lines_late)
    second = outcome_of(data, tmp_path / "live", share=running.Share(1, 2))
    assert second.manifest is not None
    assert not second.is_new


def test_a_run_that_broke_off_goes_on_and_ends_with_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write(table(), tmp_path / "data/a.parquet")
    train(data, tmp_path / "whole")
    stop = threading.Event()
    true_one = running.train_segment
    n_done = 0

    def then_stop(*arguments: Any) -> Any:
        nonlocal n_done
        came = true_one(*arguments)
        n_done += 1
        if n_done == 2:
            stop.set()
        return came

    monkeypatch.setattr(running, "train_segment", then_stop)
    with pytest.raises(Stopped):
        outcome_of(data, tmp_path / "broken", stop=stop)
    assert not (tmp_path / "broken.releases/releases").exists()
    monkeypatch.setattr(running, "train_segment", true_one)
    outcome = outcome_of(data, tmp_path / "broken", who="somebody else", now=lambda: datetime(2027, 1, 1, tzinfo=UTC))
    assert outcome.n_before >= 2
    assert outcome.n_trained + outcome.n_before == N_SEGMENTS
    assert shelf_of(tmp_path / "broken") == shelf_of(tmp_path / "whole")
    again = outcome_of(data, tmp_path / "broken")
    assert (again.is_new, again.n_trained) == (False, 0)


def test_what_nothing_can_be_learned_from_is_told_and_stops_nobody(tmp_path: Path) -> None:
    data = table(600)
    few = table(10, seed=1).set_column(0, "city", pa.array(["few"] * 10))
    constant = table(100, seed=2)
    constant = constant.set_column(0, "city", pa.array(["constant"] * 100)).set_column(5, "y", pa.array([1.5] * 100))
    gaps = table(100, seed=3).set_column(0, "city", pa.array(["gaps"] * 100))
    gaps = gaps.set_column(5, "y", pa.array([None if at % 10 == 0 else float(at) for at in range(100)]))
    endless = table(100, seed=4).set_column(0, "city", pa.array(["endless"] * 100))
    endless = endless.set_column(1, "x0", pa.array(np.where(np.arange(100) == 7, np.inf, 0.5).astype(np.float32)))
    nobody = table(3, seed=5).set_column(0, "city", pa.array([None, None, "../x"], pa.string()))
    path = write(pa.concat_tables([data, few, constant, gaps, endless, nobody]), tmp_path / "data/a.parquet")
    outcome = outcome_of(path, tmp_path / "live")
    assert outcome.manifest is not None
    refused = dict(outcome.manifest.refused)
    assert "labels are missing" in refused.pop("us/gaps.tar.gz")
    assert refused == {
        "us/few.tar.gz": "8 rows to train on, fewer than 20",
        "us/constant.tar.gz": "its label is the same in all rows, 1.5",
    }
    trained = outcome.manifest.segments["us/endless.tar.gz"].trained
    assert trained is not None
    assert (trained.n_rows, trained.n_dropped) == (99, 1)
    assert sum(outcome.unplaced.values()) == 4


@pytest.mark.parametrize(
    ("objective", "labels", "says"),
    [
        ("binary:logistic", lambda y: np.ones(len(y)), "one class, 1"),
        ("binary:logistic", lambda y: np.arange(len(y)) % 3, "not 0 to 1"),
        ("count:poisson", lambda y: -np.abs(y), "XGBoost does not train on it"),
    ],
)
def test_labels_that_the_objective_cannot_have_are_told(
    tmp_path: Path, objective: str, labels: Callable[[Any], Any], says: str
) -> None:
    data = table(300)
    bad = table(200, seed=1).set_column(0, "city", pa.array(["bad"] * 200))
    bad = bad.set_column(5, "y", pa.array(labels(bad.column("y").to_numpy()).astype(float)))
    good = data.set_column(5, "y", pa.array((data.column("y").to_numpy() > 5).astype(float)))
    path = write(pa.concat_tables([good, bad]), tmp_path / "data/a.parquet")
    manifest = train(path, tmp_path / "live", asked(f"objective={objective}"))
    assert says in manifest.refused["us/bad.tar.gz"]
    assert manifest.segments


def test_the_metric_that_is_no_number_is_named(tmp_path: Path) -> None:
    data = table(300)
    labels = np.where(np.arange(300) % 3, data.column("y").to_numpy(), 0)
    path = write(data.set_column(5, "y", pa.array(labels)), tmp_path / "data/a.parquet")
    with pytest.raises(NoneSound, match=r"its mape on rows held out is no number"):
        train(path, tmp_path / "live", asked(metrics=("rmse", "mape")))


def test_rows_left_out_are_counted_under_their_own_reason_and_reasons_are_not_without_end(tmp_path: Path) -> None:
    names = [None, *(f"../{at}" for at in range(100)), None]
    nobody = table(102, seed=1).set_column(0, "city", pa.array(names, pa.string()))
    write(nobody.slice(0, 1), tmp_path / "data/a.parquet")
    write(nobody.slice(1), tmp_path / "data/b.parquet")
    write(table(), tmp_path / "data/c.parquet")
    unplaced = outcome_of(tmp_path / "data", tmp_path / "live").unplaced
    assert sum(unplaced.values()) == 102
    assert unplaced["column 'city', which tells the segment, is null"] == 2
    assert len(unplaced) == N_REASONS + 1


def test_a_full_disk_ends_a_run_with_its_place_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(table(300), tmp_path / "data/a.parquet")
    monkeypatch.setattr(rows.tempfile, "TemporaryFile", lambda **_: open("/dev/full", "w+b"))  # noqa: SIM115  closed by the run
    with pytest.raises(NotNow, match=r"mme-train-.* is full .No space left on device."):
        train(path, tmp_path / "live", asked(), budget_bytes=1)


@pytest.mark.parametrize("budget_bytes", [1, 1 << 30], ids=["on disk", "in memory"])
def test_a_segment_of_which_no_row_can_be_used_has_its_reason_and_keeps_no_release_back(
    tmp_path: Path, budget_bytes: int
) -> None:
    endless = table(100, seed=4).set_column(0, "city", pa.array(["endless"] * 100))
    endless = endless.set_column(1, "x0", pa.array(np.full(100, np.inf, np.float32)))
    path = write(pa.concat_tables([table(600), endless]), tmp_path / "data/a.parquet")
    outcome = outcome_of(path, tmp_path / "live", budget_bytes=budget_bytes)
    assert outcome.manifest is not None
    assert outcome.manifest.refused == {"us/endless.tar.gz": "none of its rows can be used"}
    again = train(path, tmp_path / "other", asked(fallback_below=20), budget_bytes=budget_bytes)
    assert again.refused["us/endless.tar.gz"] == f"{DEFAULT_KEY} answers for it: none of its rows can be used"
    alone = write(endless, tmp_path / "alone/a.parquet")
    with pytest.raises(NoneSound, match="none of its rows can be used"):
        train(alone, tmp_path / "alone live")


def test_a_name_that_xgboost_does_not_take_is_told(tmp_path: Path) -> None:
    data = table()
    path = write(data.rename_columns(["city", "x[0]", *data.column_names[2:]]), tmp_path / "data/a.parquet")
    with pytest.raises(Refused, match=r"'x\[0\]'.*--drop"):
        train(path, tmp_path / "live")
    assert train(path, tmp_path / "live", replace(asked(), drop=("x[0]",))).segments


def test_two_that_train_the_same_at_once_keep_each_others_work(tmp_path: Path) -> None:
    with closing(place_at(str(tmp_path / "live"))) as place:
        one, other = (Ledger(place.shelf, {"asked": "the same"}, "000") for _ in range(2))
        for ledger, keys in ((one, "ab"), (other, "cd")):
            assert not list(ledger.read())
            for key in keys:
                ledger.add(Came(key, None, "it is small"))
        one.flush()
        other.flush()
        assert sorted(came.key for came in one.read()) == ["a", "b", "c", "d"]


def test_small_segments_and_those_no_better_than_a_constant_are_covered_by_one_over_all(tmp_path: Path) -> None:
    noise = table(200, seed=6)
    noise = noise.set_column(0, "city", pa.array(["noise"] * 200))
    noise = noise.set_column(5, "y", pa.array(np.random.default_rng(7).normal(0, 1, 200)))
    small = table(40, seed=8).set_column(0, "city", pa.array(["small"] * 40))
    path = write(pa.concat_tables([table(), noise, small]), tmp_path / "data/a.parquet")
    manifest = train(path, tmp_path / "live", asked("max_depth=8", "num_round=40", fallback_below=50))
    assert manifest.refused["us/small.tar.gz"] == f"{DEFAULT_KEY} answers for it: 40 rows, fewer than 50"
    assert "no better than a constant's" in manifest.refused["us/noise.tar.gz"]
    default = manifest.segments[DEFAULT_KEY].trained
    assert default is not None
    assert default.n_rows == 1740


OTHERS: list[tuple[list[str], dict[str, Any], Callable[[Any], Any]]] = [
    (["objective=binary:logistic"], {"metrics": ("auc", "error")}, lambda y: (y > 6).astype(float)),
    (["objective=multi:softprob", "num_class=3"], {}, lambda y: np.clip(y // 3, 0, 2)),
    (["objective=multi:softmax", "num_class=3"], {}, lambda y: np.clip(y // 3, 0, 2)),
    (["objective=count:poisson"], {}, lambda y: np.maximum(0, y // 1)),
    (["booster=dart", "rate_drop=0.2"], {}, lambda y: y),
    (["booster=gblinear"], {}, lambda y: y),
    (["early_stopping_rounds=2", "num_round=60", "eta=0.9"], {}, lambda y: y),
    (["objective=rank:ndcg"], {"group": "query", "metrics": ("ndcg@3",)}, lambda y: np.clip(y // 2, 0, 4)),
    ([], {"weight": "w"}, lambda y: y),
]


@pytest.mark.parametrize(
    ("given", "more", "labels"), OTHERS, ids=lambda one: "-".join(one) if isinstance(one, list) else ""
)
def test_an_endpoint_answers_as_xgboost_predicts(
    tmp_path: Path, quarantine: Quarantine, given: list[str], more: dict[str, Any], labels: Callable[[Any], Any]
) -> None:
    """With missing values, and colours as words."""
    data = table(900)
    draw = np.random.default_rng(9)
    x0 = np.where(draw.random(900) < 0.2, np.nan, data.column("x0").to_numpy()).astype(np.float32)
    data = data.set_column(1, "x0", pa.array(x0))
    data = data.set_column(5, "y", pa.array(labels(data.column("y").to_numpy()).astype(float)))
    if "group" in more:
        data = data.append_column("query", pa.array([f"q{at}" for at in draw.integers(0, 60, 900)]))
    if "weight" in more:
        data = data.append_column("w", pa.array(draw.integers(1, 4, 900)))
    if "booster=gblinear" not in given:
        colours = [None if at % 11 == 0 else ("red", "green", "blue")[at % 3] for at in range(900)]
        data = data.append_column("colour", pa.array(colours))
        more = {**more, "categories": ("colour",)}
    manifest = train(write(data, tmp_path / "data/a.parquet"), tmp_path / "live", asked(*given, **more))
    assert not manifest.refused
    assert len(manifest.segments) == N_SEGMENTS
    for segment in manifest.segments.values():
        archive = tmp_path / f"live.releases/artifacts/{segment.digest}.tar.gz"
        booster = xgboost.Booster(model_file=bytearray(document_in(tmp_path / "live", segment.digest)))
        rows = draw.random((50, segment.features.n), np.float32)
        rows[::7, 1] = np.nan
        if more.get("categories"):
            assert segment.features.types[-1] == "c"
            rows[:, -1] = draw.integers(0, 3, 50)
        types = list(segment.features.types) or None
        matrix = xgboost.DMatrix(
            rows, feature_names=list(segment.features.names), feature_types=types, enable_categorical=True
        )
        ours = np.asarray(endpoint_answers(quarantine, archive.read_bytes(), rows), np.float32)
        assert ours.tobytes() == booster.predict(matrix, strict_shape=True).tobytes()
        assert segment.golden is not None
        assert segment.trained is not None
        if "early_stopping_rounds=2" in given:
            assert segment.trained.n_rounds < 60


def test_a_candidate_is_judged_beside_what_is_live_on_the_same_rows(tmp_path: Path) -> None:
    place = place_at(str(tmp_path / "live"))
    first = train(write(table(), tmp_path / "one/a.parquet"), place, asked("num_round=2"))
    approve(place, first, Gate(), Choice(), who="me")
    path = write(table(seed=1), tmp_path / "two/a.parquet")
    better = train(path, place, asked("num_round=40"))
    _, state = settled(place)
    diff = compare(better, state, shelf.Manifests(place.shelf), Gate(), Choice())
    assert diff.counts["better"] == N_SEGMENTS
    live = xgboost.Booster(model_file=bytearray(document_in(tmp_path / "live", first.segments["us/c0.tar.gz"].digest)))
    data = table(seed=1)
    own = np.array(data.column("city").to_pylist()) == "c0"
    x = np.stack([data.column(name).to_numpy() for name in NAMES], axis=1)[own]
    y = data.column("y").to_numpy()[own]
    is_held = fit.apart(None, len(y), 0.2, 0)
    answers = live.predict(xgboost.DMatrix(x[is_held], feature_names=list(NAMES)))
    judged = better.segments["us/c0.tar.gz"].judged
    assert judged is not None
    assert judged.live == pytest.approx(float(np.sqrt(np.mean((answers - y[is_held]) ** 2))), rel=1e-5)
    assert judged.against == first.segments["us/c0.tar.gz"].digest
    worse = train(path, place, asked("num_round=1"))
    assert compare(worse, state, shelf.Manifests(place.shelf), Gate(), Choice()).counts["worse"] == N_SEGMENTS


def test_drift_is_told_of_the_feature_that_moved(tmp_path: Path) -> None:
    place = place_at(str(tmp_path / "live"))
    approve(place, train(write(table(), tmp_path / "one/a.parquet"), place), Gate(), Choice(), who="me")
    data = table(seed=1)
    moved = np.where(np.array(data.column("city").to_pylist()) == "c1", 2, 0) + data.column("x2").to_numpy()
    data = data.set_column(3, "x2", pa.array(moved.astype(np.float32)))
    manifest = train(write(data, tmp_path / "two/a.parquet"), place)
    drifts = {key: one.trained.drift or 0 for key, one in manifest.segments.items() if one.trained}
    trained = manifest.segments["us/c1.tar.gz"].trained
    assert trained is not None
    assert trained.drift_feature == "x2"
    assert drifts["us/c1.tar.gz"] > 2
    assert max(drift for key, drift in drifts.items() if key != "us/c1.tar.gz") < 0.25


def test_the_best_of_a_search_is_taken_and_told(tmp_path: Path) -> None:
    path = write(table(), tmp_path / "data/a.parquet")
    manifest = train(
        path, tmp_path / "live", asked("eta=0.1", "num_round=30", search=["max_depth=1,4", "eta=0.001,0.3"])
    )
    for segment in manifest.segments.values():
        assert segment.trained is not None
        chosen = dict(segment.trained.parameters)
        assert (chosen["eta"], chosen["max_depth"]) == ("0.3", "4")


def test_a_large_segment_gets_more_threads_and_much_the_same_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(table(), tmp_path / "data/a.parquet")
    one = train(path, tmp_path / "one")
    monkeypatch.setattr(fit, "LARGE_CELLS", 1000)
    several = train(path, tmp_path / "several")
    for key, segment in several.segments.items():
        judged, alone = segment.judged, one.segments[key].judged
        assert judged is not None
        assert alone is not None
        assert judged.candidate == pytest.approx(alone.candidate, rel=1e-4)


def test_rows_of_other_files_judge(tmp_path: Path) -> None:
    path = write(table(), tmp_path / "data/a.parquet")
    apart_rows = write(table(500, seed=4), tmp_path / "validation/a.csv")
    manifest = train(path, tmp_path / "live", asked(has_validation=True), validation=apart_rows.parent)
    held = [one.trained.n_held_out for one in manifest.segments.values() if one.trained]
    assert sum(held) == 500


def test_dates_of_the_data_are_in_the_release(tmp_path: Path) -> None:
    days = [f"2026-{1 + at % 11:02}-01" for at in range(1500)]
    path = write(table(when=pa.array(days)), tmp_path / "data/a.parquet")
    manifest = train(path, tmp_path / "live", asked(date="when"))
    assert {(one.trained.first, one.trained.last) for one in manifest.segments.values() if one.trained} == {
        ("2026-01-01", "2026-11-01")
    }


def test_sagemakers_csv_has_its_label_first_and_no_names(tmp_path: Path) -> None:
    data = table()
    own = np.array(data.column("city").to_pylist())
    for number in range(2):
        part = data.filter(pa.array(own == f"c{number}")).select(["y", *NAMES])
        part_path = tmp_path / f"data/c{number}.csv"
        part_path.parent.mkdir(exist_ok=True)
        csv.write_csv(part, part_path, csv.WriteOptions(include_header=False))
    what = replace(asked(), target_template="{path}.tar.gz", is_from_path=True, has_header=False, label="0")
    manifest = train(tmp_path / "data", tmp_path / "live", what)
    assert sorted(manifest.segments) == ["c0.tar.gz", "c1.tar.gz"]
    assert {(one.features.n, one.features.names) for one in manifest.segments.values()} == {(4, ())}


def test_files_that_differ_in_format_or_folder_alone_are_all_learnt_from(tmp_path: Path) -> None:
    data = table()
    pieces = [write(data.slice(at, 500), tmp_path / name) for at, name in ((0, "1/a.csv"), (500, "1/a.parquet"))]
    pieces.append(write(data.slice(1000), tmp_path / "2/a.parquet"))
    sources = running.Sources((str(tmp_path / "1"), str(tmp_path / "2")))
    outcome = running.run(place_at(str(tmp_path / "live")), asked(), sources, who="me", stop=threading.Event())
    assert outcome.n_rows == len(data)
    twice = running.Sources((str(tmp_path / "1"), str(pieces[0])))
    with pytest.raises(Misused, match=r"1/a\.csv is there twice"):
        running.run(place_at(str(tmp_path / "live")), asked(), twice, who="me", stop=threading.Event())


def test_half_a_file_is_nobodys_model(tmp_path: Path) -> None:
    write(table(), tmp_path / "data/a.parquet")
    (tmp_path / "data/b.parquet").write_bytes(b"PAR1 and then nothing")
    with pytest.raises(Refused, match=r"b\.parquet"):
        train(tmp_path / "data", tmp_path / "live")


def test_a_column_that_is_not_there_is_told(tmp_path: Path) -> None:
    path = write(table(), tmp_path / "data/a.parquet")
    with pytest.raises(Refused, match="no column 'z'"):
        train(path, tmp_path / "live", replace(asked(), label="z"))


def test_a_column_that_is_not_there_cannot_be_dropped(tmp_path: Path) -> None:
    path = write(table(), tmp_path / "data/a.parquet")
    with pytest.raises(Refused, match="no column 'nope'"):
        train(path, tmp_path / "live", replace(asked(), drop=("x0", "nope")))


def test_in_s3_two_hosts_meet_at_the_shelf_and_make_what_a_directory_would(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(table(), tmp_path / "data/a.parquet")
    here = train(path, tmp_path / "live")
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    with FaultyS3() as s3, closing(place_at(f"s3://{s3.bucket}/live/", None, s3.url)) as place:
        s3.put("rows/a.parquet", path.read_bytes())
        sources = running.Sources((f"s3://{s3.bucket}/rows/",))
        outcomes = [
            running.run(
                place,
                asked(),
                sources,
                who="me",
                stop=threading.Event(),
                now=lambda: BEGAN,
                share=running.Share(number, 2),
            )
            for number in range(2)
        ]
        manifest = outcomes[1].manifest
        assert manifest is not None
        assert outcomes[0].manifest is None
        assert {key: one.digest for key, one in manifest.segments.items()} == {
            key: one.digest for key, one in here.segments.items()
        }
        approve(place, manifest, Gate(), Choice(), who="me")
        again = running.run(place, asked("num_round=9"), sources, who="me", stop=threading.Event(), now=lambda: BEGAN)
        assert again.manifest is not None
        assert all(one.judged and one.judged.live is not None for one in again.manifest.segments.values())


BAD_ROWS = {
    "too short": "c1,0.5",
    "a word in a number": "c1,abc,0.5,0.5,0.5,1.0",
}


@pytest.mark.parametrize("at", [1, 700, 1501], ids=["first", "between", "last"])
@pytest.mark.parametrize("bad", BAD_ROWS.values(), ids=BAD_ROWS)
def test_one_bad_row_of_a_csv_is_left_out_and_told_and_takes_no_feature_away(tmp_path: Path, bad: str, at: int) -> None:
    good = write(table(word=pa.array(["7", "no", "nor", "x"] * 375)), tmp_path / "good/a.csv")
    lines = good.read_text().splitlines()
    lines.insert(at, bad if bad == BAD_ROWS["too short"] else f"{bad},x")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad/a.csv").write_text("".join(f"{line}\n" for line in lines))
    outcome = outcome_of(tmp_path / "bad", tmp_path / "live")
    assert sum(outcome.unplaced.values()) == 1
    assert outcome.unused == ("word",)
    of_good = train(tmp_path / "good", tmp_path / "live-of-good")
    assert outcome.manifest is not None
    ours, theirs = (
        {key: (one.digest, one.trained and one.trained.n_rows) for key, one in manifest.segments.items()}
        for manifest in (outcome.manifest, of_good)
    )
    assert ours == theirs


def test_one_bad_cell_of_json_lines_takes_no_feature_away(tmp_path: Path) -> None:
    data = write(table(word=pa.array(["7"] * 1500)), tmp_path / "data/a.jsonl")
    row = {"city": "c1", "x0": "abc", "x1": 1, "x2": 1, "x3": 1, "y": 1, "word": "7"}
    data.write_text(json.dumps(row) + "\n" + data.read_text())
    outcome = outcome_of(tmp_path / "data", tmp_path / "live")
    assert outcome.unused == ("word",)
    assert sum(outcome.unplaced.values()) == 1
    assert sum(one.trained.n_rows for one in outcome.manifest.segments.values() if one.trained) == 1500  # type: ignore[union-attr]
