"""What the log and the metrics say of a store that fails."""

from __future__ import annotations

import logging

import pytest

from handler.errors import ArtifactForbidden, ArtifactMissing, ArtifactUnavailable
from handler.stores.monitored import SAY_S, MonitoredStore
from handler.telemetry.recorder import STORE_ERRORS, LiveRecorder
from tests.rig.fakes import FakeClock, MemoryStore

AWAY = ArtifactUnavailable("mem:a", "SlowDown")


class House:
    def __init__(self) -> None:
        self.clock, self.inner, self.recorder = FakeClock(), MemoryStore(), LiveRecorder()
        self.inner.put("a", b"data")
        self.store = MonitoredStore(self.inner, self.recorder, self.clock)

    def fails(self, n_times: int, error: Exception = AWAY) -> None:
        self.inner.error = error
        for _ in range(n_times):
            with pytest.raises(type(error)):
                self.store.fetch("a")
            self.clock.advance(1)
        self.inner.error = None


@pytest.fixture
def house(caplog: pytest.LogCaptureFixture) -> House:
    caplog.set_level(logging.INFO, "mme.store")
    return House()


def test_an_outage_is_one_line_a_minute_and_one_when_it_is_over(house: House, caplog: pytest.LogCaptureFixture) -> None:
    house.fails(round(SAY_S) + 1)
    assert house.store.fetch("a").data == b"data"
    house.store.fetch("a")
    assert [record.getMessage() for record in caplog.records] == [
        "the store fails, 1 calls in 0 s; the last: artifact mem:a unavailable (SlowDown)",
        "the store fails, 61 calls in 60 s; the last: artifact mem:a unavailable (SlowDown)",
        "the store answers again, after 61 failed calls in 61 s",
    ]
    assert house.recorder.collect().total(STORE_ERRORS) == 61


def test_a_store_that_fails_now_and_then_is_still_one_line_a_minute(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(20):
        house.fails(1)
        house.store.fetch_if_changed("a", '"1"')
    assert len(caplog.records) == 2


def test_what_is_denied_is_told_and_what_is_missing_is_not(house: House, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ArtifactMissing):
        house.store.fetch("b")
    assert caplog.records == []
    house.fails(1, ArtifactForbidden("mem:a", "AccessDenied"))
    assert "may not be read (AccessDenied)" in caplog.text


def test_the_stores_own_words_are_in_the_log(house: House, caplog: pytest.LogCaptureFixture) -> None:
    words = "User: arn:aws:sts::1:role/x is not authorized to perform: kms:Decrypt"
    house.fails(1, ArtifactForbidden("mem:a", "AccessDenied", words))
    assert caplog.messages[-1].endswith(f"may not be read (AccessDenied); it says: {words}")


def test_a_role_that_may_not_list_is_no_outage(house: House, caplog: pytest.LogCaptureFixture) -> None:
    house.inner.list_error = ArtifactForbidden("mem:", "AccessDenied")
    with pytest.raises(ArtifactForbidden):
        list(house.store.list())
    house.inner.list_error = AWAY
    with pytest.raises(ArtifactUnavailable):
        list(house.store.list())
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    house.inner.list_error = None
    assert [stored.target for stored in house.store.list()] == ["a"]
