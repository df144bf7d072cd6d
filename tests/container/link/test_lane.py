"""The lane's frames, whole and in pieces, and what is none."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from container.link.lane import GONE, MAX_FRAME_BYTES, NOT_AT_ONCE, REFUSED, Note, greeting, parse, reply
from container.link.wire import WireError
from handler.messages import Answer, Request
from tests.rig.damage import damaged

ID = "0f8fad5b-d9cb-469f-a165-70867728950e"


def frame(
    body: bytes = b"1,2",
    target: bytes = b"",
    attributes: bytes = b"",
    kind: bytes = b"",
    accept: bytes = b"",
    inference_id: bytes = b"",
) -> bytes:
    """As Lane.java writes it."""
    texts = (target, attributes, kind, accept, inference_id)
    rest = ID.encode() + struct.pack("!HHBBB", *map(len, texts)) + b"".join(texts) + body
    return struct.pack("!I", len(rest)) + rest


def note(what: int, value: int) -> bytes:
    """As Lane.java writes it."""
    return struct.pack("!IBQ34x", 1 << 31 | 43, what, value)


FULL = frame(b"1,2", b"us/M\xc3\xa1laga", b"TargetModel=x", b"text/csv", b"*/*", b"mine")
READ = Request(
    {
        "x-amzn-sagemaker-target-model": "us/M\xc3\xa1laga",  # as_sent makes of it what was meant
        "x-amzn-sagemaker-custom-attributes": "TargetModel=x",
        "content-type": "text/csv",
        "accept": "*/*",
        "x-amzn-sagemaker-inference-id": "mine",
    },
    b"1,2",
    ID,
)


def test_a_frame_is_read_and_what_lies_behind_it_is_left() -> None:
    assert parse(FULL, 0) == (READ, len(FULL))
    assert parse(b"before" + FULL + frame(), 6) == (READ, 6 + len(FULL))


def test_a_note_is_read_between_two_requests() -> None:
    assert len(note(GONE, 7)) == 47
    data = FULL + note(GONE, 2**40) + note(REFUSED, 413) + FULL
    at, found = 0, []
    while (one := parse(data, at)) is not None:
        found.append(one[0])
        at = one[1]
    assert found == [READ, Note(GONE, 2**40), Note(REFUSED, 413), READ]
    assert parse(note(GONE, 7)[:-1], 0) is None


def test_until_it_is_whole_there_is_nothing() -> None:
    for end in range(len(FULL)):
        assert parse(FULL[:end], 0) is None


def test_what_was_not_sent_is_not_there() -> None:
    found = parse(frame(b""), 0)
    assert found is not None
    assert found[0] == Request({}, b"", ID)


@pytest.mark.parametrize(
    "data",
    [
        struct.pack("!I", 2**32 - 1) + FULL[4:],
        struct.pack("!I", MAX_FRAME_BYTES + 1) + FULL[4:],
        struct.pack("!I", 42) + FULL[4:],
        b"GET / HTTP/1.1\r\nHost: x\r\nUser-Agent: somebody who is lost\r\n\r\n",
    ],
)
def test_what_is_no_frame_is_refused(data: bytes) -> None:
    with pytest.raises(WireError):
        parse(data, 0)


def test_a_reply_says_its_length_and_what_it_is_made_of() -> None:
    written = reply(Answer(424, "text/csv", b"0.5", (("a", "b"), ("c", "d"))))
    length, status, n_kind, n_headers = struct.unpack_from("!IHBH", written)
    assert (length, status, n_kind, n_headers) == (len(written) - 4, 424, 8, 8)
    assert written[9:] == b"text/csva\0b\0c\0d\x000.5"
    assert reply(None) == NOT_AT_ONCE


def test_the_greeting_says_which_bodies_are_worth_sending() -> None:
    assert greeting(7000) == b"MMEL\x00\x00\x1b\x58"


@given(data=st.one_of(st.binary(max_size=200), damaged(FULL)))
def test_whatever_comes_is_a_request_or_refused_and_is_never_read_past_its_end(data: bytes) -> None:
    at = 0
    try:
        while (found := parse(data, at)) is not None:
            request, end = found
            assert at + 47 <= end <= len(data)
            assert isinstance(request, Note) or len(request.body) <= end - at
            at = end
    except WireError:
        return
