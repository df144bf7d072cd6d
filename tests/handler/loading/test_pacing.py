"""Loads begin one after the other while models in memory are asked for, and at once while they are not."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from handler.loading.pacing import HITS_PER_LOAD, Pacer


class World:
    """A clock that stands still until it is moved, and calls for models in memory."""

    def __init__(self, n_cores: float = 2) -> None:
        self.now = 1000.0
        self.n_hits = 0
        self.slept: list[float] = []
        self.pacer = Pacer(lambda: self.n_hits, n_cores, clock=lambda: self.now, sleep=lambda s: self.slept.append(s))

    def begin(self) -> float:
        """Seconds that a load has to wait."""
        self.slept.clear()
        self.pacer.wait()
        return sum(self.slept)


def test_with_nobody_else_to_serve_loads_begin_at_once() -> None:
    world = World()
    assert [world.begin() for _ in range(100)] == [0.0] * 100


@pytest.mark.parametrize(
    ("n_cores", "waits_s"), [(2, [0.0, 0.02, 0.04, 0.06]), (8, [0.0, 0.005, 0.01]), (0.5, [0.0, 0.08])]
)
def test_beside_hot_calls_loads_that_come_together_begin_one_by_one(n_cores: float, waits_s: list[float]) -> None:
    """More quickly with more cores."""
    world = World(n_cores)
    world.n_hits = 2000
    assert [world.begin() for _ in waits_s] == pytest.approx(waits_s)


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


def test_of_many_threads_that_ask_in_the_same_moment_no_two_begin_together() -> None:
    slept: list[float] = []
    pacer = Pacer(lambda: 1_000_000, 2, clock=lambda: 1000.0, sleep=slept.append)
    with ThreadPoolExecutor(64) as threads:
        for done in [threads.submit(pacer.wait) for _ in range(64)]:
            done.result(timeout=10)
    assert sorted(slept) == pytest.approx([0.02 * place for place in range(1, 64)])
