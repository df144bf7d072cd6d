"""Signals as an event."""

from __future__ import annotations

import signal
import threading

import pytest

from container.operate.stopping import ENDING, stopped_by_signals

PATIENCE_S = 30.0


@pytest.mark.timeout(60)
@pytest.mark.parametrize("number", ENDING)
def test_a_signal_that_comes_in_the_middle_of_waiting_waits_for_nobody(number: signal.Signals) -> None:
    with stopped_by_signals() as stop:
        with stop._cond:  # type: ignore[attr-defined]  # where `wait`, `set` and `clear` are for a moment
            signal.raise_signal(number)
            signal.raise_signal(number)
        assert stop.wait(PATIENCE_S)


def test_afterwards_signals_and_threads_are_as_they_were() -> None:
    handlers, threads = [signal.getsignal(number) for number in ENDING], threading.enumerate()
    with pytest.raises(ZeroDivisionError), stopped_by_signals() as stop:
        raise ZeroDivisionError
    assert not stop.is_set()
    assert [signal.getsignal(number) for number in ENDING] == handlers
    assert threading.enumerate() == threads
