from __future__ import annotations

import gc
import threading
import traceback
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest

from handler.cache.singleflight import Flight, Flights, Here
from handler.errors import (
    ArtifactForbidden,
    ContentTypeUnsupported,
    ModelNotReady,
    NoRoom,
    PayloadInvalid,
    TargetInvalid,
    Unavailable,
)

PATIENCE_S = 20.0


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as executor:
        yield executor


def call_from_threads(count: int, call: Callable[[int], Any]) -> list[Any]:
    """What `call(i)` returned or raised in each of `count` threads that run at once."""
    outcomes: list[Any] = [None] * count

    def run(i: int) -> None:
        try:
            outcomes[i] = call(i)
        except BaseException as error:  # noqa: BLE001 - handed to the test
            outcomes[i] = error

    threads = [threading.Thread(target=run, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    return outcomes


class Work:
    """Counts its runs, and ends when the test says so."""

    def __init__(self, end: Callable[[], Any]) -> None:
        self.runs = 0
        self.started = threading.Event()
        self.may_end = threading.Event()
        self._end = end

    def __call__(self) -> Any:
        self.runs += 1
        self.started.set()
        assert self.may_end.wait(PATIENCE_S)
        return self._end()


def test_sixty_four_first_callers_of_one_key_share_one_run(executor: Executor) -> None:
    flights: Flights[str, object] = Flights(executor)
    work = Work(object)
    everyone_joined = threading.Barrier(64, action=work.may_end.set)

    def call(_: int) -> object:
        flight = flights.join("a", work)
        everyone_joined.wait(PATIENCE_S)
        return flight.result(PATIENCE_S)

    outcomes = call_from_threads(64, call)
    assert work.runs == 1
    assert len({id(outcome) for outcome in outcomes}) == 1
    assert type(outcomes[0]) is object
    assert len(flights) == 0


def test_different_keys_run_side_by_side(executor: Executor) -> None:
    flights: Flights[str, int] = Flights(executor)
    meeting = threading.Barrier(2)
    first, second = (flights.join(key, lambda: meeting.wait(PATIENCE_S)) for key in "ab")
    assert {first.result(PATIENCE_S), second.result(PATIENCE_S)} == {0, 1}


def test_a_caller_after_the_outcome_starts_a_new_run(executor: Executor) -> None:
    flights: Flights[str, int] = Flights(executor)
    runs = iter(range(100))
    assert [flights.join("a", lambda: next(runs)).result(PATIENCE_S) for _ in range(100)] == list(range(100))


def test_an_error_reaches_every_waiter_as_an_instance_of_its_own(executor: Executor) -> None:
    flights: Flights[str, None] = Flights(executor)
    original = ArtifactForbidden("s3://b/a", "AccessDenied")

    def fail() -> None:
        raise original

    work = Work(fail)
    everyone_joined = threading.Barrier(32, action=work.may_end.set)

    def call(_: int) -> None:
        flight = flights.join("a", work)
        everyone_joined.wait(PATIENCE_S)
        flight.result(PATIENCE_S)

    errors = call_from_threads(32, call)
    assert work.runs == 1
    assert {type(error) for error in errors} == {ArtifactForbidden}
    assert {(error.uri, error.code, str(error)) for error in errors} == {
        ("s3://b/a", "AccessDenied", "artifact s3://b/a may not be read (AccessDenied)")
    }
    assert len({id(error) for error in [*errors, original]}) == 33
    assert all(error.__cause__ is original for error in errors)
    assert max(len(traceback.extract_tb(error.__traceback__)) for error in errors) <= 3


def test_waiting_again_and_again_for_a_failed_flight_grows_no_traceback(executor: Executor) -> None:
    flight: Flight[float] = Flights[str, float](executor).join("a", lambda: 1 / 0)
    for _ in range(50):
        with pytest.raises(ZeroDivisionError) as caught:
            flight.result(PATIENCE_S)
        original = caught.value.__cause__
    assert original is not None
    assert len(traceback.extract_tb(original.__traceback__)) == 2


def test_an_error_is_not_remembered(executor: Executor) -> None:
    flights: Flights[str, int] = Flights(executor)
    with pytest.raises(ZeroDivisionError):
        flights.join("a", lambda: 1 // 0).result(PATIENCE_S)
    assert flights.join("a", lambda: 7).result(PATIENCE_S) == 7


def test_a_caller_told_of_an_error_never_joins_the_flight_that_failed(executor: Executor) -> None:
    flights: Flights[str, int] = Flights(executor)
    told: list[int] = []

    def again(_: Future[int]) -> None:
        told.append(len(flights))

    for _ in range(50):
        flight = flights.join("a", lambda: 1 // 0)
        flight.add_done_callback(again)
        flight.exception(PATIENCE_S)
    assert set(told) <= {0}


class Odd(Exception):
    def __new__(cls, *, only_by_name: int) -> Odd:
        return super().__new__(cls)

    def __init__(self, *, only_by_name: int) -> None:
        super().__init__(f"odd {only_by_name}", only_by_name)


def decode_error() -> UnicodeDecodeError:
    return UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")


@pytest.mark.parametrize(
    "error",
    [
        ArtifactForbidden("s3://b/a", "AccessDenied"),
        ContentTypeUnsupported("text/x", ["text/csv"]),
        ModelNotReady("a", 1.5),
        NoRoom("a", 10, 5),
        PayloadInvalid("line 3", "not a number"),
        TargetInvalid(None, "missing"),
        Unavailable("draining", 7),
        FileNotFoundError(2, "No such file", "/a/b"),
        decode_error(),
        KeyError("a"),
        ExceptionGroup("two", [ValueError(1), TypeError(2)]),
        SystemExit(3),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_waiters_error_carries_the_values_of_the_original(executor: Executor, error: BaseException) -> None:
    def fail() -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        Flights[str, None](executor).join("a", fail).result(PATIENCE_S)
    assert caught.value is not error
    assert str(caught.value) == str(error)
    assert caught.value.args == error.args
    assert vars(caught.value) == vars(error)


def test_an_error_that_cannot_be_copied_is_told_in_words(executor: Executor) -> None:
    def fail() -> None:
        raise Odd(only_by_name=1)

    with pytest.raises(RuntimeError, match=r"Odd: .*odd 1") as caught:
        Flights[str, None](executor).join("a", fail).result(PATIENCE_S)
    assert isinstance(caught.value.__cause__, Odd)


def test_a_waiter_that_stops_waiting_leaves_the_work_going(executor: Executor) -> None:
    flights: Flights[str, str] = Flights(executor)
    work = Work(lambda: "done")
    flight = flights.join("a", work)
    assert work.started.wait(PATIENCE_S)
    with pytest.raises(TimeoutError):
        flight.result(timeout=0.01)
    assert flights.join("a", work) is flight
    work.may_end.set()
    assert flight.result(PATIENCE_S) == "done"
    assert work.runs == 1


def test_no_waiter_can_cancel_the_flight_for_the_others(executor: Executor) -> None:
    work = Work(lambda: 1)
    flight = Flights[str, int](executor).join("a", work)
    assert not flight.cancel()
    work.may_end.set()
    assert flight.result(PATIENCE_S) == 1


def test_an_executor_that_takes_no_more_work_fails_the_flight() -> None:
    executor = ThreadPoolExecutor(1)
    executor.shutdown()
    flights: Flights[str, int] = Flights(executor)
    with pytest.raises(Unavailable, match="takes no more work"):
        flights.join("a", lambda: 1).result(PATIENCE_S)
    assert len(flights) == 0


def test_a_run_still_queued_when_the_executor_shuts_down_fails_its_waiters() -> None:
    executor = ThreadPoolExecutor(1)
    flights: Flights[str, int] = Flights(executor)
    work = Work(lambda: 1)
    running = flights.join("running", work)
    assert work.started.wait(PATIENCE_S)
    queued = flights.join("queued", lambda: 2)
    executor.shutdown(wait=False, cancel_futures=True)
    with pytest.raises(Unavailable, match="takes no more work"):
        queued.result(PATIENCE_S)
    work.may_end.set()
    assert running.result(PATIENCE_S) == 1
    executor.shutdown()
    assert len(flights) == 0


def test_work_that_runs_at_once_in_the_callers_thread_may_join_other_keys() -> None:
    flights: Flights[str, int] = Flights(Here())
    outer = flights.join("outer", lambda: flights.join("inner", lambda: 1).result(0) + 1)
    assert outer.result(0) == 2
    assert len(flights) == 0


def test_a_run_may_be_on_another_executor_and_is_joined_all_the_same(executor: Executor) -> None:
    flights: Flights[str, int] = Flights(executor)
    work = Work(threading.get_ident)
    flight = flights.join("a", work)
    assert flights.join("a", threading.get_ident, Here()) is flight
    work.may_end.set()
    assert flight.result(PATIENCE_S) != threading.get_ident()
    assert flights.join("a", threading.get_ident, Here()).result(0) == threading.get_ident()


class Heavy:
    """Stands for an archive's bytes in a local variable of the work that failed."""


def test_a_failed_flight_is_freed_without_the_cyclic_collector(executor: ThreadPoolExecutor) -> None:
    seen: list[weakref.ref[Heavy]] = []

    def fail() -> None:
        heavy = Heavy()
        seen.append(weakref.ref(heavy))
        raise ArtifactForbidden("a", "AccessDenied")

    def call() -> None:
        flight = Flights[str, None](executor).join("a", fail)
        with suppress(ArtifactForbidden):  # pytest.raises would keep the traceback, and so the frames
            flight.result(PATIENCE_S)
        assert flight.done()

    gc.disable()
    try:
        call()
        executor.shutdown()  # the executor's own threads have let go of the run
        assert seen[0]() is None
    finally:
        gc.enable()
