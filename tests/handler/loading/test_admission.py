"""Models that are too large for the memory, asked for again and again."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from handler.errors import NoRoom
from handler.loading.admission import ASK_S, Admission
from tests.rig.fakes import FakeClock


@dataclass(frozen=True)
class Artifact:
    version: str
    n_bytes: int
    downloaded_bytes: int = 1
    download_us: int = 1
    examine_us: int = 1
    checked_s_ago: float = 0.0

    def load(self) -> None:
        raise AssertionError("nothing is loaded here")


class House:
    """One object, and memory for 100 bytes of models."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.room = 100
        self.object = Artifact("v1", 300)
        self.n_fetched = self.n_conditions = 0
        self.fitting = Admission(
            self.fetch,
            self.fetch_if_changed,
            lambda _: self.room,
            clock=self.clock,  # type: ignore[type-var]
        )

    def fetch(self, target: str) -> Artifact:
        self.n_fetched += 1
        return self.object

    def fetch_if_changed(self, target: str, version: str) -> Artifact | None:
        self.n_conditions += 1
        return None if version == self.object.version else self.fetch(target)

    def refused(self) -> None:
        with pytest.raises(NoRoom, match="no room for model big: it needs 300 bytes of a budget of 100"):
            self.fitting.prepare("big")


@pytest.fixture
def house() -> House:
    house = House()
    house.refused()
    return house


def test_a_model_too_large_is_fetched_once_and_then_asked_about_every_ten_seconds(house: House) -> None:
    for _ in range(100):
        house.refused()
    assert (house.n_fetched, house.n_conditions) == (1, 0)
    for _ in range(5):
        house.clock.advance(ASK_S)
        for _ in range(10):
            house.refused()
    assert (house.n_fetched, house.n_conditions) == (1, 5)


def test_a_smaller_version_is_served_after_that(house: House) -> None:
    house.object = Artifact("v2", 50)
    house.refused()
    house.clock.advance(ASK_S)
    assert house.fitting.prepare("big") == house.object
    assert house.fitting.prepare("big") == house.object
    assert house.n_fetched == 3


def test_more_room_lets_it_in_at_once(house: House) -> None:
    house.room = 300
    assert house.fitting.prepare("big") == house.object


def test_an_update_too_large_is_fetched_once_however_often_it_is_checked() -> None:
    house = House()
    for _ in range(3):
        with pytest.raises(NoRoom):
            house.fitting.prepare_if_changed("big", "v0")
    assert (house.n_fetched, house.n_conditions) == (1, 3)
    house.object = Artifact("v2", 50)
    assert house.fitting.prepare_if_changed("big", "v0") == house.object
    assert house.fitting.prepare_if_changed("big", "v2") is None


def test_when_the_version_before_it_comes_back_nothing_is_to_be_loaded(house: House) -> None:
    house.object = Artifact("v0", 50)
    assert house.fitting.prepare_if_changed("big", "v0") is None
    house.object = replace(house.object, version="v3")
    assert house.fitting.prepare_if_changed("big", "v0") == house.object
