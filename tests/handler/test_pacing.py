"""Loads begin one after the other while models in memory are asked for, and at once while they are not."""

from __future__ import annotations

import threading

import pytest

from handler.pacing import HITS_PER_LOAD, Pacer


class World:
    """A clock that only sleeping moves, and calls for models in memory."""

    def __init__(self, n_cores: int = 2) -> None:
        self.now = 1000.0
        self.n_hits = 0
        self.slept: list[float] = []
        self.pacer = Pacer(
            lambda: self.n_hits, n_cores=n_cores, clock=lambda: self.now, sleep=lambda s: self.slept.append(s)
        )

    def begin(self) -> float:
        """Seconds that a load has to wait."""
        self.slept.clear()
        self.pacer.wait()
        return sum(self.slept)


def test_with_nobody_else_to_serve_loads_begin_at_once() -> None:
    world = World()
    assert [world.begin() for _ in range(100)] == [0.0] * 100


def test_beside_hot_calls_loads_that_come_together_begin_one_by_one() -> None:
    world = World()
    world.n_hits = 2000
    assert [world.begin() for _ in range(4)] == pytest.approx([0.0, 0.02, 0.04, 0.06])


def test_more_cores_take_loads_in_quicker_succession() -> None:
    world = World(n_cores=8)
    world.n_hits = 2000
    assert [world.begin() for _ in range(3)] == pytest.approx([0.0, 0.005, 0.01])


def test_a_load_that_comes_alone_waits_for_nothing() -> None:
    world = World()
    for _ in range(50):
        world.n_hits += 1000
        world.now += 0.5
        assert world.begin() == 0.0


def test_where_most_calls_are_cold_loads_are_not_held_up() -> None:
    """Seven hits for each load, as with a cache that is too small: whoever waits, waits for loads."""
    world = World()
    for _ in range(200):
        world.n_hits += 7
        world.now += 0.01
        assert world.begin() == 0.0


def test_hot_calls_of_long_ago_count_for_nothing() -> None:
    world = World()
    world.n_hits = 10 * HITS_PER_LOAD
    world.begin()
    assert world.begin() > 0
    world.now += 10
    assert [world.begin() for _ in range(4)] == [0.0] * 4


def test_a_storm_stays_spread_out_for_as_long_as_hot_calls_come() -> None:
    """Threads that ask all the time are let begin at the pace and no faster, whatever came before."""
    world = World()
    for _ in range(500):
        world.n_hits += 40  # 2,000 a second
        world.now += world.begin()
    began = world.now
    for _ in range(100):
        world.n_hits += 40
        world.now += world.begin()
    assert world.now - began == pytest.approx(100 * 0.02)


def test_many_threads_may_ask() -> None:
    n_hits = 1_000_000
    pacer = Pacer(lambda: n_hits, n_cores=64)
    threads = [threading.Thread(target=pacer.wait) for _ in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=10)
    assert not any(thread.is_alive() for thread in threads)
