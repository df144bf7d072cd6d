"""Reservations: what was measured on 16 GiB, and where copies go."""

from __future__ import annotations

from container.platform.components.pool import Need, Place, capacity, choose

XLARGE = capacity("ml.m5.xlarge")  # 16 GiB, 4 processors


def test_of_16_gib_a_component_may_reserve_1024_mib_and_not_4096() -> None:
    assert choose(Need(1024), [Place("i", XLARGE)])
    assert choose(Need(4096), [Place("i", XLARGE)]) is None


def test_memory_processors_and_accelerators_all_count() -> None:
    assert choose(Need(128, cores=4), [Place("i", XLARGE)])
    assert choose(Need(128, cores=4.25), [Place("i", XLARGE)]) is None
    assert choose(Need(128, accelerators=1), [Place("i", XLARGE)]) is None
    assert choose(Need(128, accelerators=1), [Place("i", capacity("ml.g4dn.xlarge"))])


def test_spread_takes_the_emptiest_and_binpack_the_fullest_with_room() -> None:
    places = [Place("full", XLARGE, Need(2000)), Place("half", XLARGE, Need(1024)), Place("empty", XLARGE)]
    spread, packed = choose(Need(512), places), choose(Need(512), places, "BINPACK")
    assert spread
    assert packed
    assert (spread.id, packed.id) == ("empty", "half")


def test_what_is_asked_for_is_read_from_the_request() -> None:
    asked = {"MinMemoryRequiredInMb": 512, "MaxMemoryRequiredInMb": 1024, "NumberOfCpuCoresRequired": 0.25}
    assert Need.of(asked) == Need(512, 0.25)
