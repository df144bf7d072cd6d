"""Models loaded before anybody asks for them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from container.worker.preload import AWAY_AFTER, Preload
from handler.cache.model_cache import ModelCache
from handler.errors import ArtifactBroken, ArtifactUnavailable
from handler.forest.booster_pool import BoosterPool
from handler.loading.loader import Examined, ModelLoader
from handler.patterns import Patterns
from handler.predictor import Facts, HandlePool
from handler.telemetry.recorder import EVICTIONS, LiveRecorder
from tests.rig import boosters
from tests.rig.fakes import MemoryStore

MODEL_BYTES = 20_000
DOCUMENT = boosters.document(boosters.segment(0))


class Verdict:
    documents = (DOCUMENT,)

    def __init__(self, n_bytes: int) -> None:
        self.facts = (Facts("reg:squarederror", "gbtree", 6, 1, n_bytes),)


class House:
    """A store of ten models, and a cache with room for about `room` of them."""

    def __init__(self, executor: ThreadPoolExecutor, pinned: str, room: int) -> None:
        self.looked_into: Callable[[str], object] = lambda _: None
        self.store = MemoryStore()
        for number in range(10):
            self.store.put(f"{'ab'[number % 2]}/{number}", b"model")
        self.recorder = LiveRecorder()
        self.pinned = Patterns.parse(pinned)
        self.cache = ModelCache(
            budget_bytes=(MODEL_BYTES + 4000) * room,
            prepare=ModelLoader(self.store, self.examine, BoosterPool(HandlePool()), n_threads=1).prepare,
            executor=executor,
            max_waiting=4,
            recorder=self.recorder,
            is_pinned=self.pinned.match,
        )

    def examine(self, blob: bytes, uri: str) -> Examined:
        self.looked_into(uri)
        if blob == b"broken":
            raise ArtifactBroken(uri, "it is damaged")
        return Verdict(MODEL_BYTES * 1000 if blob == b"large" else MODEL_BYTES)

    def preload(
        self, patterns: str, n_small: int = 0, is_small: Callable[[str], bool] = lambda _: False, n_threads: int = 2
    ) -> None:
        done = threading.Event()
        preload = Preload(
            self.cache,
            self.store,
            pinned=self.pinned,
            preloaded=Patterns.parse(patterns),
            n_threads=n_threads,
            n_small=n_small,
            is_small=is_small,
            on_done=done.set,
        )
        assert not preload.is_done
        preload.start()
        assert done.wait(30)
        assert preload.is_done
        preload.close()

    @property
    def loaded(self) -> set[str]:
        return {resident.target for resident in self.cache.residents()}


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as executor:
        yield executor


def test_everything_that_matches_is_in_memory_when_it_is_done(executor: ThreadPoolExecutor) -> None:
    house = House(executor, "", room=20)
    house.preload("a/*,b/3")
    assert house.loaded == {"a/0", "a/2", "a/4", "a/6", "a/8", "b/3"}


def test_it_ends_where_the_memory_does_and_evicts_nobody(
    executor: ThreadPoolExecutor, caplog: pytest.LogCaptureFixture
) -> None:
    house = House(executor, "", room=4)
    house.preload("all")
    assert len(house.loaded) == 4
    assert house.recorder.collect().total(EVICTIONS) == 0
    assert house.store.n_fetches < 10
    assert "the memory for models is full" in caplog.text


def test_pinned_models_come_first(executor: ThreadPoolExecutor) -> None:
    house = House(executor, "b/*", room=6)
    house.preload("a/*")
    assert house.loaded >= {"b/1", "b/3", "b/5", "b/7", "b/9"}
    assert len(house.loaded) == 6


def test_pinned_models_larger_than_the_memory_are_told_and_do_not_keep_it_from_starting(
    executor: ThreadPoolExecutor, caplog: pytest.LogCaptureFixture
) -> None:
    house = House(executor, "all", room=3)
    house.preload("")
    assert len(house.loaded) == 3
    assert "pinned models need more than all memory for models" in caplog.text


def test_a_model_too_large_for_all_memory_does_not_mean_that_it_is_full(executor: ThreadPoolExecutor) -> None:
    house = House(executor, "", room=4)
    house.store.put("a/0", b"large")
    house.preload("a/*")
    assert house.loaded == {"a/2", "a/4", "a/6", "a/8"}


def test_broken_archives_are_passed_over(executor: ThreadPoolExecutor, caplog: pytest.LogCaptureFixture) -> None:
    house = House(executor, "", room=20)
    for number in (0, 2):
        house.store.put(f"a/{number}", b"broken")
    with caplog.at_level(logging.INFO):
        house.preload("a/*")
    assert house.loaded == {"a/4", "a/6", "a/8"}
    assert "model a/0 is not preloaded" in caplog.text
    assert "2 could not be loaded" in caplog.text


def test_a_store_that_cannot_be_listed_is_said_and_it_starts_all_the_same(
    executor: ThreadPoolExecutor, caplog: pytest.LogCaptureFixture
) -> None:
    house = House(executor, "", room=20)
    house.store.error = ArtifactUnavailable("mem:", "AccessDenied")
    house.preload("all")
    assert house.loaded == set()
    assert "not everything can be preloaded" in caplog.text


def test_a_store_that_goes_away_is_not_asked_for_every_model(
    executor: ThreadPoolExecutor, caplog: pytest.LogCaptureFixture
) -> None:
    house = House(executor, "", room=20)
    for number in range(100):
        house.store.put(f"c/{number}", b"model")
    house.store.fetch_error = ArtifactUnavailable("mem:", "SlowDown")
    house.preload("c/*")
    assert AWAY_AFTER <= house.store.n_fetches <= AWAY_AFTER + 2
    assert "the store is away" in caplog.text


def test_what_is_known_to_be_small_is_loaded_more_at_a_time(executor: ThreadPoolExecutor) -> None:
    house = House(executor, "", room=20)
    meeting = threading.Barrier(5)
    house.looked_into = lambda _: meeting.wait(30)
    house.preload("a/*", n_small=5, is_small=lambda target: target.startswith("a/"))
    assert len(house.loaded) == 5


def test_of_what_may_be_large_no_more_are_loaded_at_a_time_than_ever(executor: ThreadPoolExecutor) -> None:
    house = House(executor, "", room=20)
    lock, at_once, most = threading.Lock(), 0, 0

    def look(_: str) -> None:
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        pause.wait(0.02)
        with lock:
            at_once -= 1

    pause = threading.Event()  # nobody sets it: it gives a third the time to come
    house.looked_into = look
    house.preload("all", n_small=5)
    assert len(house.loaded) == 10
    assert most <= 2


def test_nothing_that_waits_for_its_turn_is_loaded_once_the_memory_is_full(executor: ThreadPoolExecutor) -> None:
    house = House(executor, "", room=2)
    house.preload("all", n_small=10)
    assert len(house.loaded) == 2
    assert house.store.n_fetches <= 5


def test_models_are_begun_in_their_order_however_many_wait_for_their_turn(executor: ThreadPoolExecutor) -> None:
    for _ in range(20):
        house = House(executor, "b/5", room=20)
        looked_into: list[str] = []
        house.looked_into = looked_into.append
        house.preload("all", n_small=10, n_threads=1)
        others = sorted(target for target in house.loaded if target != "b/5")
        assert [uri.removeprefix("mem:") for uri in looked_into] == ["b/5", *others]
