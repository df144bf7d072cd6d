"""Loading once, counting bytes, choosing who leaves."""

from __future__ import annotations

import random
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handler.cache.model_cache import ModelCache
from handler.cache.waiting import SHORT_WAIT_S
from handler.errors import ArtifactBroken, ArtifactMissing, ModelNotReady, NoRoom, Unavailable
from handler.telemetry.recorder import (
    EVICTIONS,
    LOADS_NOT_BEGUN,
    MODEL_UNLOADING_TIME,
    SINGLE_FLIGHT_WAITERS,
    LiveRecorder,
)
from tests.rig.fakes import FakeClock, InlineExecutor

WAIT_S = 10.0


class Model:
    """Knows whether its memory was given back, and refuses to be given back twice."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_closed = False

    def close(self) -> None:
        assert not self.is_closed
        self.is_closed = True


@dataclass
class Artifact:
    target: str
    n_bytes: int
    version: str = "v1"
    downloaded_bytes: int = 7
    download_us: int | None = 1
    examine_us: int = 1
    checked_s_ago: float = 0.0
    on_load: Callable[[], None] = lambda: None

    def load(self) -> Model:
        self.on_load()
        return Model(self.target)


@dataclass
class Stock:
    """Artifacts by target. What is prepared is listed; `gate`, when set, holds up every preparation."""

    sizes: dict[str, int]
    prepared: list[str] = field(default_factory=list)
    gate: threading.Event | None = None
    begun: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    load_error: Exception | None = None
    checked_s_ago: float = 0.0

    def prepare(self, target: str) -> Artifact:
        self.prepared.append(target)
        self.begun.release()
        if self.gate is not None:
            assert self.gate.wait(WAIT_S)
        if target not in self.sizes:
            raise ArtifactMissing(target)
        return Artifact(target, self.sizes[target], on_load=self._maybe_fail, checked_s_ago=self.checked_s_ago)

    def _maybe_fail(self) -> None:
        if self.load_error is not None:
            raise self.load_error


def make_cache(stock: Stock, budget_bytes: int, **options: object) -> ModelCache:
    settings = {"executor": InlineExecutor(), "max_waiting": 100, "recorder": LiveRecorder()} | options
    return ModelCache(budget_bytes=budget_bytes, prepare=stock.prepare, **settings)  # type: ignore[arg-type]


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as executor:
        yield executor


def touch(cache: ModelCache, target: str) -> bool:
    """Borrow and let go; whether it was in memory."""
    with cache.borrow(target, WAIT_S) as borrowed:
        assert borrowed.model.name == target  # type: ignore[attr-defined]
        assert not borrowed.model.is_closed  # type: ignore[attr-defined]
        return borrowed.is_hit


def drop(cache: ModelCache, target: str) -> None:
    assert cache.drop(target)


def loaded(cache: ModelCache) -> list[str]:
    return [resident.target for resident in cache.residents()]


def test_the_first_borrower_loads_and_the_second_hits() -> None:
    stock = Stock({"a": 10})
    cache = make_cache(stock, 100)
    assert [touch(cache, "a"), touch(cache, "a")] == [False, True]
    assert stock.prepared == ["a"]
    assert (len(cache), cache.resident_bytes, "a" in cache) == (1, 10, True)


def test_a_load_evicts_the_least_recently_used_and_just_enough() -> None:
    cache = make_cache(Stock({"a": 40, "b": 30, "c": 30, "d": 20}), 100)
    for target in ("a", "b", "c", "a"):
        touch(cache, target)
    touch(cache, "d")
    assert loaded(cache) == ["c", "a", "d"]
    assert cache.resident_bytes == 90


@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=8),
    st.lists(st.integers(0, 7), max_size=60),
)
def test_a_serial_trace_hits_and_evicts_as_the_textbook_lru_does(sizes: list[int], trace: list[int]) -> None:
    stock = Stock({str(number): size for number, size in enumerate(sizes)})
    recorder = LiveRecorder()
    cache = make_cache(stock, 100, recorder=recorder)
    reference: OrderedDict[str, int] = OrderedDict()
    evictions = 0
    for number in trace:
        target = str(number % len(sizes))
        expected = target in reference
        if expected:
            reference.move_to_end(target)
        else:
            while sum(reference.values()) + stock.sizes[target] > 100:
                reference.popitem(last=False)
                evictions += 1
            reference[target] = stock.sizes[target]
        assert touch(cache, target) == expected
        assert loaded(cache) == list(reference)
        assert cache.resident_bytes == sum(reference.values()) <= 100
    assert recorder.collect().total(EVICTIONS) == evictions


def test_a_model_too_big_for_the_whole_budget_evicts_nobody() -> None:
    cache = make_cache(Stock({"a": 50, "b": 50, "huge": 101}), 100)
    touch(cache, "a")
    touch(cache, "b")
    with pytest.raises(NoRoom, match="101 bytes of a budget of 100"):
        touch(cache, "huge")
    assert loaded(cache) == ["a", "b"]


def test_a_borrowed_model_is_not_evicted_for_another() -> None:
    cache = make_cache(Stock({"a": 60, "b": 40, "c": 40}), 100)
    with cache.borrow("a", WAIT_S) as held:
        touch(cache, "b")
        touch(cache, "c")
        assert loaded(cache) == ["a", "c"]
        assert not held.model.is_closed  # type: ignore[attr-defined]


def test_when_everything_is_borrowed_a_load_waits_for_a_release(pool: ThreadPoolExecutor) -> None:
    cache = make_cache(Stock({"a": 100, "b": 100}), 100, executor=pool)
    held = cache.borrow("a", WAIT_S)
    with ThreadPoolExecutor(1) as caller:
        other = caller.submit(touch, cache, "b")
        while not cache._wanting_room:
            pass
        assert cache.resident_bytes == 100
        held.__exit__(None, None, None)
        assert other.result(WAIT_S) is False
    assert loaded(cache) == ["b"]


def test_when_nobody_releases_there_is_no_room_and_nothing_is_lost() -> None:
    cache = make_cache(Stock({"a": 100, "b": 1}), 100, room_wait_s=0.05)
    with cache.borrow("a", WAIT_S), pytest.raises(NoRoom):
        touch(cache, "b")
    assert (loaded(cache), cache.resident_bytes) == (["a"], 100)
    assert touch(cache, "b") is False


def test_a_dropped_model_counts_until_its_last_borrower_lets_go() -> None:
    recorder = LiveRecorder()
    freed: list[int] = []
    cache = make_cache(Stock({"a": 60}), 100, recorder=recorder, on_freed=freed.append)
    with cache.borrow("a", WAIT_S) as first, cache.borrow("a", WAIT_S):
        assert cache.drop("a")
        assert "a" not in cache
        assert cache.resident_bytes == 60
        assert not first.model.is_closed  # type: ignore[attr-defined]
    assert first.model.is_closed  # type: ignore[attr-defined]
    assert (cache.resident_bytes, freed) == (0, [60])
    assert not cache.drop("a")


def test_dropping_an_idle_model_frees_it_at_once_and_is_timed() -> None:
    recorder = LiveRecorder()
    cache = make_cache(Stock({"a": 60}), 100, recorder=recorder)
    touch(cache, "a")
    assert cache.drop("a")
    assert cache.resident_bytes == 0
    assert recorder.collect().count(MODEL_UNLOADING_TIME) == 1


def test_sixty_four_first_callers_cause_one_load(pool: ThreadPoolExecutor) -> None:
    stock = Stock({"a": 10}, gate=threading.Event())
    recorder = LiveRecorder()
    cache = make_cache(stock, 100, executor=pool, recorder=recorder)
    with ThreadPoolExecutor(64) as callers:
        calls = [callers.submit(touch, cache, "a") for _ in range(64)]
        assert stock.begun.acquire(timeout=WAIT_S)
        while recorder.collect().total(SINGLE_FLIGHT_WAITERS) < 60:
            pass  # a few may look at the flights in the very moment the first one starts theirs
        assert stock.gate is not None
        stock.gate.set()
        assert not any(call.result(WAIT_S) for call in calls)
    assert stock.prepared == ["a"]


def test_different_targets_load_at_the_same_time(pool: ThreadPoolExecutor) -> None:
    stock = Stock({str(number): 1 for number in range(8)}, gate=threading.Event())
    cache = make_cache(stock, 100, executor=pool)
    with ThreadPoolExecutor(8) as callers:
        calls = [callers.submit(touch, cache, target) for target in stock.sizes]
        for _ in stock.sizes:  # all eight have begun while none is allowed to end
            assert stock.begun.acquire(timeout=WAIT_S)
        assert stock.gate is not None
        stock.gate.set()
        assert [call.result(WAIT_S) for call in calls] == [False] * 8


def test_a_failed_load_reaches_its_callers_and_is_tried_again() -> None:
    stock = Stock({})
    cache = make_cache(stock, 100)
    with pytest.raises(ArtifactMissing):
        touch(cache, "a")
    stock.sizes["a"] = 10
    assert touch(cache, "a") is False
    assert stock.prepared == ["a", "a"]


def test_a_load_that_fails_after_its_room_was_booked_gives_the_room_back() -> None:
    stock = Stock({"a": 10}, load_error=RuntimeError("native"))
    cache = make_cache(stock, 100)
    with pytest.raises(RuntimeError, match="native"):
        touch(cache, "a")
    assert cache.resident_bytes == 0


def test_a_caller_who_waited_long_enough_leaves_and_the_load_goes_on(pool: ThreadPoolExecutor) -> None:
    stock = Stock({"a": 10}, gate=threading.Event())
    cache = make_cache(stock, 100, executor=pool)
    with pytest.raises(ModelNotReady, match="still loading"):
        cache.borrow("a", 0.01)
    assert stock.gate is not None
    stock.gate.set()
    assert touch(cache, "a") in (True, False)
    assert stock.prepared == ["a"]


def test_when_too_many_wait_one_more_is_sent_away_soon_and_its_load_begins(pool: ThreadPoolExecutor) -> None:
    stock = Stock({"a": 10, "b": 10, "c": 10}, gate=threading.Event())
    cache = make_cache(stock, 100, executor=pool, max_waiting=1)
    with ThreadPoolExecutor(1) as callers:
        waiting = callers.submit(touch, cache, "a")
        assert stock.begun.acquire(timeout=WAIT_S)
        with pytest.raises(ModelNotReady) as raised:
            touch(cache, "b")
        assert raised.value.waited_s == SHORT_WAIT_S
        assert stock.begun.acquire(timeout=WAIT_S)
        assert stock.gate is not None
        stock.gate.set()
        assert waiting.result(WAIT_S) is False
    assert sorted(stock.prepared) == ["a", "b"]


def test_while_loads_are_short_who_finds_no_place_stays_for_one(pool: ThreadPoolExecutor) -> None:
    names = [f"m{number}" for number in range(8)]
    stock = Stock(dict.fromkeys(names, 10))
    cache = make_cache(stock, 100, executor=pool, max_waiting=1)
    with ThreadPoolExecutor(8) as callers:
        assert list(callers.map(lambda name: touch(cache, name), names)) == [False] * 8


def test_when_loads_take_long_who_finds_no_place_is_sent_away_at_once(pool: ThreadPoolExecutor) -> None:
    stock = Stock({"a": 10, "b": 10}, gate=threading.Event())
    cache = make_cache(stock, 100, executor=pool, max_waiting=1)
    with ThreadPoolExecutor(1) as callers:
        waiting = callers.submit(touch, cache, "a")
        assert stock.begun.acquire(timeout=WAIT_S)
        until_crowded = 20
        while not cache.waiting.is_crowded and until_crowded:
            until_crowded -= 1
            with pytest.raises(ModelNotReady):
                touch(cache, "b")
        with pytest.raises(ModelNotReady) as raised:
            touch(cache, "b")
        assert raised.value.waited_s == 0.0
        assert stock.gate is not None
        stock.gate.set()
        assert waiting.result(WAIT_S) is False


def test_a_smaller_budget_evicts_the_oldest_until_they_fit_and_a_larger_one_takes_more_again() -> None:
    cache = make_cache(Stock({"a": 10, "b": 20, "c": 30}), 100)
    for target in ("a", "b", "c"):
        touch(cache, target)
    assert cache.resize(45) == 30
    assert loaded(cache) == ["c"]
    touch(cache, "a")
    assert cache.resize(45) == 0
    assert (cache.budget_bytes, loaded(cache)) == (45, ["c", "a"])
    with pytest.raises(NoRoom):
        cache.replace("c", "v1", Artifact("c", 50, "v2"))
    assert cache.resize(100) == 0
    touch(cache, "b")
    assert loaded(cache) == ["c", "a", "b"]


def test_models_too_young_to_be_evicted_for_others_leave_when_the_memory_does() -> None:
    cache = make_cache(Stock({"a": 10, "b": 20}), 100, min_residence_s=1000)
    touch(cache, "a")
    touch(cache, "b")
    assert cache.resize(20) == 10
    assert loaded(cache) == ["b"]


def test_a_closed_cache_frees_everything_and_loads_nothing() -> None:
    cache = make_cache(Stock({"a": 10, "b": 10}), 100)
    touch(cache, "a")
    cache.close()
    assert (len(cache), cache.resident_bytes) == (0, 0)
    with pytest.raises(Unavailable):
        touch(cache, "b")
    assert cache.resident_bytes == 0


def test_residents_tell_age_idle_time_hits_and_borrowers() -> None:
    clock = FakeClock()
    cache = make_cache(Stock({"a": 10}), 100, clock=clock)
    touch(cache, "a")
    clock.advance(5)
    touch(cache, "a")
    clock.advance(2)
    (resident,) = cache.residents()
    assert (resident.age_s, resident.idle_s, resident.hits, resident.borrowers) == (7, 2, 1, 0)
    assert (resident.target, resident.version, resident.n_bytes) == ("a", "v1", 10)


def test_a_pinned_model_is_never_evicted_and_counts() -> None:
    cache = make_cache(Stock({"a": 40, "b": 30, "c": 30, "d": 30}), 100, is_pinned=lambda target: target == "a")
    for target in "abcd":
        touch(cache, target)
    assert sorted(loaded(cache)) == ["a", "c", "d"]
    assert [one.target for one in cache.residents() if one.is_pinned] == ["a"]
    assert cache.resize(50) == 60
    assert loaded(cache) == ["a"]


def test_what_does_not_fit_beside_the_pinned_evicts_nobody_and_is_told_why() -> None:
    cache = make_cache(Stock({"a": 60, "b": 30, "c": 50}), 100, is_pinned=lambda target: target == "a")
    touch(cache, "a")
    touch(cache, "b")
    with pytest.raises(NoRoom, match="model c beside 60 bytes of pinned models: it needs 50 bytes of a budget of 100"):
        touch(cache, "c")
    assert sorted(loaded(cache)) == ["a", "b"]
    assert cache.drop("a")
    assert touch(cache, "c") is False


def test_a_pinned_model_can_be_replaced_and_dropped() -> None:
    cache = make_cache(Stock({"a": 40}), 100, is_pinned=lambda _: True)
    touch(cache, "a")
    assert cache.replace("a", "v1", Artifact("a", 50, "v2"))
    assert not cache.replace("a", "v2", Artifact("a", 60, "v3"))  # never both at once
    assert loaded(cache) == []
    assert touch(cache, "a") is False


def test_a_model_stays_for_its_minimum_residence() -> None:
    clock = FakeClock()
    cache = make_cache(Stock({"a": 40, "b": 40, "c": 40}), 100, clock=clock, min_residence_s=10)
    touch(cache, "a")
    clock.advance(9)
    touch(cache, "b")
    clock.advance(1)
    touch(cache, "a")  # the most recently used, and old enough
    touch(cache, "c")
    assert loaded(cache) == ["b", "c"]


def test_a_load_among_young_models_waits_until_one_is_old_enough(pool: ThreadPoolExecutor) -> None:
    cache = make_cache(Stock({"a": 100, "b": 100}), 100, executor=pool, min_residence_s=0.2)
    assert [touch(cache, "a"), touch(cache, "b")] == [False, False]
    assert loaded(cache) == ["b"]


def test_filling_in_evicts_nobody() -> None:
    cache = make_cache(Stock({"a": 60, "b": 30, "c": 30}), 100)
    assert [cache.fill(target) for target in "abc"] == [True, True, False]
    assert loaded(cache) == ["a", "b"]
    assert cache.fill("a")
    with pytest.raises(ArtifactMissing):
        cache.fill("nothing")


def test_who_fills_in_loads_on_his_own_thread_and_leaves_the_loaders_to_callers(pool: ThreadPoolExecutor) -> None:
    cache = make_cache(Stock({"a": 60}), 100, executor=pool)
    pool.shutdown()
    assert cache.fill("a")


def test_filling_in_a_pinned_model_makes_room() -> None:
    cache = make_cache(Stock({"a": 60, "b": 60}), 100, is_pinned=lambda target: target == "b")
    assert cache.fill("a")
    assert cache.fill("b")
    assert loaded(cache) == ["b"]


def test_a_caller_who_came_along_with_a_fill_that_found_no_room_is_served(pool: ThreadPoolExecutor) -> None:
    stock = Stock({"a": 60, "b": 60})
    cache = make_cache(stock, 100, executor=pool)
    touch(cache, "a")
    stock.gate = threading.Event()
    with ThreadPoolExecutor(2) as callers:
        assert stock.begun.acquire(timeout=WAIT_S)
        filling = callers.submit(cache.fill, "b")
        assert stock.begun.acquire(timeout=WAIT_S)
        calling = callers.submit(touch, cache, "b")
        while not cache.waiting.n_waiting:
            pass
        stock.gate.set()
        assert filling.result(WAIT_S) is False
        assert calling.result(WAIT_S) is False
    assert loaded(cache) == ["b"]


def test_a_model_is_told_to_be_old_once_by_the_first_who_asks_after_its_age() -> None:
    clock = FakeClock()
    cache = make_cache(Stock({"a": 10}), 100, clock=clock)
    told: list[tuple[str, str]] = []
    cache.ages.watch(60, lambda target, version: told.append((target, version)))
    touch(cache, "a")
    clock.advance(59)
    touch(cache, "a")
    assert told == []
    clock.advance(1)
    assert [touch(cache, "a"), touch(cache, "a")] == [True, True]
    assert told == [("a", "v1")]
    cache.ages.keep("a", "v1", trouble="the store is away", again_s=5)
    assert cache.residents()[0].trouble == "the store is away"
    clock.advance(5)
    touch(cache, "a")
    assert len(told) == 2
    cache.ages.keep("a", "v1")
    assert cache.residents()[0].trouble == ""
    clock.advance(59)
    touch(cache, "a")
    assert len(told) == 2


def test_a_model_that_was_checked_long_ago_is_told_as_soon_as_it_is_loaded() -> None:
    stock = Stock({"a": 10})
    cache = make_cache(stock, 100)
    told: list[str] = []
    cache.ages.watch(60, lambda target, _: told.append(target))
    stock.checked_s_ago = 61
    touch(cache, "a")
    assert told == ["a"]


def test_a_newer_version_takes_the_place_of_the_old_one_which_leaves_with_its_last_borrower() -> None:
    recorder = LiveRecorder()
    cache = make_cache(Stock({"a": 30, "b": 30}), 100, recorder=recorder)
    touch(cache, "a")
    touch(cache, "b")
    with cache.borrow("a", WAIT_S) as old:
        touch(cache, "b")
        assert cache.replace("a", "v1", Artifact("a", 40, "v2"))
        assert cache.resident_bytes == 100
        with cache.borrow("a", WAIT_S) as new:
            assert new.is_hit
            assert new.model is not old.model
        assert not old.model.is_closed  # type: ignore[attr-defined]
        touch(cache, "b")
    assert old.model.is_closed  # type: ignore[attr-defined]
    assert cache.resident_bytes == 70
    assert [(one.target, one.version, one.hits) for one in cache.residents()] == [("a", "v2", 2), ("b", "v1", 2)]
    assert recorder.collect().total(EVICTIONS) == 0


def test_being_replaced_is_no_use_of_a_model() -> None:
    cache = make_cache(Stock({"a": 30, "b": 30}), 100)
    touch(cache, "a")
    touch(cache, "b")
    assert cache.replace("a", "v1", Artifact("a", 30, "v2"))
    assert loaded(cache) == ["a", "b"]
    assert cache.resident_bytes == 60


def test_a_version_that_has_left_meanwhile_is_not_replaced() -> None:
    cache = make_cache(Stock({"a": 30}), 100)
    assert not cache.replace("a", "v1", Artifact("a", 30, "v2"))
    touch(cache, "a")
    assert not cache.replace("a", "v0", Artifact("a", 30, "v2"))
    assert cache.replace("a", "v1", Artifact("a", 30, "v2"))
    assert not cache.replace("a", "v2", Artifact("a", 30, "v3", on_load=lambda: drop(cache, "a")))
    assert (loaded(cache), cache.resident_bytes) == ([], 0)


def test_when_the_newer_version_does_not_load_the_old_one_stays() -> None:
    cache = make_cache(Stock({"a": 30}), 100)
    touch(cache, "a")

    def fail() -> None:
        raise RuntimeError("native")

    with pytest.raises(RuntimeError, match="native"):
        cache.replace("a", "v1", Artifact("a", 30, "v2", on_load=fail))
    with pytest.raises(NoRoom):
        cache.replace("a", "v1", Artifact("a", 101, "v2"))
    assert touch(cache, "a")
    assert cache.resident_bytes == 30


def test_where_two_versions_never_fit_side_by_side_the_old_one_leaves_for_the_next_call_to_load_the_new() -> None:
    stock = Stock({"a": 60})
    cache = make_cache(stock, 100)
    touch(cache, "a")
    assert not cache.replace("a", "v1", Artifact("a", 60, "v2"))
    assert touch(cache, "a") is False


def test_models_are_replaced_dropped_and_evicted_under_callers_and_nobody_sees_half_of_it(
    pool: ThreadPoolExecutor,
) -> None:
    stock = Stock({str(number): 5 + number for number in range(12)})
    cache = make_cache(stock, 100, executor=pool)
    stop = threading.Event()
    replaced = Counter[bool]()

    def renew(seed: int) -> None:
        choice = random.Random(seed)
        number = 0
        while not stop.is_set():
            target = str(choice.randrange(12))
            number += 1
            for resident in cache.residents():
                if resident.target == target:
                    if choice.random() < 0.1:
                        cache.drop(target, resident.version)
                        break
                    size = choice.randrange(1, 30)
                    replaced[cache.replace(target, resident.version, Artifact(target, size, f"{seed}.{number}"))] += 1

    def call(seed: int) -> None:
        choice = random.Random(seed)
        for _ in range(600):
            target = str(choice.randrange(12))
            with cache.borrow(target, WAIT_S) as borrowed:
                assert borrowed.model.name == target  # type: ignore[attr-defined]
                assert not borrowed.model.is_closed  # type: ignore[attr-defined]
                assert cache.resident_bytes <= 100
                assert not borrowed.model.is_closed  # type: ignore[attr-defined]

    with ThreadPoolExecutor(6) as threads:
        renewing = [threads.submit(renew, seed) for seed in range(2)]
        calling = [threads.submit(call, seed) for seed in range(4)]
        try:
            for one in calling:
                one.result()
        finally:
            stop.set()
        for one in renewing:
            one.result()
    assert replaced[True] > 20
    assert cache.resident_bytes == sum(resident.n_bytes for resident in cache.residents())
    cache.close()
    assert cache.resident_bytes == 0


def test_under_threads_the_book_stays_true_and_nobody_gets_a_closed_or_foreign_model(pool: ThreadPoolExecutor) -> None:
    stock = Stock({str(number): 5 + number % 7 for number in range(40)})
    cache = make_cache(stock, 100, executor=pool)
    overdrawn: list[int] = []

    def caller(seed: int) -> int:
        choice = random.Random(seed)
        hits = 0
        for _ in range(300):
            with ExitStack() as held:
                for _ in range(choice.choice((1, 1, 1, 2))):
                    target = str(choice.randrange(40))
                    borrowed = held.enter_context(cache.borrow(target, WAIT_S))
                    assert borrowed.model.name == target  # type: ignore[attr-defined]
                    assert not borrowed.model.is_closed  # type: ignore[attr-defined]
                    hits += borrowed.is_hit
                if cache.resident_bytes > 100:
                    overdrawn.append(cache.resident_bytes)
        return hits

    with ThreadPoolExecutor(6) as callers:
        hits = sum(callers.map(caller, range(6)))
    assert hits > 0
    assert not overdrawn
    assert cache.resident_bytes == sum(resident.n_bytes for resident in cache.residents())
    cache.close()
    assert cache.resident_bytes == 0


def test_what_is_known_to_be_refused_is_told_without_waiting_for_a_thread(pool: ThreadPoolExecutor) -> None:
    known = {"bad": ArtifactBroken("s3://b/bad", "it is damaged")}
    stock = Stock({"a": 10, "bad": 10}, gate=threading.Event())
    cache = make_cache(stock, 100, executor=pool, max_waiting=1, refused=known.get)
    with ThreadPoolExecutor(1) as callers:
        waiting = callers.submit(touch, cache, "a")
        assert stock.begun.acquire(timeout=WAIT_S)
        with pytest.raises(ArtifactBroken) as told:
            touch(cache, "bad")
        assert told.value is not known["bad"]
        assert stock.gate is not None
        stock.gate.set()
        waiting.result(WAIT_S)
    assert stock.prepared == ["a"]


class Extra:
    """Something booked beside the models that can be let go of unless it is in use."""

    def __init__(self, n_bytes: int) -> None:
        self.n_bytes = n_bytes
        self.is_in_use = False
        self.cache: ModelCache | None = None

    def give_up(self) -> int:
        if self.is_in_use or not self.n_bytes:
            return 0
        assert self.cache is not None
        given, self.n_bytes = self.n_bytes, 0
        self.cache.unbook(given)
        return given


def with_extra(n_bytes: int, **sizes: int) -> tuple[ModelCache, Extra]:
    """A budget of 100, the models loaded, then the extra booked."""
    extra = Extra(n_bytes)
    extra.cache = cache = make_cache(Stock(sizes), 100, give_up=extra.give_up)
    for target in sizes:
        touch(cache, target)
    cache.book("an extra", n_bytes)
    return cache, extra


def test_models_are_evicted_for_what_is_booked_beside_them() -> None:
    cache, _ = with_extra(50, a=40, b=30, c=30)
    assert loaded(cache) == ["c"]
    assert cache.resident_bytes == 80


def test_what_is_idle_beside_the_models_goes_before_any_of_them() -> None:
    cache, extra = with_extra(50, a=20, b=30)
    cache.replace("a", "v1", Artifact("a", 40, "v2"))
    assert (loaded(cache), extra.n_bytes, cache.resident_bytes) == (["a", "b"], 0, 70)


def test_what_is_in_use_beside_the_models_stays_and_they_go() -> None:
    cache, extra = with_extra(50, a=20, b=30)
    extra.is_in_use = True
    assert cache.resize(80) == 20
    assert loaded(cache) == ["b"]
    extra.is_in_use = False
    assert cache.resize(60) == 50
    assert loaded(cache) == ["b"]
    assert cache.resident_bytes == 30


def test_there_is_no_room_for_what_is_larger_than_the_budget() -> None:
    cache = make_cache(Stock({"a": 10}), 100)
    touch(cache, "a")
    with pytest.raises(NoRoom, match="no room for an extra: it needs 101 bytes of a budget of 100"):
        cache.book("an extra", 101)
    assert loaded(cache) == ["a"]


def test_a_caller_who_is_turned_away_begins_no_load_when_the_line_is_full(pool: ThreadPoolExecutor) -> None:
    stock = Stock({"a": 1, "known": 1}, gate=threading.Event())
    recorder = LiveRecorder()
    cache = make_cache(stock, 100, executor=pool, max_waiting=1, max_line=3, recorder=recorder)
    first = pool.submit(touch, cache, "a")
    assert stock.begun.acquire(timeout=WAIT_S)
    for number in range(10):
        with pytest.raises(ModelNotReady):
            cache.borrow(f"invented {number}", 0.0)
    assert stock.begun.acquire(timeout=WAIT_S)
    assert stock.begun.acquire(timeout=WAIT_S)
    assert stock.prepared == ["a", "invented 0", "invented 1"]
    assert recorder.collect().total(LOADS_NOT_BEGUN) == 8
    assert stock.gate is not None
    stock.gate.set()
    first.result(WAIT_S)
    assert not touch(cache, "known")
