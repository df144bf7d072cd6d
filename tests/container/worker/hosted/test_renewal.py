"""Which object a hosted model is compared with, what of it is new, and that none of this drops a model."""

from __future__ import annotations

import pytest

from container.worker.hosted.renewal import HeldModels, Renewal, versioned
from handler.cache.model_cache import ModelCache
from handler.errors import ArtifactBroken
from handler.forest.booster_pool import BoosterPool
from handler.loading.loader import Examined, ModelLoader
from handler.predictor import Facts, HandlePool
from handler.revalidation.revalidator import Revalidator
from handler.telemetry.recorder import MODEL_UPDATES, LiveRecorder
from tests.rig import boosters
from tests.rig.fakes import FakeClock, InlineExecutor, MemoryStore

MAX_AGE_S = 60.0
X = boosters.rows(3, 6)
KEY = "5f3a@9001"


class Verdict:
    def __init__(self, document: bytes) -> None:
        self.documents = (document,)
        self.facts = (Facts("reg:squarederror", "gbtree", 6, 1, len(document)),)


class Instance:
    """A store, what the platform unpacked from it, and one hosted model."""

    def __init__(self, budget_bytes: int = 1 << 20) -> None:
        self.clock = FakeClock()
        self.store = MemoryStore()
        self.put(0)
        self.recorder = LiveRecorder()
        self.loader = ModelLoader(self.store, self.examine, BoosterPool(HandlePool()), n_threads=1)
        self.renewal = Renewal(self.loader, extra_bytes=1000, hook=lambda _, prepared: prepared)
        unpacked = versioned(self.loader.prepare("a"))
        self.cache = ModelCache(
            budget_bytes=budget_bytes,
            prepare=lambda _: unpacked,
            executor=InlineExecutor(),
            max_waiting=4,
            recorder=self.recorder,
            room_wait_s=0.0,
            is_pinned=lambda _: True,
            clock=self.clock,
        )
        held = HeldModels(self.cache)
        revalidator = Revalidator(held, self.renewal.prepare_if_changed, InlineExecutor(), self.recorder)
        self.cache.ages.watch(MAX_AGE_S, revalidator.look)
        self.borrowed = self.cache.borrow(KEY, 1.0)

    def examine(self, blob: bytes, uri: str) -> Examined:
        if blob == b"broken":
            raise ArtifactBroken(uri, "it is damaged")
        return Verdict(blob)

    def put(self, number: int) -> None:
        self.store.put("a", boosters.document(boosters.segment(number)))

    def answers_as(self) -> int:
        """After the check that a call too old begins."""
        self.clock.advance(MAX_AGE_S + 1)
        with self.cache.borrow(KEY, 1.0):
            pass
        with self.cache.borrow(KEY, 1.0) as borrowed:
            scores = borrowed.model.predict(X)
        (found,) = [n for n in range(3) if (boosters.expected(boosters.segment(n), X) == scores).all()]
        return found

    @property
    def trouble(self) -> str:
        return self.cache.residents()[0].trouble


def test_a_model_whose_calls_name_no_target_is_compared_with_nothing() -> None:
    instance = Instance()
    instance.put(1)
    instance.renewal.learn(KEY, None)
    instance.renewal.learn(KEY, "../a")
    n_fetches = instance.store.n_fetches
    assert instance.answers_as() == 0
    assert (instance.store.n_fetches, instance.store.n_conditions) == (n_fetches, 0)


def test_the_first_comparison_fetches_and_later_ones_are_conditional() -> None:
    instance = Instance()
    instance.renewal.learn(KEY, "a")
    before = instance.store.n_downloads
    for _ in range(3):
        assert instance.answers_as() == 0
        assert instance.store.n_downloads - before == 1
    assert instance.store.n_conditions == 3
    assert instance.recorder.collect().total(MODEL_UPDATES) == 0


def test_what_was_overwritten_before_the_first_call_is_seen_too() -> None:
    instance = Instance()
    instance.put(1)
    instance.renewal.learn(KEY, "a")
    assert instance.answers_as() == 1
    instance.put(2)
    assert instance.answers_as() == 2
    assert instance.recorder.collect().total(MODEL_UPDATES) == 2


def test_the_first_target_counts() -> None:
    instance = Instance()
    instance.store.put("b", boosters.document(boosters.segment(2)))
    instance.renewal.learn(KEY, "a")
    instance.renewal.learn(KEY, "b")
    assert instance.answers_as() == 0


def test_a_port_that_was_unloaded_is_forgotten() -> None:
    instance = Instance()
    instance.renewal.learn(KEY, "a")
    instance.renewal.forget(KEY)
    instance.put(1)
    assert instance.answers_as() == 0


def test_a_model_whose_object_is_gone_or_broken_stays_and_says_so() -> None:
    instance = Instance()
    instance.renewal.learn(KEY, "a")
    instance.store.delete("a")
    assert instance.answers_as() == 0
    assert instance.trouble == "its object is gone; the platform has not unloaded the model"
    instance.store.put("a", b"broken")
    assert instance.answers_as() == 0
    assert "it is damaged" in instance.trouble
    instance.put(1)
    assert instance.answers_as() == 1
    assert instance.trouble == ""


def test_without_room_for_both_the_old_one_stays_until_there_is() -> None:
    size = len(boosters.document(boosters.segment(0)))
    instance = Instance(budget_bytes=int(size * 1.5))
    instance.renewal.learn(KEY, "a")
    instance.put(1)
    assert instance.answers_as() == 0
    assert "no room" in instance.trouble
    instance.cache.resize(size * 20)
    assert instance.answers_as() == 1


def test_a_version_is_what_is_in_it() -> None:
    instance = Instance()
    one = instance.loader.prepare("a")
    instance.put(1)
    instance.clock.advance(1)
    other = instance.loader.prepare("a")
    versions = {versioned(prepared).version for prepared in (one, one, other)}
    assert len(versions) == 2
    assert all(version.startswith("sha256:") for version in versions)


@pytest.mark.parametrize("raw", ["", "/", "a/../b", "a\0b"])
def test_a_target_that_is_none_is_not_learned(raw: str) -> None:
    instance = Instance()
    instance.renewal.learn(KEY, raw)
    instance.put(1)
    assert instance.answers_as() == 0
