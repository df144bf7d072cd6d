"""Names that callers invent are denied by a listing; names that are there never are."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from handler.errors import ArtifactMissing, ArtifactUnavailable
from handler.forest.booster_pool import BoosterPool
from handler.loading import catalogue as catalogue_module
from handler.loading.catalogue import FRESH_S, MANY_MISSED, MISSED_S, PAUSE_S, Catalogue
from handler.loading.loader import ModelLoader
from handler.predictor import HandlePool
from handler.stores.store import StoredObject
from tests.rig.fakes import FakeClock, MemoryStore


class Shelf:
    """A listing, and how often it was asked for."""

    def __init__(self, *names: str) -> None:
        self.names = list(names)
        self.n_listed = 0
        self.error: Exception | None = None

    def list(self) -> Iterator[StoredObject]:
        self.n_listed += 1
        if self.error is not None:
            raise self.error
        return (StoredObject(name, 1, "v") for name in self.names)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(1000.0)


def make(shelf: Shelf, clock: FakeClock) -> Catalogue:
    def at_once(work: Callable[[], None]) -> None:
        work()

    return Catalogue(shelf.list, at_once, clock)


def miss(catalogue: Catalogue, n_times: int) -> None:
    for _ in range(n_times):
        catalogue.missed()


def test_a_few_misses_are_no_reason_to_list(clock: FakeClock) -> None:
    shelf = Shelf("a")
    catalogue = make(shelf, clock)
    for _ in range(10):
        miss(catalogue, MANY_MISSED - 1)
        assert not catalogue.denies("x")
        clock.advance(MISSED_S)
    assert shelf.n_listed == 0


def test_after_many_what_was_not_listed_is_denied_for_a_while_and_what_was_never_is(clock: FakeClock) -> None:
    shelf = Shelf("a", "b")
    catalogue = make(shelf, clock)
    miss(catalogue, MANY_MISSED)
    assert [catalogue.denies(name) for name in ("a", "b", "x")] == [False, False, True]
    clock.advance(FRESH_S)
    assert not catalogue.denies("x")
    assert shelf.n_listed == 1


def test_while_it_goes_on_the_listing_is_kept_fresh(clock: FakeClock) -> None:
    shelf = Shelf("a")
    catalogue = make(shelf, clock)
    miss(catalogue, MANY_MISSED)
    for _ in range(10):
        clock.advance(FRESH_S / 2)
        shelf.names.append(f"new at {clock()}")
        assert catalogue.denies("x")
        assert not catalogue.denies(shelf.names[-1])
    assert shelf.n_listed == 11


@pytest.mark.parametrize("trouble", ["fails", "is too long"])
def test_a_listing_that_cannot_be_had_denies_nothing_and_is_not_asked_for_again_soon(
    clock: FakeClock, trouble: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf = Shelf("a", "b")
    if trouble == "fails":
        shelf.error = ArtifactUnavailable("s3://b/", "AccessDenied")
    else:
        monkeypatch.setattr(catalogue_module, "MAX_NAMES", 1)
    catalogue = make(shelf, clock)
    for _ in range(3):
        miss(catalogue, MANY_MISSED)
        clock.advance(MISSED_S)
        assert not catalogue.denies("x")
    assert shelf.n_listed == 1
    clock.advance(PAUSE_S)
    miss(catalogue, MANY_MISSED)
    assert shelf.n_listed == 2


def test_the_loader_refuses_invented_names_without_asking_the_store(clock: FakeClock) -> None:
    store, shelf = MemoryStore(), Shelf("there")
    loader = ModelLoader(
        store,
        lambda *_: None,
        BoosterPool(HandlePool()),
        1,
        catalogue=make(shelf, clock),  # type: ignore[arg-type]
    )
    for number in range(MANY_MISSED):
        assert loader.refused(f"x{number}") is None
        with pytest.raises(ArtifactMissing):
            loader.prepare(f"x{number}")
    assert isinstance(loader.refused("another"), ArtifactMissing)
    assert loader.refused("there") is None
