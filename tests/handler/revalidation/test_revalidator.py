"""Artifacts overwritten, broken, deleted and out of reach while their models are in memory."""

from __future__ import annotations

import pytest

from handler.cache.model_cache import ModelCache
from handler.errors import ArtifactBroken, ArtifactUnavailable
from handler.forest.booster_pool import BoosterPool
from handler.loading.loader import Examined, ModelLoader
from handler.predictor import Facts, HandlePool
from handler.revalidation.revalidator import RETRY_S, Revalidator
from handler.telemetry.recorder import BROKEN_ARTIFACTS, EVICTIONS, MODEL_UPDATES, LiveRecorder
from tests.rig import boosters
from tests.rig.fakes import FakeClock, InlineExecutor, MemoryStore

MAX_AGE_S = 60.0
X = boosters.rows(3, 6)


class Verdict:
    def __init__(self, document: bytes, n_bytes: int) -> None:
        self.documents = (document,)
        self.facts = (Facts("reg:squarederror", "gbtree", 6, 1, n_bytes),)


class House:
    """A store, a loader, a cache and what keeps it young. Artifacts are bare documents; `b"broken"` is what it says."""

    def __init__(self, budget_bytes: int = 1 << 20) -> None:
        self.clock = FakeClock()
        self.store = MemoryStore()
        self.recorder = LiveRecorder()
        self.loader = ModelLoader(self.store, self.examine, BoosterPool(HandlePool()), n_threads=1)
        self.cache = ModelCache(
            budget_bytes=budget_bytes,
            prepare=self.loader.prepare,
            executor=InlineExecutor(),
            max_waiting=4,
            recorder=self.recorder,
            clock=self.clock,
        )
        revalidator = Revalidator(self.cache, self.loader.prepare_if_changed, InlineExecutor(), self.recorder)
        self.cache.ages.watch(MAX_AGE_S, revalidator.look)

    def examine(self, blob: bytes, uri: str) -> Examined:
        if blob == b"broken":
            raise ArtifactBroken(uri, "it is damaged")
        return Verdict(blob, len(blob))

    def answers_as(self) -> int:
        """Which segment's booster answers for target `a`. The answer of an old model comes before the check."""
        with self.cache.borrow("a", 1.0) as borrowed:
            scores = borrowed.model.predict(X)
        (found,) = [n for n in range(3) if (boosters.expected(boosters.segment(n), X) == scores).all()]
        return found

    def put(self, number: int) -> None:
        self.store.put("a", boosters.document(boosters.segment(number)))

    @property
    def trouble(self) -> str:
        (resident,) = self.cache.residents()
        return resident.trouble


@pytest.fixture
def house() -> House:
    house = House()
    house.put(0)
    assert house.answers_as() == 0
    return house


def test_an_overwritten_artifact_serves_after_its_age_and_the_call_that_notices_does_not_wait(house: House) -> None:
    house.put(1)
    house.clock.advance(MAX_AGE_S - 1)
    assert [house.answers_as(), house.answers_as()] == [0, 0]
    house.clock.advance(1)
    assert [house.answers_as(), house.answers_as()] == [0, 1]
    assert house.recorder.collect().total(MODEL_UPDATES) == 1
    assert house.recorder.collect().total(EVICTIONS) == 0


def test_an_unchanged_artifact_costs_one_condition_and_no_download(house: House) -> None:
    house.clock.advance(MAX_AGE_S)
    for _ in range(3):
        house.answers_as()
    assert (house.store.n_fetches, house.store.n_conditions, house.store.n_downloads) == (1, 1, 1)


def test_a_broken_newer_version_leaves_the_old_one_serving_and_says_so(house: House) -> None:
    house.store.put("a", b"broken")
    house.clock.advance(MAX_AGE_S)
    assert [house.answers_as(), house.answers_as()] == [0, 0]
    assert "is broken: it is damaged" in house.trouble
    assert house.recorder.collect().total(BROKEN_ARTIFACTS) == 1
    house.put(2)
    house.clock.advance(MAX_AGE_S)
    assert [house.answers_as(), house.answers_as()] == [0, 2]
    assert house.trouble == ""


def test_a_deleted_artifact_is_served_no_longer_after_its_age(house: House) -> None:
    house.store.delete("a")
    house.clock.advance(MAX_AGE_S)
    assert house.answers_as() == 0
    assert "a" not in house.cache
    assert house.cache.resident_bytes == 0


def test_while_the_store_is_away_the_model_stays_and_is_asked_for_again_soon(house: House) -> None:
    house.put(1)
    house.store.error = ArtifactUnavailable("mem:a", "SlowDown")
    house.clock.advance(MAX_AGE_S)
    assert [house.answers_as(), house.answers_as()] == [0, 0]
    assert "SlowDown" in house.trouble
    house.store.error = None
    house.clock.advance(RETRY_S)
    assert [house.answers_as(), house.answers_as()] == [0, 1]


def test_an_unforeseen_failure_of_a_check_does_not_end_the_checking(house: House) -> None:
    house.store.error = RuntimeError("what nobody thought of")
    house.clock.advance(MAX_AGE_S)
    assert house.answers_as() == 0
    house.store.error = None
    house.put(1)
    house.clock.advance(RETRY_S)
    assert [house.answers_as(), house.answers_as()] == [0, 1]


def test_a_newer_version_too_large_for_the_memory_leaves_the_old_one_serving() -> None:
    small = boosters.document(boosters.segment(0))
    house = House(budget_bytes=3 * len(small))
    house.put(0)
    house.answers_as()
    house.store.put("a", small + bytes(4 * len(small)))
    house.clock.advance(MAX_AGE_S)
    assert [house.answers_as(), house.answers_as()] == [0, 0]
    assert "no room for model a" in house.trouble


def test_after_the_checkers_have_shut_down_calls_are_still_answered(house: House) -> None:
    closed = ClosedExecutor()
    house.cache.ages.watch(
        MAX_AGE_S, Revalidator(house.cache, house.loader.prepare_if_changed, closed, house.recorder).look
    )
    house.clock.advance(MAX_AGE_S)
    assert house.answers_as() == 0


class ClosedExecutor(InlineExecutor):
    def submit(self, *_: object, **__: object) -> None:  # type: ignore[override]
        raise RuntimeError("cannot schedule new futures after shutdown")
