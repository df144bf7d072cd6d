"""Calls written down in C against container/capture/lines.py: the same bytes, or declined."""

from __future__ import annotations

import gc
import random
import threading
import weakref
from collections.abc import Iterator
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from container.capture.lines import line, parse
from handler.compiled import Sheet, sheet
from handler.messages import Answer, Exchange, Request

pytestmark = pytest.mark.skipif(sheet is None, reason="there was no C compiler, or none of Python's headers")

S = 10**9
EPOCH_NS = 1_644_859_500 * S
MARKS = (6_900_000_000, 6_900_005_000, 6_900_009_000, 6_900_018_000, 6_900_020_999)
EVER = 2**62
ID = "b7d5f3c1-9a52-4a4e-8f66-0c8b0f4dd6a1"
INFERENCE_ID = "x-amzn-sagemaker-inference-id"
ASCII = bytes(range(128))


class Paper:
    """A sheet, its page, and what it has declined."""

    def __init__(
        self, max_bytes: int = 1 << 20, epoch_ns: int = EPOCH_NS, from_ns: int = 0, until_ns: int = EVER
    ) -> None:
        assert sheet is not None
        self.declined: list[tuple[Any, ...]] = []
        self.sheet: Sheet = sheet.Sheet(lambda *parts: self.declined.append(parts))
        self.page = bytearray(max_bytes)
        assert self.sheet.turn(self.page, epoch_ns, from_ns, until_ns) == (0, 0, 0)

    def takes(self, call: Any) -> bool:
        """On the page, or declined, and never both or none."""
        n_declined, (_, n_calls, _) = len(self.declined), self.sheet.filled()
        self.sheet.take(*call)
        is_taken = self.sheet.filled()[1] == n_calls + 1
        assert self.declined[n_declined:] == ([] if is_taken else [tuple(call)])
        return is_taken

    def turn(self, epoch_ns: int = 0, from_ns: int = 0, until_ns: int = 0) -> tuple[bytes, int, int]:
        before, self.page = self.page, bytearray(len(self.page))
        n_bytes, n_calls, first_ns = self.sheet.turn(self.page, epoch_ns, from_ns, until_ns)
        return bytes(before[:n_bytes]), n_calls, first_ns


def call(**changed: Any) -> Exchange:
    request = Request({"content-type": "text/csv"}, b"1,2\n", ID)
    whole = Exchange(request, Answer(200, "text/csv", b"0.02"), "us/a.tar.gz", '"etag"', True, 3, MARKS)
    return whole._replace(**changed)


def asked(body: bytes = b"1,2", content_type: str | None = "text/csv", **more: Any) -> Exchange:
    headers = {} if content_type is None else {"content-type": content_type}
    return call(request=Request({**headers, **more}, body, ID))


def written(one: Exchange, epoch_ns: int = EPOCH_NS) -> bytes | None:
    """None when it was declined, and then nothing is on the sheet."""
    paper = Paper(epoch_ns=epoch_ns)
    is_taken = paper.takes(one)
    text, n_calls, first_ns = paper.turn()
    assert (bool(text), n_calls, first_ns) == (is_taken, int(is_taken), one.marks[0] if is_taken else 0)
    return text if is_taken else None


def in_python(one: Exchange, epoch_ns: int = EPOCH_NS) -> bytes:
    return line((epoch_ns + one.marks[0]) // S, one)


ORDINARY = {
    "hit": call(),
    "miss": call(is_hit=False, wait_us=1234),
    "never asked": call(is_hit=None),
    "failed": call(answer=Answer(424, "application/json", b'{"Message": "no"}', (("x", "y"),))),
    "inference id": asked(**{INFERENCE_ID: 'row "7"', "authorization": "secret"}),
    "no content type": asked(content_type=None),
    "every character there is no need to decode": asked(ASCII),
    "the same in names": call(target=ASCII.decode(), version=ASCII.decode(), request=Request({}, b"", ASCII.decode())),
    "names that are no ASCII": call(target="us/Zürich 😀", version="é"),
    "JSON": asked(b'{"a": 1}', "Application/JSON ; charset=utf-8"),
    "JSON lines": asked(b"[1]\n[2]", "application/jsonlines"),
    "as long as may be": asked(b"1" * 2048),
    **{f"{n} bytes of something else": asked(bytes(range(250, 250 + n)), "application/x-npy") for n in range(6)},
}


@pytest.mark.parametrize("one", ORDINARY.values(), ids=ORDINARY)
def test_an_ordinary_call_is_written_as_python_writes_it(one: Exchange) -> None:
    assert written(one) == in_python(one)


def test_no_header_of_the_callers_is_written_but_the_inference_id() -> None:
    text = written(ORDINARY["inference id"])
    assert text is not None
    assert b"secret" not in text
    assert parse(text).inference_id == 'row "7"'


DECLINED = {
    "a long body": asked(b"1" * 2049),
    "a long answer": call(answer=Answer(200, "text/csv", b"1" * 2049)),
    "a long name": call(target="x" * 1025),
    "text that has to be decoded": asked("é".encode()),
    "text that is none": asked(b"\xff"),
    "half a surrogate pair": call(target="us/\ud800"),
    "no target": call(target=None),
    "an odd content type": asked(content_type="text/csv\t"),
    "another one": call(answer=Answer(200, "text/csvé", b"")),
    "headers that are no dictionary": call(request=Request(MappingProxyType({}), b"", ID)),
    "a body that is no bytes": call(request=Request({}, bytearray(b"1"), ID)),  # type: ignore[arg-type]
    "a mark before the one before": call(marks=(5, 4, 4, 4, 4)),
    "a time that was none": call(wait_us=-1),
    "a number that is too large": call(wait_us=2**64),
    "fewer marks": call(marks=(1, 2)),
    "no call": (1, 2),
}


@pytest.mark.parametrize("one", DECLINED.values(), ids=DECLINED)
def test_what_is_out_of_the_ordinary_is_declined_and_no_error(one: Exchange) -> None:
    paper = Paper()
    assert not paper.takes(one)
    assert paper.takes(call())
    assert paper.turn()[0] == in_python(call())


NAMES = st.text(max_size=40)
BODIES = st.one_of(st.binary(max_size=60), st.text(max_size=40).map(str.encode))
TYPES = st.one_of(
    st.sampled_from(
        ["text/csv", "application/json", "application/x-npy", "TEXT/CSV", " text/csv; a=b", "text/csv,a", ""]
    ),
    NAMES,
)


@settings(max_examples=500, deadline=None)
@given(BODIES, BODIES, TYPES, TYPES, NAMES, NAMES, st.one_of(st.none(), NAMES))
def test_whatever_the_call_its_line_is_pythons_or_none(
    body: bytes, answer: bytes, sent: str, given_back: str, target: str, request_id: str, inference_id: str | None
) -> None:
    headers = {"content-type": sent} | ({} if inference_id is None else {INFERENCE_ID: inference_id})
    one = call(request=Request(headers, body, request_id), answer=Answer(200, given_back, answer), target=target)
    assert written(one) in (None, in_python(one))


def test_times_up_to_the_year_9999_are_pythons() -> None:
    draw = random.Random(1)
    ends = [int(datetime(year, month, day, 23, 59, 59, tzinfo=UTC).timestamp()) for year in (1970, 1999, 2000, 2023, 2024,
            2100, 2400, 9999) for month, day in ((2, 28), (3, 1), (12, 31))]  # fmt: skip
    for second in [0, *ends, *(draw.randrange(253_402_300_800) for _ in range(2000))]:
        # A year of 64 bits of nanoseconds ends in 2262.
        if second < 2**63 // S - 10:
            assert written(call(), second * S) == in_python(call(), second * S)
    assert orjson.loads(written(call(), 0) or b"")["eventMetadata"]["inferenceTime"] == "1970-01-01T00:00:06Z"


def test_a_call_outside_of_the_hour_is_declined_and_so_is_its_line() -> None:
    paper = Paper(from_ns=MARKS[0] + 1)
    assert not paper.takes(call())
    assert not paper.sheet.append(b"line", MARKS[0])
    paper.turn(EPOCH_NS, 0, MARKS[0])
    assert not paper.takes(call())
    assert not paper.sheet.append(b"line", MARKS[0])
    paper.turn(EPOCH_NS, MARKS[0], MARKS[0] + 1)
    assert paper.takes(call())
    assert paper.sheet.append(b"line", MARKS[0])


def test_without_a_page_every_call_is_declined() -> None:
    assert sheet is not None
    declined: list[Any] = []
    one = sheet.Sheet(lambda *parts: declined.append(parts))
    one.take(*call())
    assert declined == [tuple(call())]
    assert not one.append(b"line", 1)
    assert one.filled() == (0, 0, 0)


def test_lines_that_python_wrote_stand_among_the_others() -> None:
    paper = Paper()
    assert paper.sheet.append(b"before\n", MARKS[0] - 1)
    assert paper.takes(call())
    assert paper.sheet.append(b"after\n", MARKS[0] + 1)
    assert paper.turn() == (b"before\n" + in_python(call()) + b"after\n", 3, MARKS[0] - 1)


def test_a_line_as_long_as_what_is_left_of_the_page_is_the_last() -> None:
    paper = Paper(1000)
    assert not paper.sheet.append(b"x" * 1001, 1)
    assert paper.sheet.append(b"x" * 999, 1)
    assert not paper.sheet.append(b"xx", 1)
    assert paper.sheet.append(b"x", 1)
    assert paper.turn() == (b"x" * 1000, 2, 1)


def test_a_full_page_takes_no_more_until_it_is_turned() -> None:
    paper = Paper(10_000)
    n_taken = sum(paper.takes(call()) for _ in range(100))
    assert 10 < n_taken < 30
    assert not paper.takes(call())
    text, n_calls, _ = paper.turn(EPOCH_NS, 0, EVER)
    assert (text, n_calls) == (in_python(call()) * n_taken, n_taken)
    assert paper.takes(call())


def test_the_time_can_be_set_of_an_empty_page_alone() -> None:
    paper = Paper(epoch_ns=0)
    assert paper.sheet.aim(EPOCH_NS, 0, EVER)
    assert paper.takes(call())
    assert not paper.sheet.aim(EPOCH_NS + S, MARKS[0] + 1, EVER)
    assert paper.takes(call())
    assert paper.turn()[0] == in_python(call()) * 2


def test_of_two_calls_each_line_has_the_second_of_its_own() -> None:
    paper, calls = Paper(), [call(marks=tuple(mark + at * S for mark in MARKS)) for at in (0, 0, 1, 0)]
    assert all(map(paper.takes, calls))
    assert paper.turn()[0] == b"".join(map(in_python, calls))


def test_a_page_is_let_go_of_when_another_is_there_and_when_the_sheet_ends() -> None:
    paper = Paper()
    first = paper.page
    with pytest.raises(BufferError):
        first.append(0)
    paper.turn()
    first.append(0)
    last = paper.page
    del paper.sheet
    last.append(0)


def test_a_sheet_that_is_held_by_what_it_calls_is_collected() -> None:
    assert sheet is not None

    class Owner:
        def __init__(self) -> None:
            assert sheet is not None
            self.page = bytearray(10)
            self.sheet = sheet.Sheet(self.otherwise)
            self.sheet.turn(self.page, 0, 0, 0)

        def otherwise(self, *parts: Any) -> None: ...

    owner = Owner()
    page, gone = owner.page, weakref.ref(owner)
    del owner
    gc.collect()
    assert gone() is None
    page.append(0)


def test_what_goes_wrong_with_a_declined_call_is_told() -> None:
    assert sheet is not None

    def refuse(*parts: Any) -> None:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        sheet.Sheet(refuse).take(*call())
    with pytest.raises(TypeError):
        sheet.Sheet(None)  # type: ignore[arg-type]
    with pytest.raises(BufferError):
        sheet.Sheet(refuse).turn(b"cannot be written to", 0, 0, 0)  # type: ignore[arg-type]


def test_no_line_is_lost_or_broken_while_pages_are_turned_under_it() -> None:
    paper, n_threads, n_each = Paper(1 << 16), 4, 3000
    n_sent = n_threads * n_each
    ended: list[int] = []

    def add_all(thread: int) -> None:
        for number in range(n_each):
            paper.sheet.take(*asked(b"%d" % number, **{INFERENCE_ID: f"{thread}-{number}"}))
        ended.append(thread)

    def found() -> Iterator[bytes]:
        threads = [threading.Thread(target=add_all, args=[number]) for number in range(n_threads)]
        for thread in threads:
            thread.start()
        n_calls = 0
        while any(thread.is_alive() for thread in threads) or len(ended) < n_threads:
            text, n, _ = paper.turn(EPOCH_NS, 0, EVER)
            n_calls += n
            yield from text.splitlines()
        text, n, _ = paper.turn(EPOCH_NS, 0, EVER)
        yield from text.splitlines()
        assert n_calls + n == n_sent - len(paper.declined)

    names = [parse(one).inference_id for one in found()]
    assert len(names) == len(set(names)) == n_sent - len(paper.declined) > 0
