"""`mme score --release`: a release's own models, whatever is live by now."""

from __future__ import annotations

from pathlib import Path

import pytest

from container.operate.batch.opened import FromRelease
from container.operate.batch.released import ReleasedStore
from container.operate.release import shelf
from container.operate.release.manifest import Features, Manifest, Segment
from container.operate.release.place import place_at
from container.operate.troubles import Misused, Refused
from handler.errors import ArtifactMissing, ArtifactUnavailable
from tests.container.operate.batch.test_run import read_part, score, table, wanted, write
from tests.rig import boosters

pytest.importorskip("pyarrow")

ID = "20261129-213503-e638de33"


@pytest.fixture
def live(tmp_path: Path) -> Path:
    """A live prefix of other models, and beside it a release of models 0 to 3."""
    place = place_at(str(tmp_path / "live"))
    segments = {}
    for number in range(4):
        data = boosters.segment_archive(number)
        digest = shelf.put_artifact(place.shelf, data)
        segments[f"us/{number}.tar.gz"] = Segment(digest, len(data), "reg:squarederror", Features(6))
        place.live.put(f"us/{number}.tar.gz", boosters.segment_archive(number + 1))
    manifest = Manifest(ID, "2026-11-29T21:35:03Z", "test", ("models",), "", "examiner", segments)
    shelf.put_manifest(place.shelf, manifest)
    place.close()
    return tmp_path / "live"


def test_a_releases_models_score_whatever_is_live(live: Path, tmp_path: Path) -> None:
    rows = table(300, 1)
    write(rows, tmp_path / "data" / "a.parquet")
    outcome = score(live, tmp_path / "data", tmp_path / "out", release=FromRelease(ID))
    assert outcome.summary is not None
    assert (outcome.summary["scored"], outcome.n_loads) == (300, 4)
    assert (read_part(tmp_path / "out/rows/a.parquet").column("score").to_numpy() == wanted(rows)).all()
    digests = {target: one.digest for target, one in _manifest(live).segments.items()}
    assert outcome.summary["models"] == digests
    with pytest.raises(Misused, match="a run of other models"):
        score(live, tmp_path / "data", tmp_path / "out")


def test_releases_may_lie_elsewhere(live: Path, tmp_path: Path) -> None:
    write(table(20, 1), tmp_path / "data" / "a.parquet")
    (tmp_path / "live.releases").rename(tmp_path / "elsewhere")
    with pytest.raises(Misused, match="live"):
        score(live, tmp_path / "data", tmp_path / "out", release=FromRelease(ID))
    assert not (tmp_path / "live.releases").exists()
    release = FromRelease(ID, str(tmp_path / "elsewhere"))
    assert score(live, tmp_path / "data", tmp_path / "out", release=release).n_loads == 4


def test_a_release_that_is_not_there_is_refused_by_name(live: Path, tmp_path: Path) -> None:
    write(table(20, 1), tmp_path / "data" / "a.parquet")
    for id in ("20261129-213503-00000000", "latest"):
        with pytest.raises(Refused, match=id):
            score(live, tmp_path / "data", tmp_path / "out", release=FromRelease(id))


def test_an_artifact_of_another_digest_is_not_taken(live: Path) -> None:
    manifest = _manifest(live)
    place = place_at(str(live))
    store = ReleasedStore(place.shelf, manifest)
    first = manifest.segments["us/0.tar.gz"].digest
    assert store.fetch("us/0.tar.gz").version == first
    assert store.fetch_if_changed("us/0.tar.gz", first) is None
    assert [one.target for one in store.list("us/")] == [f"us/{number}.tar.gz" for number in range(4)]
    place.shelf.put(shelf.artifact_key(first), b"other bytes")
    with pytest.raises(ArtifactUnavailable):
        store.fetch("us/0.tar.gz")
    with pytest.raises(ArtifactMissing):
        store.fetch("us/9.tar.gz")
    place.close()


def _manifest(live: Path) -> Manifest:
    place = place_at(str(live))
    try:
        return shelf.manifest(place.shelf, ID)
    finally:
        place.close()
