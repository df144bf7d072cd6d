"""Capturing: what is taken, what is dropped and counted, and that no call ever waits for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from container.capture import layout
from container.capture.capture import Capture, Wanted
from container.capture.lines import Captured, parse
from container.capture.room import room_of
from handler.compiled import sheet
from handler.errors import ArtifactUnavailable
from handler.messages import Answer, Exchange, Request
from handler.patterns import Patterns
from handler.stores.directory_writing import WritingDirectory
from handler.stores.store import Content
from handler.telemetry.recorder import CAPTURE_DROPPED, CAPTURED_CALLS, LiveRecorder
from tests.rig.endpoint import until

PATIENCE_S = 30.0


class Store(WritingDirectory):
    """A directory that can be away, or silent."""

    is_away = False

    def __init__(self, root: Path) -> None:
        super().__init__(root, max_artifact_bytes=1 << 30)
        self.may_answer = threading.Event()
        self.may_answer.set()

    def put(self, target: str, data: Content, over: str = "*") -> str:
        self.may_answer.wait(PATIENCE_S)
        if self.is_away:
            raise ArtifactUnavailable(target, "away")
        return super().put(target, data, over)


class Rig:
    def __init__(self, root: Path, **options: Any) -> None:
        self.at_s = time.perf_counter()
        self.store = Store(root)
        self.recorder = LiveRecorder()
        wanted = options.pop("wanted", Wanted(1.0, Patterns.parse(""), has_errors=False))
        options = {"max_bytes": 16 << 20, "interval_s": 0.0, **options}
        self.capture = Capture(
            lambda: self.store, wanted, self.recorder, endpoint="acme/prod", variant="AllTraffic", **options
        )

    def call(self, target: str = "us/a.tar.gz", body: bytes = b"1,2", status: int = 200) -> None:
        answer = Answer(status, "text/csv", b"0.5")
        at = int(self.at_s * 1e9)
        call = Exchange(Request({}, body, "id"), answer, target, "1", True, 0, (at, at, at, at, at))
        if status == 200:
            self.capture.take(*call)
        else:
            self.capture.take_failed(call)

    def count(self, metric: Any) -> int:
        return self.recorder.collect().total(metric)

    def found(self) -> list[Captured]:
        return [
            parse(text) for one in layout.files(self.store) for text in self.store.fetch(one.target).data.splitlines()
        ]


@contextmanager
def rig(root: Path, **options: Any) -> Iterator[Rig]:
    one = Rig(root, **options)
    try:
        yield one
    finally:
        one.store.may_answer.set()
        one.capture.close(PATIENCE_S)


def test_every_call_is_in_the_store_once_and_counted(tmp_path: Path) -> None:
    with rig(tmp_path) as one:
        for number in range(500):
            one.call(f"us/{number}")
    found = one.found()
    assert sorted(call.target for call in found) == sorted(f"us/{number}" for number in range(500))
    assert (one.count(CAPTURED_CALLS), one.count(CAPTURE_DROPPED)) == (500, 0)


def test_a_page_that_was_a_file_is_written_on_again_and_no_line_is_in_two(tmp_path: Path) -> None:
    sent: list[str] = []

    def send() -> None:
        sent.append(f"us/{len(sent)}")
        one.call(sent[-1])

    def has_put_more_than(n_calls: int) -> bool:
        send()  # the first files may have taken some of what was to fill this one
        return one.count(CAPTURED_CALLS) > n_calls

    with rig(tmp_path, max_bytes=400_000, interval_s=3600.0) as one:
        for _ in range(4):
            before = one.count(CAPTURED_CALLS)
            for _ in range(110):  # about a file, and less than a page
                send()
            until(partial(has_put_more_than, before), PATIENCE_S, pause_s=0.05)
    assert sorted(call.target for call in one.found()) == sorted(sent)
    assert one.count(CAPTURE_DROPPED) == 0
    assert len(list(layout.files(one.store))) >= 4


def test_a_file_lies_where_sagemaker_has_it(tmp_path: Path) -> None:
    with rig(tmp_path, clock_s=lambda: 1_644_859_506.123, counter_s=lambda: 0.0) as one:
        one.at_s = 0.0
        one.call()
    (found,) = layout.files(one.store)
    folder, _, name = found.target.rpartition("/")
    assert folder == "acme_prod/AllTraffic/2022/02/14/17"
    assert name.startswith("25-06-123-")
    hour = layout.hour_of(found.target)
    assert hour is not None
    assert hour.isoformat() == "2022-02-14T17:00:00+00:00"


@pytest.mark.parametrize("size", [100, 20_000])
def test_a_store_that_is_silent_keeps_nobody_waiting_and_what_is_over_the_bound_is_dropped(
    tmp_path: Path, size: int
) -> None:
    with rig(tmp_path, max_bytes=100_000) as one:
        one.store.may_answer.clear()
        for _ in range(200):
            one.call(body=b"x" * size)
        assert one.count(CAPTURE_DROPPED) > 100
    assert one.count(CAPTURED_CALLS) + one.count(CAPTURE_DROPPED) == 200
    assert len(one.found()) == one.count(CAPTURED_CALLS) > 0


def test_what_a_store_that_is_away_does_not_take_is_kept_within_the_bound_and_written_later(tmp_path: Path) -> None:
    with rig(tmp_path, max_bytes=20_000) as one:
        one.store.is_away = True
        for _ in range(20):
            one.call()
        until(lambda: one.capture._parts, PATIENCE_S)
        one.store.is_away = False
        until(lambda: one.count(CAPTURED_CALLS) + one.count(CAPTURE_DROPPED) == 20, PATIENCE_S)
    assert len(one.found()) == one.count(CAPTURED_CALLS) > 0


def test_a_file_in_the_making_counts_towards_the_bound(tmp_path: Path) -> None:
    with rig(tmp_path, max_bytes=100_000, interval_s=3600.0) as one:
        one.store.is_away = True
        for _ in range(15):
            for _ in range(5):
                one.call(body=b"x" * 3000)
            until(lambda: not one.capture._queue, PATIENCE_S)
        files = [*one.capture._lines, *(part.data for part in one.capture._parts)]
        assert 0 < sum(map(len, files)) <= 50_000
        one.store.is_away = False
    assert one.count(CAPTURED_CALLS) + one.count(CAPTURE_DROPPED) == 75


def test_what_is_left_at_the_end_is_counted_as_dropped_with_a_file_in_the_making(tmp_path: Path) -> None:
    with rig(tmp_path, interval_s=3600.0, clock_s=lambda: 7201.0, counter_s=lambda: 7201.0) as one:
        one.store.may_answer.clear()
        for one.at_s in (3599.0, 3602.0, 7201.0):  # a file, a line that is for another, and one on the page
            one.call()
        until(lambda: one.capture._lines and one.capture._parts, PATIENCE_S)
        one.capture.close(0.01)
        assert one.count(CAPTURE_DROPPED) == 3


def test_a_call_that_cannot_be_written_down_is_counted_said_once_and_gives_its_room_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with rig(tmp_path, max_bytes=100_000, counter_s=lambda: 0.0) as one:
        for one.at_s in (1e15, 1e15, 0.0):  # the first two are in no calendar
            one.call(body=b"x" * 20_000)
            until(lambda: not one.capture._queue, PATIENCE_S)
        until(lambda: one.count(CAPTURED_CALLS), PATIENCE_S)
    assert (one.count(CAPTURED_CALLS), one.count(CAPTURE_DROPPED)) == (1, 2)
    assert len(caplog.records) == 1


def test_where_the_room_cannot_be_told_the_store_is_asked(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    with rig(gone, has_room=room_of(str(gone))) as one:
        one.call()
    assert one.count(CAPTURED_CALLS) == 1


def test_no_room_is_a_reason_to_drop(tmp_path: Path) -> None:
    with rig(tmp_path, has_room=lambda: False) as one:
        one.call()
    assert (one.count(CAPTURED_CALLS), one.count(CAPTURE_DROPPED)) == (0, 1)
    assert not room_of(str(tmp_path), lambda _: (100, 96, 4))()
    assert room_of(str(tmp_path), lambda _: (100, 90, 10))()
    assert room_of("s3://bucket/")()


@pytest.mark.parametrize(
    ("has_errors", "taken"), [(False, ["us/a"]), (True, ["us/a", "us/failed"])], ids=["answers", "errors too"]
)
def test_of_the_models_named_answers_and_errors_if_asked(tmp_path: Path, has_errors: bool, taken: list[str]) -> None:
    with rig(tmp_path, wanted=Wanted(1.0, Patterns.parse("us/*"), has_errors)) as one:
        one.call("us/a")
        one.call("eu/a")
        one.call("us/failed", status=424)
        one.call("eu/failed", status=424)
    assert [call.target for call in one.found()] == taken


def test_a_share_is_drawn(tmp_path: Path) -> None:
    draws = iter([0.04, 0.06, 0.9, 0.0])
    with rig(tmp_path, wanted=Wanted(0.05, Patterns.parse(""), False), draw=lambda: next(draws)) as one:
        for number in range(4):
            one.call(str(number))
    assert [call.target for call in one.found()] == ["0", "3"]


def test_an_hour_ends_a_file(tmp_path: Path) -> None:
    with rig(tmp_path, interval_s=3600.0, clock_s=lambda: 3700.0, counter_s=lambda: 3700.0) as one:
        for one.at_s in (3599.0, 3601.0):
            one.call()
    assert [found.target.split("/")[-2] for found in layout.files(one.store)] == ["00", "01"]


def test_no_line_is_in_the_file_of_another_hour_whenever_it_is_written_down(tmp_path: Path) -> None:
    now_s = 3599.0
    with rig(tmp_path, interval_s=3600.0, clock_s=lambda: now_s, counter_s=lambda: now_s) as one:
        for now_s in (3599.0, 3599.9, 3600.1, 3601.0):
            for one.at_s in (now_s - 0.15, now_s):
                one.call(str(one.at_s))
            until(lambda: one.capture._page_hour == int(now_s) // 3600, PATIENCE_S)  # noqa: B023  this one's
    hours = {
        parse(text).target: found.target.split("/")[-2]
        for found in layout.files(one.store)
        for text in one.store.fetch(found.target).data.splitlines()
    }
    assert len(hours) == 8
    assert all(hour == f"{int(float(at_s)) // 3600:02}" for at_s, hour in hours.items())


def test_without_a_compiler_the_lines_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = []
    for number, compiled in enumerate((sheet, None)):
        monkeypatch.setattr("container.capture.capture.sheet", compiled)
        with rig(tmp_path / str(number), clock_s=lambda: 3700.0, counter_s=lambda: 3700.0) as one:
            one.at_s = 3700.0
            for target in ("us/a", "us/b"):
                one.call(target, b"1,2\n")
        files.append(b"".join(one.store.fetch(found.target).data for found in layout.files(one.store)))
    assert files[0] == files[1]
    assert files[0].count(b"\n") == 2
