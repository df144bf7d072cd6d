"""What the front end tells of callers that have gone and of requests that it refused."""

from __future__ import annotations

import logging
import socket

import pytest

from container.link.lane import GONE, REFUSED, Note
from container.worker.lane import Lane
from container.worker.notes import MAX_GONE, Notes
from handler.messages import Answer
from handler.telemetry.recorder import FRONT_END_REFUSALS, INVOCATIONS, Invocation, LiveRecorder, Silent
from tests.container.link.test_lane import frame, note


class Journal:
    def __init__(self) -> None:
        self.written: list[Invocation] = []

    def wants(self, status: int) -> bool:
        return status >= 400

    def write(self, record: Invocation) -> None:
        self.written.append(record)


def test_a_caller_who_has_gone_is_remembered_by_the_number_of_the_call_and_the_oldest_are_forgotten() -> None:
    notes = Notes(Silent(), None)
    assert not notes.has_gone("1")
    for number in range(1, MAX_GONE + 2):
        notes.take(Note(GONE, number))
    assert (notes.has_gone("1"), notes.has_gone("2"), notes.has_gone(str(MAX_GONE + 1))) == (False, True, True)
    assert not notes.has_gone("")


def test_a_refusal_is_counted_by_itself_and_written_down(caplog: pytest.LogCaptureFixture) -> None:
    recorder, journal = LiveRecorder(), Journal()
    notes = Notes(recorder, journal)
    with caplog.at_level(logging.INFO):
        for status in (413, 413, 400):
            notes.take(Note(REFUSED, status))
    totals = recorder.collect()
    assert (totals.total(FRONT_END_REFUSALS), totals.total(INVOCATIONS)) == (3, 0)
    assert [(one.status, one.error) for one in journal.written] == [
        (413, "refused by the front end"),
        (413, "refused by the front end"),
        (400, "refused by the front end"),
    ]
    assert [record.message for record in caplog.records] == ["the front end refused requests itself: 1 with 413"]


def test_a_note_on_a_lane_has_no_reply() -> None:
    ours, theirs = socket.socketpair()
    taken: list[Note] = []
    lane = Lane(ours, lambda request: Answer(200, "text/csv", request.body), taken.append)
    with ours, theirs:
        theirs.settimeout(5)
        theirs.sendall(frame(b"1") + note(GONE, 5) + frame(b"2") + note(REFUSED, 503))
        assert lane.turn()
        assert lane.n_served == 2
        assert taken == [Note(GONE, 5), Note(REFUSED, 503)]
        assert theirs.recv(1 << 16).count(b"text/csv") == 2
