"""Of all who read and write, one does at a time, in their order."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from handler.floor import Floor

PATIENCE_S = 30.0


def wait_for(floor: Floor, n_waiting: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while floor.n_waiting != n_waiting:
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_it_is_given_in_the_order_in_which_they_came() -> None:
    floor = Floor()
    order: list[int] = []

    def speak(number: int) -> None:
        with floor:
            order.append(number)

    with ThreadPoolExecutor(5) as pool, floor:
        for number in range(5):
            pool.submit(speak, number)
            wait_for(floor, number + 1)
        assert order == []
    assert order == [0, 1, 2, 3, 4]
    assert floor.n_waiting == 0


def test_never_two_have_it() -> None:
    floor = Floor()
    n_inside = most = 0

    def speak(_: int) -> None:
        nonlocal n_inside, most
        for _ in range(500):
            with floor:
                n_inside += 1
                most = max(most, n_inside)
                n_inside -= 1

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(speak, range(8)))
    assert most == 1
    with floor:
        pass


def test_who_fails_while_he_has_it_gives_it_back() -> None:
    floor = Floor()
    with pytest.raises(ValueError), floor:  # noqa: PT011
        raise ValueError
    with floor:
        pass
