"""Memory that somebody else takes, and models that leave for it."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from container.limits.memory import Limit
from container.worker import guard as guard_module
from container.worker.guard import CALM_S, LOOK_S, MIN_LOOK_S, MemoryGuard
from handler.cache.model_cache import ModelCache
from handler.errors import NoRoom
from handler.telemetry.recorder import CONTAINER_MEMORY_UTILIZATION, MEMORY_SHORTAGES, LiveRecorder
from tests.rig.fakes import FakeClock, InlineExecutor

MIB = 1 << 20
LIMIT = Limit(1000 * MIB, "a test")
LINE = 970 * MIB  # 3 % below


class Artifact:
    version, n_bytes, downloaded_bytes, download_us, examine_us, checked_s_ago = "v", 10 * MIB, 1, 1, 1, 0.0

    def load(self) -> Artifact:
        return self

    def close(self) -> None:
        """There is no memory to give back."""


class Container:
    """Models take what the book says, in this process; `others` is what everybody else takes."""

    def __init__(self, budget_mib: int = 500) -> None:
        self.recorder = LiveRecorder()
        self.others = 100 * MIB
        self.n_trims = 0
        self.cache = ModelCache(
            budget_bytes=budget_mib * MIB,
            prepare=lambda _: Artifact(),  # type: ignore[arg-type, return-value]
            executor=InlineExecutor(),
            max_waiting=4,
            recorder=self.recorder,
        )
        self.clock = FakeClock()
        self.guard = MemoryGuard(
            self.cache, LIMIT, trim=self.trim, recorder=self.recorder, used=lambda _: self.used, clock=self.clock
        )

    @property
    def used(self) -> int:
        return self.others + self.cache.resident_bytes

    def trim(self) -> None:
        self.n_trims += 1

    def load(self, n_models: int, first: int = 0) -> None:
        for number in range(first, first + n_models):
            with self.cache.borrow(str(number), 1.0):
                pass


@pytest.fixture
def container() -> Container:
    return Container()


def test_while_there_is_enough_nobody_leaves_and_the_budget_is_whole(container: Container) -> None:
    container.load(60)
    assert container.guard.look() == 0
    assert (len(container.cache), container.cache.budget_bytes) == (50, 500 * MIB)
    assert container.n_trims == 0


def test_when_another_grows_the_oldest_models_leave_and_loads_stay_within_what_is_left(container: Container) -> None:
    container.load(50)
    container.others = 600 * MIB
    assert container.guard.look() == 140 * MIB  # ten more than it must, so that the next look need not trim again
    assert container.used <= LINE
    assert container.n_trims == 1
    assert container.recorder.collect().total(MEMORY_SHORTAGES) == 1
    container.load(30, first=100)
    assert container.used <= LINE
    assert container.guard.look() == 0


def test_when_it_shrinks_again_models_get_their_memory_back(container: Container) -> None:
    container.load(50)
    container.others = 800 * MIB
    container.guard.look()
    container.others = 100 * MIB
    assert container.guard.look() == 0
    assert container.cache.budget_bytes == 500 * MIB
    container.load(50)
    assert len(container.cache) == 50


def test_near_the_line_nobody_leaves_and_the_book_does_not_grow(container: Container) -> None:
    container.load(40)
    container.others = LINE - 405 * MIB
    assert container.guard.look() == 0
    container.load(5, first=100)
    assert container.cache.resident_bytes == 400 * MIB
    assert container.guard.look() == 0


def test_when_the_kernel_reports_stalls_the_line_is_lowered_until_it_has_been_calm() -> None:
    container = Container(budget_mib=900)
    container.load(86)  # 960 of 970 MiB
    assert container.guard.look() == 0
    container.guard.stalled()
    assert container.guard.look() == 20 * MIB
    for _ in range(20):
        container.guard.stalled()
    container.guard.look()
    assert container.used == 860 * MIB  # 970 - 100 - 10
    container.clock.advance(CALM_S)
    container.guard.look()
    container.load(90, first=200)
    assert container.used == 960 * MIB


def test_the_nearer_the_line_the_sooner_it_looks_again(container: Container) -> None:
    pauses = []
    for others in (100, 900, 2000):
        container.others = others * MIB
        container.guard.look()
        pauses.append(container.guard._pause_s)
    assert pauses == [LOOK_S, 70 / 1024, MIN_LOOK_S]


def test_some_models_stay_whatever_happens(container: Container) -> None:
    container.load(50)
    container.others = 2000 * MIB
    container.guard.look()
    assert container.cache.resident_bytes == 60 * MIB
    container.load(3, first=100)
    assert container.cache.resident_bytes == 60 * MIB
    with pytest.raises(NoRoom):
        container.cache.book("huge", 70 * MIB)


def test_the_share_that_is_used_is_a_gauge(container: Container) -> None:
    container.guard.start()
    container.guard.close()
    assert container.recorder.collect().gauges[CONTAINER_MEMORY_UTILIZATION.name] == 10.0


def test_the_thread_looks_by_itself_and_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard_module, "LOOK_S", 0.001)
    container = Container()
    container.load(50)
    container.others = 900 * MIB
    looked = threading.Event()
    guard = MemoryGuard(
        container.cache, LIMIT, trim=looked.set, recorder=container.recorder, used=lambda _: container.used
    )
    guard.start()
    assert looked.wait(10)
    guard.close()
    assert not guard._thread.is_alive()


def test_a_cgroup_that_is_gone_ends_the_looking_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(guard_module, "LOOK_S", 0.001)
    container = Container()
    limit = Limit(1000 * MIB, "cgroup v2", tmp_path)
    guard = MemoryGuard(container.cache, limit, trim=container.trim, recorder=container.recorder)
    guard.start()
    guard._thread.join(10)
    assert "memory is not looked after any more" in caplog.text
    guard.close()
