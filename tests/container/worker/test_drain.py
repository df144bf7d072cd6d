"""When nothing is in flight any more."""

from __future__ import annotations

from container.worker.drain import QUIET_S, Drain
from tests.rig.fakes import FakeClock


def test_quiet_for_long_enough_is_done() -> None:
    clock = FakeClock()
    drain = Drain(clock)
    assert not drain.is_done(5, is_busy=False)  # five have just been answered
    assert not drain.is_done(5, is_busy=False)
    clock.now += QUIET_S / 2
    assert not drain.is_done(5, is_busy=False)
    clock.now += QUIET_S / 2
    assert drain.is_done(5, is_busy=False)


def test_a_request_under_way_or_just_answered_begins_the_wait_anew() -> None:
    clock = FakeClock()
    drain = Drain(clock)
    drain.is_done(0, is_busy=False)
    clock.now += QUIET_S
    assert not drain.is_done(0, is_busy=True)
    assert not drain.is_done(0, is_busy=False)
    clock.now += QUIET_S
    assert not drain.is_done(1, is_busy=False)
    assert not drain.is_done(1, is_busy=False)
    clock.now += QUIET_S
    assert drain.is_done(1, is_busy=False)
