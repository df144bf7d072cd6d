"""Sweeper made of models in memory that nobody asks for."""

from __future__ import annotations

import threading

import pytest

from handler.cache.model_cache import ModelCache
from handler.errors import ArtifactForbidden, ArtifactUnavailable
from handler.forest.booster_pool import BoosterPool
from handler.loading.disk_cache import DiskCache
from handler.loading.loader import Examined, ModelLoader
from handler.predictor import Facts, HandlePool
from handler.revalidation.revalidator import Revalidator
from handler.revalidation.sweeper import BELIEVED_S, Sweeper
from handler.telemetry.recorder import MODEL_UPDATES, LiveRecorder
from tests.rig import boosters
from tests.rig.fakes import FakeClock, InlineExecutor, MemoryStore

MAX_AGE_S = 60.0
PAUSE_S = MAX_AGE_S / 2


class Verdict:
    def __init__(self, document: bytes) -> None:
        self.documents = (document,)
        self.facts = (Facts("reg:squarederror", "gbtree", 6, 1, len(document)),)


class House:
    """A store with many models, all in memory; nobody calls any of them."""

    def __init__(self, n_models: int = 40, disk_cache: DiskCache | None = None) -> None:
        self.clock = FakeClock()
        self.round_at = self.clock.now
        self.store = MemoryStore()
        self.recorder = LiveRecorder()
        loader = ModelLoader(self.store, self.examine, BoosterPool(HandlePool()), n_threads=1, disk_cache=disk_cache)
        self.cache = ModelCache(
            budget_bytes=10 << 20,
            prepare=loader.prepare,
            executor=InlineExecutor(),
            max_waiting=4,
            recorder=self.recorder,
            clock=self.clock,
        )
        self.revalidator = Revalidator(
            self.cache, loader.prepare_if_changed, InlineExecutor(), self.recorder, clock=self.clock
        )
        self.cache.ages.watch(MAX_AGE_S, self.revalidator.look)
        self.sweeper = Sweeper(
            self.cache.ages, self.store, self.check, loader.confirmed, InlineExecutor(),
            max_age_s=MAX_AGE_S, n_at_once=2, clock=self.clock,
        )  # fmt: skip
        for number in range(n_models):
            self.put(number, 0)
            self.load(number)

    def examine(self, blob: bytes, uri: str) -> Examined:
        return Verdict(blob)

    def check(self, target: str, version: str) -> bool:
        self.clock.advance(0.01)  # as it would
        return self.revalidator.check(target, version)

    def put(self, number: int, segment: int) -> None:
        self.store.put(f"{number:02}", boosters.document(boosters.segment(segment)))

    def load(self, number: int) -> None:
        with self.cache.borrow(f"{number:02}", 1.0):
            pass

    def pass_round(self) -> None:
        """Sweeper begin at even intervals, however long they take."""
        self.round_at = self.clock.now = max(self.round_at + PAUSE_S, self.clock.now)
        self.sweeper.make()

    def versions(self) -> dict[str, str]:
        return {one.target: one.version for one in self.cache.residents()}


def test_one_listing_confirms_all_that_is_unchanged() -> None:
    house = House()
    for _ in range(4):
        house.pass_round()
    assert (house.store.n_listings, house.store.n_conditions) == (4, 0)
    house.load(7)  # nobody finds it old
    assert house.store.n_conditions == 0


def test_an_overwritten_idle_model_is_replaced_within_its_age_and_nobody_had_to_call() -> None:
    house = House()
    house.put(7, 1)
    house.pass_round()
    assert house.versions()["07"] == '"41"'
    assert house.recorder.collect().total(MODEL_UPDATES) == 1
    assert (house.store.n_listings, house.store.n_conditions) == (1, 1)


def test_a_deleted_idle_model_leaves_within_its_age() -> None:
    house = House()
    house.store.delete("07")
    house.pass_round()
    assert "07" not in house.cache
    assert len(house.cache) == 39


def test_few_models_are_asked_for_one_by_one_each_once_in_its_age() -> None:
    house = House(n_models=3)
    house.put(1, 1)
    for _ in range(3):
        house.pass_round()
    assert house.store.n_listings == 0
    assert house.store.n_conditions == 6
    assert house.versions()["01"] == '"4"'


def test_a_listing_of_far_more_than_is_in_memory_is_given_up_and_not_tried_again_soon() -> None:
    house = House()
    for number in range(5000):
        house.store.put(f"other/{number}", b"x")
    house.pass_round()
    assert (house.store.n_listed, house.store.n_conditions) == (4000, 0)  # 40 / 12.5 pages; ours sort first
    house.pass_round()
    assert (house.store.n_listings, house.store.n_conditions) == (1, 40)
    house.clock.advance(BELIEVED_S)
    house.sweeper.make()
    assert house.store.n_listings == 1  # it has not forgotten how many there are


def test_where_listing_is_denied_each_model_is_asked_for() -> None:
    house = House()
    house.store.list_error = ArtifactForbidden("mem:", "AccessDenied")
    house.put(7, 1)
    house.pass_round()
    house.clock.advance(MAX_AGE_S)
    house.sweeper.make()
    assert (house.store.n_listings, house.store.n_conditions) == (1, 80)
    assert house.versions()["07"] == '"41"'


def test_while_the_store_is_away_a_round_ends_with_its_first_question() -> None:
    house = House()
    house.put(7, 1)
    house.store.error = ArtifactUnavailable("mem:", "SlowDown")
    house.pass_round()
    assert house.store.n_conditions == 1
    house.store.error = None
    house.pass_round()
    assert house.versions()["07"] == '"41"'


def test_an_object_that_is_denied_while_others_are_read_is_served_no_longer_after_three_sweeps() -> None:
    house = House()
    house.store.list_error = ArtifactForbidden("mem:", "AccessDenied")
    house.store.errors["07"] = ArtifactForbidden("mem:07", "AccessDenied")
    seen = []
    for _ in range(4):
        house.clock.advance(MAX_AGE_S)
        house.sweeper.make()
        seen.append("07" in house.cache)
    assert seen == [True, True, False, False]
    assert len(house.cache) == 39


@pytest.mark.parametrize("code", ["AccessDenied", "InvalidAccessKeyId"])
def test_while_everything_is_denied_everything_stays(code: str) -> None:
    house = House()
    house.pass_round()
    house.store.error = ArtifactForbidden("mem:", code)
    for _ in range(6):
        house.clock.advance(MAX_AGE_S)
        house.sweeper.make()
    assert len(house.cache) == 40


def test_what_a_model_is_being_checked_for_is_not_asked_twice() -> None:
    house = House(n_models=1)
    house.clock.advance(MAX_AGE_S)
    assert house.cache.ages.begin_check("00", '"1"')
    house.sweeper.make()
    house.load(0)
    assert house.store.n_conditions == 0
    house.cache.ages.keep("00", '"1"')
    house.clock.advance(MAX_AGE_S)
    house.sweeper.make()
    house.load(0)
    assert house.store.n_conditions == 1


def test_the_thread_makes_sweeps_until_it_is_closed() -> None:
    store = MemoryStore()
    asked = threading.Event()

    class Ages:
        def due(self, within_s: float = 0.0) -> list[tuple[str, str]]:
            asked.set()
            raise RuntimeError("what nobody thought of")

        def confirm(self, versions: object, s_ago: float) -> list[str]:
            return []

        def begin_check(self, target: str, version: str) -> bool:
            return True

    sweeper = Sweeper(Ages(), store, lambda *_: True, lambda *_: None, InlineExecutor(), max_age_s=0.02, n_at_once=1)
    sweeper.start()
    for _ in range(3):
        asked.clear()
        assert asked.wait(10)
    sweeper.close()
    sweeper._thread.join(10)
    assert not sweeper._thread.is_alive()
