"""The platform's time: callbacks in order, waits that end, and stories told over it."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from container.platform.clock import Clock, ManualClock
from container.platform.stories import Story, Tale
from tests.rig.endpoint import until


def test_what_is_due_runs_in_its_order_each_at_its_own_time() -> None:
    clock, seen = ManualClock(datetime(2026, 1, 1, tzinfo=UTC)), []
    clock.call_later(20, lambda: seen.append(("b", clock.monotonic())))
    clock.call_later(10, lambda: seen.append(("a", clock.monotonic())))
    clock.call_later(10, lambda: clock.call_later(5, lambda: seen.append(("a later", clock.monotonic()))))
    clock.call_later(30, lambda: seen.append(("not yet", 0)))
    clock.advance(25)
    assert seen == [("a", 10), ("a later", 15), ("b", 20)]
    assert clock.now() == datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=25)


def test_a_cancelled_call_is_not_made_and_a_failing_one_stops_nobody(caplog: pytest.LogCaptureFixture) -> None:
    clock, seen = ManualClock(), []
    clock.call_later(1, lambda: seen.append("cancelled")).cancel()
    clock.call_later(1, lambda: 1 / 0)
    clock.call_later(1, lambda: seen.append("after"))
    clock.advance(1)
    assert seen == ["after"]
    assert "ZeroDivisionError" in caplog.text


def test_a_fast_clock_runs_ahead_of_the_real_one() -> None:
    clock, came = Clock(1000), threading.Event()
    try:
        start = clock.monotonic()
        clock.call_later(100, came.set)
        assert came.wait(30)
        assert clock.monotonic() - start >= 100
        assert clock.wait(50)
        assert clock.monotonic() - start >= 150
    finally:
        clock.close()
    assert not clock.wait(1e9)


def test_closing_ends_a_wait() -> None:
    clock, ended = Clock(), threading.Event()
    threading.Thread(target=lambda: None if clock.wait(3600) else ended.set()).start()
    clock.close()
    assert ended.wait(30)


def test_a_story_waits_for_time_and_for_threads_and_hears_of_their_errors() -> None:
    clock, told, first, second = ManualClock(), [], Future[str](), Future[str]()

    def tale() -> Tale:
        told.append("begins")
        yield 10.0
        told.append((yield first))
        try:
            yield second
        except OSError as error:
            told.append(str(error))

    story = Story(clock, tale())
    assert told == []
    clock.advance(9)
    assert told == ["begins"]
    clock.advance(1)
    first.set_result("a result")
    clock.advance()
    second.set_exception(OSError("an error"))
    clock.advance()
    assert told == ["begins", "a result", "an error"]
    assert story.is_over


def test_a_story_that_is_ended_cleans_up_and_is_told_no_more() -> None:
    clock, told = ManualClock(), []

    def tale() -> Tale:
        try:
            yield 10.0
            told.append("never")
        finally:
            told.append("cleaned up")

    story = Story(clock, tale())
    clock.advance(1)
    story.end()
    clock.advance(100)
    assert told == ["cleaned up"]


def test_a_story_is_told_on_the_clocks_thread() -> None:
    clock, names, done = Clock(100), [], Future[None]()

    def tale() -> Tale:
        names.append(threading.current_thread().name)
        yield done
        names.append(threading.current_thread().name)

    def end(_: Any = None) -> bool:
        return len(names) == 2

    try:
        Story(clock, tale())
        until(lambda: names, 30)
        done.set_result(None)
        until(end, 30)
        assert names == ["clock", "clock"]
    finally:
        clock.close()
