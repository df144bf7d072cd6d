"""A change of what is live, ended at each of its requests in turn: whatever is called next ends in a whole state."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from container.operate.exits import Exit
from container.operate.main import main
from container.operate.release import place, who
from container.operate.release.live import read_current
from container.operate.release.place import Place, place_at
from tests.rig import faulty_s3
from tests.rig.faulty_s3 import FaultyS3
from tests.rig.shop import Shop

FIRST = {f"us/{number}.tar.gz": f"{number} of the first" for number in range(4)}
SECOND = {f"us/{number}.tar.gz": f"{number} of the second" for number in range(1, 5)}
BOTH = FIRST | SECOND
MOST_REQUESTS = 60


@pytest.fixture
def shop(s3: FaultyS3, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    # One for all commands, since clients take a moment to make, and without the tries that a dead S3 makes slow.
    opened = place_at(f"s3://{s3.bucket}/live/", None, s3.url, max_attempts=1)
    monkeypatch.setattr(place, "open_place", lambda *_, **__: opened)
    monkeypatch.setattr(Place, "close", lambda _: None)
    monkeypatch.setattr(who, "who", lambda _: "ann")
    yield Shop(opened)
    opened.live.close()
    opened.shelf.close()


def mme(*words: str) -> int:
    return main(["release", *words, "--of", "s3://models/live/"])


def killed_everywhere(s3: FaultyS3, words: tuple[str, ...]) -> Iterator[int]:
    """The command, killed before its first request, before its second, and so on; then with each obeyed but not answered.
    After each, S3 is there again; it ends with the first that was not killed."""
    before = dict(s3.objects)
    for acts in (False, True):
        for number in range(1, MOST_REQUESTS):
            s3.objects.clear()
            s3.objects.update(before)
            s3.methods.clear()
            s3.dies_at, s3.acts_dying = number, acts
            status = mme(*words)
            n_asked = s3.methods.total()
            s3.dies_at = None
            if n_asked < number:
                assert status == Exit.OK
                break
            yield number
        else:
            raise AssertionError("it never ends")


def check_none_is_mixed(s3: FaultyS3) -> None:
    """Every key has one of the two releases' models, in all its bytes."""
    for key in BOTH:
        there = s3.objects.get(f"live/{key}")
        assert there is None or there.decode() in (FIRST.get(key), SECOND.get(key))


def live(s3: FaultyS3) -> dict[str, str]:
    return {key[len("live/") :]: data.decode() for key, data in s3.objects.items() if key.startswith("live/")}


@pytest.mark.parametrize("is_rollback", [False, True], ids=["approve", "rollback"])
@pytest.mark.parametrize("is_same", [True, False], ids=["the same", "another"])
@pytest.mark.usefixtures("capsys")
def test_whatever_comes_next_ends_whole(s3: FaultyS3, shop: Shop, is_rollback: bool, is_same: bool) -> None:
    first, second = shop.candidate(FIRST), shop.candidate(SECOND)
    assert mme("approve", first.id) == Exit.OK
    words: tuple[str, ...] = ("approve", second.id)
    if is_rollback:
        assert mme(*words) == Exit.OK
        words = ("rollback",)
    before, after = (BOTH, FIRST) if is_rollback else (FIRST, BOTH)
    n_killed = n_broken_off = 0
    for _ in killed_everywhere(s3, words):
        n_killed += 1
        check_none_is_mixed(s3)
        is_settled = read_current(shop.place.shelf).is_settled
        n_broken_off += not is_settled
        is_done = is_settled and live(s3) == after
        assert is_done or not is_settled or live(s3) == before
        if is_same:
            mme(*words)
            # What had come to its end, with only the last answer lost, is not known to have: a rollback is then another.
            assert live(s3) == ({} if is_rollback and is_done else after)
        else:
            status = mme("reject", second.id)
            assert (status == Exit.NOT_NOW) == (not is_settled)  # it finishes what was under way, and does nothing else
            assert live(s3) == (before if is_settled and not is_done else after)
        assert shop.whole().is_whole
    assert n_broken_off > 10
    assert n_killed > n_broken_off


def test_a_reader_is_told_that_it_broke_off_and_how_far_it_came(
    s3: FaultyS3, shop: Shop, capsys: pytest.CaptureFixture[str]
) -> None:
    first = shop.candidate(FIRST)
    for _ in killed_everywhere(s3, ("approve", first.id)):
        if any(key.startswith("live/") for key in s3.objects):
            break
    capsys.readouterr()
    assert mme("show") == Exit.FAILED
    told = capsys.readouterr().out
    assert "of 4 keys are still to be written" in told
    assert "mme release finish" in told
    assert mme("rollback") == Exit.NOT_NOW
    assert "had broken off, and is finished now" in capsys.readouterr().err
    assert shop.live() == FIRST


def test_what_broke_off_may_be_taken_back_instead(s3: FaultyS3, shop: Shop) -> None:
    first, second = shop.candidate(FIRST), shop.candidate(SECOND)
    assert mme("approve", first.id) == Exit.OK
    n_broken_off = 0
    for words in (("approve", second.id), ("rollback",)):
        before = live(s3)
        for _ in killed_everywhere(s3, words):
            if read_current(shop.place.shelf).is_settled:
                continue
            n_broken_off += 1
            assert mme("finish", "--undo") == Exit.OK
            assert live(s3) == before
            assert shop.whole().is_whole
            # Nothing of it is left: the same once more does what it would have done.
            assert mme(*words) == Exit.OK
            assert live(s3) == (BOTH if words[0] == "approve" else FIRST)
    assert n_broken_off > 10


def test_where_nothing_may_be_written_it_is_said_and_can_be_undone(
    s3: FaultyS3, shop: Shop, capsys: pytest.CaptureFixture[str]
) -> None:
    """A role that may read the live prefix, list it, and not write to it."""
    first = shop.candidate(FIRST)
    for key in FIRST:
        s3.faults[f"live/{key}"] = faulty_s3.denied_writing()
    assert mme("approve", first.id) == Exit.REFUSED
    assert "may not be written (AccessDenied)" in capsys.readouterr().err
    assert live(s3) == {}
    assert mme("finish", "--undo") == Exit.OK
    assert shop.whole().is_whole
    s3.faults.clear()
    assert mme("approve", first.id) == Exit.OK
    assert live(s3) == FIRST
