"""What nobody needs any more goes, and nothing else does."""

from __future__ import annotations

from container.operate.release import gc, shelf
from container.operate.release.approve import approve
from container.operate.release.choice import Choice
from container.operate.release.diff import Gate
from container.operate.release.manifest import Manifest
from container.operate.release.rollback import rollback
from tests.rig.shop import Shop

LATER = 4e9  # the store's clock says some time before


def go(shop: Shop, text: str) -> Manifest:
    manifest = shop.candidate({"a.tar.gz": text})
    approve(shop.place, manifest, Gate(), Choice(), who="ann")
    return manifest


def collect(shop: Shop, n_keep: int) -> int:
    return gc.collect(shop.place, gc.find(shop.place, n_keep, clock=lambda: LATER))


def test_old_releases_go_with_what_only_they_name(shop: Shop) -> None:
    made = [go(shop, f"a{number}") for number in range(6)]
    assert collect(shop, 2) > 0
    # The newest two, and that to which the older of two changes goes back.
    assert shelf.release_ids(shop.place.shelf) == [made[5].id, made[4].id, made[3].id]
    assert [shop.is_on_shelf(f"a{number}") for number in range(6)] == [False, False, False, True, True, True]
    assert shop.whole().is_whole


def test_what_is_kept_can_still_be_gone_back_to(shop: Shop) -> None:
    for number in range(6):
        go(shop, f"a{number}")
    collect(shop, 2)
    rollback(shop.place, Choice(), who="bob")
    rollback(shop.place, Choice(), who="bob")
    assert shop.live() == {"a.tar.gz": "a3"}


def test_what_is_live_stays_however_old(shop: Shop) -> None:
    first = go(shop, "a1")
    for number in range(5):
        shop.candidate({"b.tar.gz": f"b{number}"})
    collect(shop, 1)
    assert first.id in shelf.release_ids(shop.place.shelf)
    assert shop.is_on_shelf("a1")


def test_what_is_being_published_now_stays(shop: Shop) -> None:
    go(shop, "a1")
    shelf.put_artifact(shop.place.shelf, b"its manifest comes later")
    assert gc.find(shop.place, 1).artifacts == () or shop.place.is_s3  # the small S3's clock stands still
    garbage = gc.find(shop.place, 1, clock=lambda: 0.0)
    assert garbage.artifacts == ()


def test_finding_takes_nothing_away(shop: Shop) -> None:
    for number in range(3):
        go(shop, f"a{number}")
    before = [found.target for found in shop.place.shelf.list()]
    garbage = gc.find(shop.place, 1, clock=lambda: LATER)
    assert garbage.n_bytes > 0
    assert [found.target for found in shop.place.shelf.list()] == before


def test_a_second_time_there_is_nothing_left(shop: Shop) -> None:
    for number in range(4):
        go(shop, f"a{number}")
    collect(shop, 1)
    assert collect(shop, 1) == 0


def test_what_training_noted_goes_with_its_release_and_of_runs_nobody_went_on_with(shop: Shop) -> None:
    made = [go(shop, f"a{number}") for number in range(6)]
    for release in made:
        shop.place.shelf.put(f"{shelf.PROFILES}{release.id}.npz", b"x")
    shop.place.shelf.put(f"{shelf.RUNS}0123/run.json", b"{}")
    collect(shop, 2)
    left = [found.target for folder in (shelf.PROFILES, shelf.RUNS) for found in shop.place.shelf.list(folder)]
    assert left == [f"{shelf.PROFILES}{release.id}.npz" for release in made[3:]]
