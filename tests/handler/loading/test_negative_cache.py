"""What hammering a broken or missing artifact costs."""

from __future__ import annotations

import contextlib

import pytest

from handler.errors import ArtifactBroken, ArtifactError, ArtifactMissing, ArtifactRefused
from handler.forest.booster_pool import BoosterPool
from handler.loading import negative_cache as negative_cache
from handler.loading.loader import Examined, ModelLoader
from handler.loading.negative_cache import ASKS_PER_S, BROKEN_S, MISSING_S, NegativeCache
from handler.predictor import Facts, HandlePool
from tests.rig.fakes import FakeClock, MemoryStore


class Verdict:
    def __init__(self, document: bytes) -> None:
        self.documents = (document,)
        self.facts = (Facts("reg:squarederror", "gbtree", 6, 1, 10),)


class Desk:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.store = MemoryStore()
        self.n_examined = 0
        self.loader = ModelLoader(
            self.store,
            self.examine,
            BoosterPool(HandlePool()),
            n_threads=1,
            negative_cache=NegativeCache(clock=self.clock),
        )

    def examine(self, blob: bytes, uri: str) -> Examined:
        self.n_examined += 1
        if blob == b"broken":
            raise ArtifactBroken(uri, "it is damaged")
        if blob == b"refused":
            raise ArtifactRefused(uri, "it brings code")
        return Verdict(blob)

    def ask(self, error: type[Exception], times: int = 1) -> None:
        for _ in range(times):
            with pytest.raises(error):
                self.loader.prepare("a")

    @property
    def costs(self) -> tuple[int, int]:
        """Requests to the store, and examinations."""
        return self.store.n_fetches + self.store.n_conditions, self.n_examined


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_a_broken_artifact_is_fetched_and_examined_once_however_often_it_is_asked_for(desk: Desk) -> None:
    desk.store.put("a", b"broken")
    desk.ask(ArtifactBroken, 100)
    assert desk.costs == (1, 1)


def test_later_it_is_looked_for_again_and_not_downloaded_unless_it_changed(desk: Desk) -> None:
    desk.store.put("a", b"broken")
    desk.ask(ArtifactBroken)
    desk.clock.advance(BROKEN_S)
    desk.ask(ArtifactBroken, 100)
    assert desk.costs == (2, 1)
    assert desk.store.n_downloads == 1
    desk.store.put("a", b"repaired")
    desk.ask(ArtifactBroken)
    desk.clock.advance(BROKEN_S)
    assert desk.loader.prepare("a").documents == (b"repaired",)


def test_a_missing_object_that_appears_is_served_by_the_next_call(desk: Desk) -> None:
    desk.ask(ArtifactMissing, ASKS_PER_S - 1)
    desk.store.put("a", b"here")
    assert desk.loader.prepare("a").documents == (b"here",)


def test_a_hammered_missing_object_costs_five_requests_a_second(desk: Desk) -> None:
    for seconds in range(1, 4):
        desk.ask(ArtifactMissing, 200)
        assert desk.costs == (seconds * ASKS_PER_S, 0)
        desk.clock.advance(MISSING_S)
    desk.store.put("a", b"here")
    assert desk.loader.prepare("a").documents == (b"here",)


def test_what_replaced_a_model_and_is_broken_is_not_downloaded_again_at_every_check(desk: Desk) -> None:
    desk.store.put("a", b"good")
    version = desk.loader.prepare("a").version
    desk.store.put("a", b"broken")
    for _ in range(3):
        with pytest.raises(ArtifactBroken):
            desk.loader.prepare_if_changed("a", version)
    assert desk.store.n_downloads == 2


def test_what_was_put_back_is_no_change(desk: Desk) -> None:
    desk.store.put("a", b"good")
    good = desk.store.fetch("a")
    desk.store.put("a", b"broken")
    with pytest.raises(ArtifactBroken):
        desk.loader.prepare_if_changed("a", good.version)
    desk.store._objects["a"] = (good.data, good.version)
    assert desk.loader.prepare_if_changed("a", good.version) is None
    assert desk.loader.prepare_if_changed("a", good.version) is None
    assert desk.n_examined == 1  # of the broken one


def test_each_caller_gets_an_error_of_his_own_with_the_same_words(desk: Desk) -> None:
    desk.store.put("a", b"broken")
    caught = []
    for _ in range(3):
        with pytest.raises(ArtifactBroken) as one:
            desk.loader.prepare("a")
        caught.append(one.value)
    assert len({str(error) for error in caught}) == 1
    assert len({id(error) for error in caught}) == 3


def test_the_table_stays_within_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(negative_cache, "MAX_REMEMBERED", 10)
    table = NegativeCache()
    for number in range(100):
        for _ in range(ASKS_PER_S):
            table.absent(str(number), ArtifactMissing(str(number)))
        table.broken(f"b{number}", "v", ArtifactBroken("x", "y"))
    assert len(table) == 20


def test_an_artifact_refused_after_it_was_examined_keeps_its_version_when_it_is_looked_for_again(desk: Desk) -> None:
    desk.store.put("a", b"refused")
    for _ in range(3):
        desk.ask(ArtifactRefused)
        desk.clock.advance(BROKEN_S)
    assert (desk.store.n_downloads, desk.n_examined) == (1, 1)


def test_several_at_once_are_judged_and_remembered_as_one_by_one(desk: Desk) -> None:
    other = Desk()
    for target, data in (("a", b"sound"), ("b", b"broken"), ("d", b"refused"), ("e", b"sound too")):
        desk.store.put(target, data)
        other.store.put(target, data)
    for _ in range(2):
        found = desk.loader.prepare_all(["a", "b", "c", "d", "e"])
        kinds = [type(one) for one in found if isinstance(one, Exception)]
        assert kinds == [ArtifactBroken, ArtifactMissing, ArtifactRefused]
        assert [one.documents for one in found if not isinstance(one, Exception)] == [(b"sound",), (b"sound too",)]
        for target in "abcde":
            with contextlib.suppress(ArtifactError):
                other.loader.prepare(target)
        assert desk.costs == other.costs
