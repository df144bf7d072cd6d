"""From artifacts to a candidate release, with the examiner's real process and real boosters; golden rows asked of a model."""

from __future__ import annotations

import json
import shlex
import tarfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import xgboost

from container.examine.quarantine import Quarantine
from container.operate.exits import Exit
from container.operate.main import main
from container.operate.release import publish, shelf, sources
from container.operate.release.manifest import Golden, Manifest
from container.operate.release.publish import Published
from container.operate.release.trouble import NoneSound
from container.operate.release.verify import agrees
from container.operate.troubles import Misused, Refused
from handler.archives.limits import Limits
from handler.payload import decode
from tests.rig import boosters
from tests.rig.faulty_s3 import FaultyS3
from tests.rig.shop import Shop

ROOT = Path(__file__).parents[4]
LIMITS = Limits()


@pytest.fixture(scope="module")
def quarantine() -> Iterator[Quarantine]:
    quarantine = Quarantine(3)
    quarantine.start()
    yield quarantine
    quarantine.close()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Three sound artifacts of different formats, below us/ and eu/."""
    root = tmp_path / "models"
    (root / "us").mkdir(parents=True)
    (root / "eu").mkdir()
    (root / "us/Houston.ubj").write_bytes(boosters.document(boosters.segment(0)))
    (root / "us/Dallas.json").write_bytes(boosters.document(boosters.segment(1), "json"))
    (root / "eu/Hull.tar.gz").write_bytes(boosters.segment_archive(2))
    return root


Publish = Callable[..., Published]


@pytest.fixture
def published(shop: Shop, quarantine: Quarantine) -> Publish:
    def go(*paths: str | Path, as_key: str | None = None) -> Published:
        names = [str(path) for path in paths]
        found = sources.find(names, as_key, LIMITS, shop.place.endpoint_url)
        return publish.publish(shop.place, found, quarantine, n_at_once=3, made_by="ann", made_from=names, note="try")

    return go


def test_artifacts_of_any_format_are_a_candidate_under_their_keys(shop: Shop, source: Path, published: Publish) -> None:
    done = published(source)
    assert sorted(done.manifest.segments) == ["eu/Hull.tar.gz", "us/Dallas.tar.gz", "us/Houston.tar.gz"]
    assert (done.n_uploaded, done.is_new) == (3, True)
    assert shop.live() == {}
    assert shelf.newest(shop.place.shelf) == done.manifest
    segment = done.manifest.segments["us/Houston.tar.gz"]
    assert (segment.objective, segment.features.n) == ("reg:squarederror", 6)
    assert segment.source == str(source / "us/Houston.ubj")


def test_what_goes_on_the_shelf_is_the_current_format_and_answers_alike(
    shop: Shop, source: Path, published: Publish, quarantine: Quarantine
) -> None:
    segment = published(source).manifest.segments["us/Dallas.tar.gz"]
    data = shop.place.shelf.fetch(shelf.artifact_key(segment.digest)).data
    assert (shelf.digest_of(data), len(data)) == (segment.digest, segment.n_bytes)
    examined = quarantine.examine(data, "x", wants_origins=True)
    assert [origin.stated.format for origin in examined.origins] == ["ubj"]
    again = xgboost.Booster()
    again.load_model(bytearray(examined.documents[0]))
    x = boosters.rows(20, 6)
    assert np.array_equal(boosters.expected(again, x), boosters.expected(boosters.segment(1), x))


def test_a_second_run_uploads_nothing_and_makes_no_other_release(
    shop: Shop, source: Path, published: Publish, quarantine: Quarantine, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = published(source)
    monkeypatch.setattr(quarantine, "examine", None)  # nor is anything looked into again
    second = published(source)
    assert (second.n_uploaded, second.is_new, second.manifest) == (0, False, first.manifest)
    assert shelf.release_ids(shop.place.shelf) == [first.manifest.id]


def test_of_releases_made_within_a_second_the_last_one_is_the_newest(
    shop: Shop, source: Path, published: Publish
) -> None:
    for number in range(4):
        (source / "us/Houston.ubj").write_bytes(boosters.document(boosters.segment(10 + number)))
        made = published(source).manifest
        assert shelf.newest(shop.place.shelf).id == made.id


@pytest.mark.parametrize(
    ("there", "made"),
    [
        ([], "20261129-213503-aaaaaaaa"),
        (["20261129-213502-ffffffff"], "20261129-213503-aaaaaaaa"),
        (["20261129-213503-ffffffff", "20261129-213503-00000000"], "20261129-213504-aaaaaaaa"),
        (["20261231-235959-ffffffff"], "20270101-000000-aaaaaaaa"),  # by a clock that is ahead
        (["99999999-999999-ffffffff"], "20261129-213503-aaaaaaaa"),
    ],
)
def test_an_id_sorts_behind_those_that_are_there(there: list[str], made: str) -> None:
    assert shelf.new_id(datetime(2026, 11, 29, 21, 35, 3, tzinfo=UTC), "aaaaaaaa", there) == made


def test_one_retrained_segment_uploads_one_artifact(shop: Shop, source: Path, published: Publish) -> None:
    first = published(source)
    (source / "us/Houston.ubj").write_bytes(boosters.document(boosters.segment(7)))
    second = published(source)
    assert (second.n_uploaded, second.is_new) == (1, True)
    assert second.manifest.id != first.manifest.id


def test_refused_artifacts_are_listed_and_stop_nobody(source: Path, published: Publish) -> None:
    (source / "us/nothing.tar.gz").write_bytes(b"no archive")
    code = boosters.archive(
        {"xgboost-model": boosters.document(boosters.segment(1)), "code/inference.py": b"import os"}
    )
    (source / "us/code.tar.gz").write_bytes(code)
    newer = json.loads(boosters.document(boosters.segment(1), "json")) | {"version": [99, 0, 0]}
    (source / "us/newer.json").write_text(json.dumps(newer))
    manifest = published(source).manifest
    assert len(manifest.segments) == 3
    assert sorted(manifest.refused) == ["us/code.tar.gz", "us/newer.tar.gz", "us/nothing.tar.gz"]
    assert "code" in manifest.refused["us/code.tar.gz"]
    assert "99" in manifest.refused["us/newer.tar.gz"]


def test_of_two_artifacts_for_one_key_neither_is_taken(source: Path, published: Publish) -> None:
    (source / "us/Houston.tar.gz").write_bytes(boosters.segment_archive(5))
    manifest = published(source).manifest
    assert sorted(manifest.segments) == ["eu/Hull.tar.gz", "us/Dallas.tar.gz"]
    assert "2 artifacts for one key" in manifest.refused["us/Houston.tar.gz"]
    assert "Houston.ubj" in manifest.refused["us/Houston.tar.gz"]


def test_where_none_is_sound_nothing_is_written(shop: Shop, tmp_path: Path, published: Publish) -> None:
    (tmp_path / "bad.tar.gz").write_bytes(b"no archive")
    with pytest.raises(NoneSound, match=r"none of 1 artifacts"):
        published(tmp_path / "bad.tar.gz")
    assert list(shop.place.shelf.list()) == []


def test_one_artifact_may_be_given_its_key(source: Path, published: Publish) -> None:
    done = published(source / "us/Houston.ubj", as_key="tx/Houston.tar.gz")
    assert list(done.manifest.segments) == ["tx/Houston.tar.gz"]


@pytest.mark.parametrize("key", ["/a.tar.gz", "a/../b.tar.gz", "", "a.ubj", "a\nb.tar.gz"])
def test_a_key_that_is_none_is_said(source: Path, published: Publish, key: str) -> None:
    with pytest.raises(Misused, match="--as"):
        published(source / "us/Houston.ubj", as_key=key)


def test_one_key_is_for_one_artifact(source: Path, published: Publish) -> None:
    with pytest.raises(Misused, match="--as names one artifact, and there are 3"):
        published(source, as_key="a.tar.gz")


def test_a_path_that_is_not_there_is_said(published: Publish, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="there is no"):
        published(tmp_path / "none")


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("us/Houston.ubj", "us/Houston.tar.gz"),
        ("us/Houston.tar.gz", "us/Houston.tar.gz"),
        ("us/Houston.TGZ", "us/Houston.tar.gz"),
        ("us/Houston_v1.2", "us/Houston_v1.2.tar.gz"),
        ("us/a.tar.gz.ubj", "us/a.tar.gz.tar.gz"),
        ("us/a.json.gz", "us/a.tar.gz"),
        ("xgboost-model", "xgboost-model.tar.gz"),
    ],
)
def test_a_key_is_the_path_as_a_tar_gz(name: str, key: str) -> None:
    assert sources.key_of(name) == key


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"objective": "binary:logistic"},
        {"objective": "multi:softprob", "num_class": 3},
        {"booster": "dart", "rate_drop": 0.2},
        {"booster": "gblinear"},
    ],
    ids=str,
)
def test_golden_rows_are_what_xgboost_says(tmp_path: Path, published: Publish, parameters: dict[str, object]) -> None:
    booster = boosters.train(n_features=5, seed=3, **({"max_depth": 4} | parameters))
    (tmp_path / "one.ubj").write_bytes(boosters.document(booster))
    is_linear = parameters.get("booster") == "gblinear"
    golden = published(tmp_path / "one.ubj").manifest.segments["one.tar.gz"].golden
    assert golden is not None
    rows = decode("\n".join(golden.rows).encode(), "text/csv", 5).values
    # In place, as an endpoint predicts: of dart XGBoost adds up in another order for a DMatrix, see handler/forest/proof.py.
    scores = boosters.expected(booster, rows) if is_linear else booster.inplace_predict(rows, strict_shape=True)
    assert np.array(golden.scores, np.float32).tobytes() == scores.astype(np.float32).tobytes()
    assert len(set(golden.scores)) > 1


@pytest.fixture(scope="module")
def of_an_old_release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one old release wrote and pickled: best iterations, numbers that mean missing, labels."""
    root = tmp_path_factory.mktemp("predicting")
    with tarfile.open(ROOT / "tests/fixtures/predicting.tar.xz") as tar:
        tar.extractall(root, filter="data")
    written = root / "written"
    written.mkdir()
    for path in sorted(next(root.rglob("xgboost-1.6.2")).iterdir()):
        if path.suffix in (".bin", ".pkl", ".json", ".ubj"):
            path.rename(written / f"{path.stem}-{path.suffix[1:]}{path.suffix}")  # one key each
    return written


def test_what_is_published_predicts_as_it_did_before(
    shop: Shop, of_an_old_release: Path, published: Publish, quarantine: Quarantine
) -> None:
    manifest = published(of_an_old_release).manifest
    assert len(manifest.segments) > 20
    for key, segment in manifest.segments.items():
        data = shop.place.shelf.fetch(shelf.artifact_key(segment.digest)).data
        came = Path(segment.source).read_bytes()
        assert publish.are_alike(quarantine.examine(came, segment.source).facts, quarantine.examine(data, key).facts), (
            key
        )


def test_what_would_answer_otherwise_written_anew_is_refused(
    source: Path, published: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish, "are_alike", lambda *_: False)
    with pytest.raises(NoneSound, match="written anew it reads back differently"):
        published(source)


def test_an_answer_is_the_golden_one_in_every_bit_or_it_is_not() -> None:
    golden = Golden(("1",), ((0.1, 1e-40),))  # the second is below float32's normal numbers
    exact = ",".join(repr(float(np.float32(score))) for score in golden.scores[0])
    golden = Golden(("1",), (tuple(float(np.float32(score)) for score in golden.scores[0]),))
    assert agrees(golden, exact.encode())
    assert agrees(golden, exact.replace(",", "\n").encode())
    almost = float(np.nextafter(np.float32(0.1), np.float32(1)))
    assert not agrees(golden, f"{almost!r},{golden.scores[0][1]!r}".encode())
    assert not agrees(golden, b"no numbers")
    assert not agrees(golden, exact.encode() + b",0")


def test_a_manifest_is_read_as_it_was_written(source: Path, published: Publish) -> None:
    manifest = published(source).manifest
    assert Manifest.from_json(manifest.to_json(), "x") == manifest


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"format": 2}', b'{"format": 1}'])
def test_what_is_no_manifest_is_refused(data: bytes) -> None:
    with pytest.raises(Refused):
        Manifest.from_json(data, "x")


def test_a_dry_run_examines_and_writes_nothing(
    tmp_path: Path, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (source / "broken.tar.gz").write_bytes(b"no archive")
    to = ["--to", str(tmp_path / "live")]
    assert main(["publish", str(source), *to, "--dry-run", "--json"]) == Exit.OK
    facts = json.loads(capsys.readouterr().out)
    assert (facts["dry_run"], facts["n_uploaded"], list(facts["refused"])) == (True, 3, ["broken.tar.gz"])
    assert [path for path in tmp_path.glob("live*/**/*") if path.is_file()] == []
    assert main(["publish", str(source), *to, "--dry-run"]) == Exit.OK
    assert "nothing was written" in capsys.readouterr().out
    assert main(["publish", str(source), *to, "--dry-run", "--registry", "G"]) == Exit.USAGE
    assert main(["publish", str(source), *to]) == Exit.OK
    assert main(["publish", str(source), *to, "--dry-run", "--json"]) == Exit.OK
    facts = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (facts["is_new"], facts["n_uploaded"]) == (False, 0)


def test_as_a_shell_sees_it(tmp_path: Path, source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    to = str(tmp_path / "live")
    assert main(["publish", str(source), "--to", to, "--json"]) == Exit.OK
    facts = json.loads(capsys.readouterr().out)
    assert (facts["n_segments"], facts["n_uploaded"], facts["refused"]) == (3, 3, {})
    assert main(["release", "approve", facts["release"], "--of", to]) == Exit.OK
    assert main(["release", "show", "--of", to]) == Exit.OK
    assert "whole     yes" in capsys.readouterr().out
    assert main(["release", "approve", "20000101-000000-00000000", "--of", to]) == Exit.REFUSED
    assert main(["release", "list", "--of", "s3://bucket-alone/"]) == Exit.USAGE
    assert main(["release", "list", "--of", str(tmp_path / "a" / "slip")]) == Exit.USAGE
    assert not (tmp_path / "a").exists()
    assert main(["publish", str(tmp_path / "none"), "--to", to]) == Exit.REFUSED


def test_each_next_step_is_a_command_that_finds_the_same_place(
    s3: FaultyS3, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = [f"s3://{s3.bucket}/live/", "--releases", f"s3://{s3.bucket}/else where/", "--s3-endpoint-url", s3.url]
    words = ["mme", "publish", str(source), "--to", *where]
    for verb in ("diff", "approve"):
        assert main(words[1:]) == Exit.OK
        words = shlex.split(capsys.readouterr().out.rpartition("next")[2])
        assert words[1:3] == ["release", verb]
    assert main(words[1:]) == Exit.OK
    # Which endpoint reads a bucket is not known here.
    assert capsys.readouterr().out.endswith(f"--of {shlex.join(where)} --url URL, or --endpoint NAME\n")
