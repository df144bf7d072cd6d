"""Approving, rejecting and taking back, in a directory and on S3."""

from __future__ import annotations

import threading

import pytest

from container.operate.release import shelf
from container.operate.release.approve import approve, reject
from container.operate.release.choice import Choice
from container.operate.release.diff import Gate
from container.operate.release.live import read_current, read_history
from container.operate.release.manifest import Features, Judged, Manifest
from container.operate.release.move import Moved
from container.operate.release.rollback import rollback, take_back
from container.operate.troubles import NotNow, Refused
from handler.patterns import Patterns
from tests.rig.shop import Shop

FIRST = {"us/a.tar.gz": "a1", "us/b.tar.gz": "b1", "eu/c.tar.gz": "c1"}
SECOND = {"us/a.tar.gz": "a2", "us/b.tar.gz": "b2", "eu/c.tar.gz": "c1", "eu/d.tar.gz": "d2"}


def go(
    shop: Shop, manifest: Manifest, choice: Choice | None = None, gate: Gate | None = None, **options: object
) -> Moved:
    approval = approve(shop.place, manifest, gate or Gate(), choice or Choice(), who="ann", **options)  # type: ignore[arg-type]
    assert approval.moved is not None
    assert approval.moved.stuck == ()
    return approval.moved


def back(shop: Shop, choice: Choice | None = None, **options: object) -> str:
    release, _, moved = rollback(shop.place, choice or Choice(), who="bob", **options)  # type: ignore[arg-type]
    assert moved is not None
    assert moved.stuck == ()
    return release


def test_what_is_approved_is_live_and_whole(shop: Shop) -> None:
    go(shop, shop.candidate(FIRST))
    assert shop.live() == FIRST
    assert shop.whole().is_whole


def test_a_second_release_writes_only_what_is_new(shop: Shop) -> None:
    go(shop, shop.candidate(FIRST))
    moved = go(shop, shop.candidate(SECOND))
    assert moved.change.n_written == 3
    assert shop.live() == SECOND


def test_what_a_release_lacks_stays(shop: Shop) -> None:
    first = shop.candidate(FIRST)
    go(shop, first)
    second = shop.candidate({"us/a.tar.gz": "a2"})
    go(shop, second)
    assert shop.live() == FIRST | {"us/a.tar.gz": "a2"}
    assert shop.whole().releases == {first.id: 2, second.id: 1}


def test_approving_again_does_nothing(shop: Shop) -> None:
    first = shop.candidate(FIRST)
    go(shop, first)
    before = read_current(shop.place.shelf)
    assert approve(shop.place, first, Gate(), Choice(), who="ann").moved is None
    assert read_current(shop.place.shelf) == before


def test_a_dry_run_changes_nothing(shop: Shop) -> None:
    assert approve(shop.place, shop.candidate(FIRST), Gate(), Choice(), who="ann", dry_run=True).moved is None
    assert shop.live() == {}


@pytest.mark.parametrize(
    ("choice", "live"),
    [
        (Choice(only=Patterns.parse("us/*")), {"us/a.tar.gz": "a2", "us/b.tar.gz": "b2"}),
        (Choice(but=Patterns.parse("us/a*,eu/*")), {"us/b.tar.gz": "b2"}),
        (Choice(Patterns.parse("us/*"), Patterns.parse("*b.tar.gz")), {"us/a.tar.gz": "a2"}),
    ],
)
def test_some_segments_may_be_chosen(shop: Shop, choice: Choice, live: dict[str, str]) -> None:
    go(shop, shop.candidate(SECOND), choice)
    assert shop.live() == live


def test_a_gate_keeps_single_segments_back_while_the_rest_goes_on(shop: Shop) -> None:
    go(shop, shop.candidate(FIRST))
    judged = {key: Judged("rmse", 10, 1.2, 1.0, shop.digest(key)) for key in ("us/a.tar.gz", "us/b.tar.gz")}
    judged["us/b.tar.gz"] = Judged("rmse", 10, 1.04, 1.0, shop.digest("us/b.tar.gz"))
    second = shop.candidate(SECOND, judged=judged)
    approval = approve(shop.place, second, Gate(max_worse=0.05), Choice(), who="ann")
    assert [row.key for row in approval.diff.kept_back] == ["us/a.tar.gz"]
    assert shop.live() == SECOND | {"us/a.tar.gz": "a1"}


def test_other_features_than_the_live_models_are_kept_back_unless_let_pass(shop: Shop) -> None:
    go(shop, shop.candidate(FIRST))
    second = shop.candidate({"us/a.tar.gz": "a2", "us/b.tar.gz": "b2"}, features={"us/a.tar.gz": Features(4)})
    go(shop, second)
    assert shop.live()["us/a.tar.gz"] == "a1"
    go(shop, second, gate=Gate(features_may_differ=True))
    assert shop.live()["us/a.tar.gz"] == "a2"


def test_an_empty_release_is_refused(shop: Shop) -> None:
    with pytest.raises(Refused, match="has no segments"):
        approve(shop.place, shop.candidate({}), Gate(), Choice(), who="ann")


@pytest.mark.parametrize(("text", "what"), [("mine", "changed it"), (None, "removed it")])
def test_what_somebody_changed_by_hand_is_seen_and_not_written_over(shop: Shop, text: str | None, what: str) -> None:
    go(shop, shop.candidate(FIRST))
    shop.by_hand("us/a.tar.gz", text)
    assert not shop.whole().is_whole
    assert what in shop.whole().by_hand["us/a.tar.gz"]
    before = shop.live()
    with pytest.raises(Refused, match=f"us/a.tar.gz: somebody else {what}"):
        approve(shop.place, shop.candidate(SECOND), Gate(), Choice(), who="ann")
    assert shop.live() == before


def test_what_lay_there_before_the_first_release_is_not_written_over(shop: Shop) -> None:
    shop.by_hand("us/a.tar.gz", "mine")
    with pytest.raises(Refused, match="somebody else put it there"):
        approve(shop.place, shop.candidate(FIRST), Gate(), Choice(), who="ann")
    assert shop.live() == {"us/a.tar.gz": "mine"}


def test_forced_it_is_kept_on_the_shelf_and_comes_back(shop: Shop) -> None:
    shop.by_hand("us/a.tar.gz", "mine")
    go(shop, shop.candidate(FIRST), force=True)
    assert shop.live() == FIRST
    assert shop.is_on_shelf("mine")
    back(shop)
    assert shop.live() == {"us/a.tar.gz": "mine"}
    assert shop.whole().is_whole


def test_a_rollback_over_what_was_changed_by_hand_keeps_that_too(shop: Shop) -> None:
    go(shop, shop.candidate(FIRST))
    go(shop, shop.candidate(SECOND))
    shop.by_hand("us/a.tar.gz", "mine")
    with pytest.raises(Refused, match="changed it"):
        rollback(shop.place, Choice(), who="bob")
    back(shop, force=True)
    assert shop.live() == FIRST
    assert shop.is_on_shelf("mine")
    back(shop)
    assert shop.live() == SECOND | {"us/a.tar.gz": "mine"}


def test_the_same_bytes_written_anew_by_hand_are_no_change(shop: Shop) -> None:
    go(shop, shop.candidate(FIRST))
    shop.by_hand("us/a.tar.gz", "a1")
    assert shop.whole().is_whole
    go(shop, shop.candidate(SECOND))


def test_rollback_brings_back_what_lay_there_and_removes_what_did_not(shop: Shop) -> None:
    first, second = shop.candidate(FIRST), shop.candidate(SECOND)
    go(shop, first)
    go(shop, second)
    assert back(shop) == first.id
    assert shop.live() == FIRST
    assert shop.whole().is_whole


def test_rollback_twice_goes_further_back(shop: Shop) -> None:
    for number in (1, 2, 3):
        go(shop, shop.candidate({"a.tar.gz": f"a{number}"}))
    back(shop)
    assert shop.live() == {"a.tar.gz": "a2"}
    back(shop)
    assert shop.live() == {"a.tar.gz": "a1"}
    back(shop)
    assert shop.live() == {}
    assert rollback(shop.place, Choice(), who="bob")[2] is None


def test_rollback_of_one_segment_leaves_the_others_and_can_be_taken_back(shop: Shop) -> None:
    go(shop, shop.candidate(FIRST))
    go(shop, shop.candidate(SECOND))
    back(shop, Choice(only=Patterns.parse("us/a.tar.gz")))
    assert shop.live() == SECOND | {"us/a.tar.gz": "a1"}
    back(shop)
    assert shop.live() == SECOND


def test_rollback_to_a_release_brings_back_what_was_live_with_it(shop: Shop) -> None:
    first = shop.candidate(FIRST)
    go(shop, first)
    for number in (2, 3, 4):
        go(shop, shop.candidate({"us/a.tar.gz": f"a{number}"}))
    back(shop, to=first.id)
    assert shop.live() == FIRST


def test_rollback_to_what_was_never_live_is_refused(shop: Shop) -> None:
    go(shop, shop.candidate(FIRST))
    with pytest.raises(Refused, match="was not live"):
        rollback(shop.place, Choice(), to=shop.candidate(SECOND).id, who="bob")


def test_rollback_of_nothing_is_refused(shop: Shop) -> None:
    with pytest.raises(Refused, match="nothing was ever approved"):
        rollback(shop.place, Choice(), who="bob")


def test_a_release_taken_back_gives_way_to_what_lay_there_and_others_stay(shop: Shop) -> None:
    go(shop, shop.candidate(FIRST))
    second = shop.candidate(SECOND)
    go(shop, second)
    go(shop, shop.candidate({"us/b.tar.gz": "b3"}))
    take_back(shop.place, second.id, who="bob")
    assert shop.live() == FIRST | {"us/b.tar.gz": "b3"}
    assert take_back(shop.place, second.id, who="bob") is None


def test_a_release_taken_back_does_not_bring_back_one_that_was_rejected(shop: Shop) -> None:
    go(shop, shop.candidate({"a.tar.gz": "a1"}))
    second, third = shop.candidate({"a.tar.gz": "a2"}), shop.candidate({"a.tar.gz": "a3"})
    go(shop, second)
    go(shop, third)
    reject(shop.place, second, "bob")
    take_back(shop.place, third.id, who="bob")
    assert shop.live() == {"a.tar.gz": "a1"}


def test_what_is_live_is_not_rejected(shop: Shop) -> None:
    first = shop.candidate(FIRST)
    go(shop, first)
    with pytest.raises(Refused, match="are live; mme release rollback"):
        reject(shop.place, first, "bob")


def test_the_history_says_who_did_what_instead_of_what_and_why(shop: Shop) -> None:
    first, second, third = shop.candidate(FIRST), shop.candidate(SECOND), shop.candidate({"x.tar.gz": "x"})
    go(shop, first, note="the first")
    go(shop, second)
    reject(shop.place, third, "cat", "no")
    back(shop, note="worse")
    changes = read_history(shop.place.shelf, read_current(shop.place.shelf), 10)
    assert [(one.action, one.release, one.who, one.note, one.instead_of) for one in changes] == [
        ("rollback", first.id, "bob", "worse", second.id),
        ("reject", third.id, "cat", "no", second.id),
        ("approve", second.id, "ann", "", first.id),
        ("approve", first.id, "ann", "the first", ""),
    ]
    assert (changes[0].n_written, changes[0].n_removed) == (2, 1)


def test_of_two_people_one_is_told(shop: Shop) -> None:
    """Both have read the same `current`; the second to write it is told, and nothing of his is live."""
    first, second = shop.candidate({"a.tar.gz": "a1"}), shop.candidate({"a.tar.gz": "a2"})
    n_told, lock, start = [0], threading.Lock(), threading.Barrier(2)

    def do(manifest: Manifest) -> None:
        start.wait()
        try:
            approve(shop.place, manifest, Gate(), Choice(), who="ann")
        except (NotNow, Refused):
            with lock:
                n_told[0] += 1

    for _ in range(5):
        people = [threading.Thread(target=do, args=(one,)) for one in (first, second)]
        for person in people:
            person.start()
        for person in people:
            person.join()
        whole = shop.whole()
        assert whole.is_whole
        assert shop.live()["a.tar.gz"] == ("a1" if whole.current.release == first.id else "a2")


def test_an_artifact_that_is_gone_is_noticed_before_anything_is_claimed(shop: Shop) -> None:
    first = shop.candidate(FIRST)
    shop.place.shelf.remove(shelf.artifact_key(first.segments["us/a.tar.gz"].digest))
    with pytest.raises(Refused, match=r"1 artifacts of .* are not on the shelf"):
        approve(shop.place, first, Gate(), Choice(), who="ann")
    assert shop.whole().is_whole
    assert shop.live() == {}


def test_a_rollback_to_what_is_gone_is_noticed_before_anything_is_claimed(shop: Shop) -> None:
    first = shop.candidate({"a.tar.gz": "a1"})
    go(shop, first)
    go(shop, shop.candidate({"a.tar.gz": "a2"}))
    shop.place.shelf.remove(shelf.artifact_key(first.segments["a.tar.gz"].digest))
    with pytest.raises(Refused, match="not on the shelf"):
        rollback(shop.place, Choice(), who="bob")
    assert shop.whole().is_whole
    assert shop.live() == {"a.tar.gz": "a2"}
