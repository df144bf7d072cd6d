"""Which model stands in for which segment."""

from __future__ import annotations

from typing import cast

import pytest

from handler.cache.model_cache import Borrowed
from handler.errors import ArtifactMissing, ModelNotReady
from handler.fallback import Fallback, StandIn
from tests.rig.fakes import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def nobody(target: str, _: float) -> Borrowed:
    raise ArtifactMissing(target)


@pytest.mark.parametrize(
    ("name", "target", "candidates"),
    [
        ("_d", "us/tx/Houston", ["us/tx/_d", "us/_d", "_d"]),
        ("_d", "Houston", ["_d"]),
        ("_d", "us/_d", ["_d"]),
        ("_d", "_d", []),
        ("us/_d", "eu/Hull", ["us/_d"]),
        ("us/_d", "us/_d", []),
    ],
)
def test_the_nearest_default_up_the_path_stands_in(name: str, target: str, candidates: list[str]) -> None:
    assert list(Fallback(name, nobody).candidates(target)) == candidates


def test_without_one_the_segment_itself_is_missing() -> None:
    missing = ArtifactMissing("us/Houston")
    with pytest.raises(ArtifactMissing) as caught:
        Fallback("_d", nobody).borrow("us/Houston", 1.0, missing)
    assert caught.value is missing


def test_one_that_is_not_ready_is_waited_for_and_not_passed_over() -> None:
    def loading(target: str, wait_s: float) -> Borrowed:
        raise ModelNotReady(target, wait_s)

    with pytest.raises(ModelNotReady, match="us/_d"):
        Fallback("_d", loading).borrow("us/Houston", 1.0, ArtifactMissing("us/Houston"))


def test_all_candidates_together_are_waited_for_no_longer_than_one(clock: FakeClock) -> None:
    waits: list[float] = []

    def slow(target: str, wait_s: float) -> Borrowed:
        waits.append(wait_s)
        clock.advance(4.0)
        raise ArtifactMissing(target)

    with pytest.raises(ArtifactMissing):
        Fallback("_d", slow, clock).borrow("a/b/c/d", 10.0, ArtifactMissing("a/b/c/d"))
    assert waits == [10.0, 6.0, 2.0, 0.0]


@pytest.mark.parametrize(
    ("target", "told"),
    [("us/_d.tar.gz", "model=us/_d.tar.gz"), ("a,b;c=d", "model=a%2Cb%3Bc%3Dd"), ("é", "model=%C3%A9")],
)
def test_it_is_told_in_what_a_header_may_hold(target: str, told: str) -> None:
    assert StandIn(target, cast("Borrowed", None)).told == told
