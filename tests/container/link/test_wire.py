"""The codec against frames that MMS really wrote, and against everything it never writes."""

from __future__ import annotations

import contextlib
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from container.link import wire
from container.link.wire import (
    MAX_NAME_BYTES,
    FrameReader,
    Load,
    Message,
    Predict,
    Reply,
    WireError,
    load_reply,
    predict_reply,
)

FRAMES = {path.stem: path.read_bytes() for path in sorted((Path(__file__).parents[2] / "frames").glob("*.bin"))}
MAX_FRAME = 1 << 20


def read_all(data: bytes, step: int | None = None, max_frame_bytes: int = MAX_FRAME) -> list[Message]:
    reader = FrameReader(max_frame_bytes)
    messages = []
    for at in range(0, len(data), step or len(data)):
        reader.feed(data[at : at + (step or len(data))])
        while (message := reader.next_message()) is not None:
            messages.append(message)
    assert reader.is_between_frames
    return messages


def integer(value: int) -> bytes:
    return struct.pack("!i", value)


def blob(data: bytes) -> bytes:
    return integer(len(data)) + data


END = integer(-1)


@pytest.mark.parametrize("name", FRAMES)
def test_a_recorded_frame_reads_the_same_whole_in_bytes_and_before_another(name: str) -> None:
    frame = FRAMES[name]
    whole = read_all(frame)
    assert len(whole) == 1
    assert read_all(frame, step=1) == whole
    for step in (2, 3, 5, 7, 64):
        assert read_all(frame, step=step) == whole
    other = FRAMES["predict-boto3"]
    assert read_all(frame + other) == whole + read_all(other)


def test_a_large_body_is_the_same_whole_and_in_reads_and_is_cut_out_once(monkeypatch: pytest.MonkeyPatch) -> None:
    body = bytes(range(256)) * 12_000
    frame = b"I" + blob(b"id") + END + blob(b"body") + blob(b"text/csv") + blob(body) + END + END
    cuts: list[int] = []

    def cut(data: bytes, start: int, end: int) -> bytes:
        cuts.append(end - start)
        return data[start:end]

    monkeypatch.setattr(wire, "_cut", cut)
    other = FRAMES["predict-boto3"]
    for step in (None, 65_536, 1_000_003):
        cuts.clear()
        messages = read_all(frame + other, step, max_frame_bytes=1 << 22)
        assert cuts.count(len(body)) == 1
        (request,) = messages[0].requests  # type: ignore[union-attr]
        assert request.inputs[0].value == body
        assert messages[1:] == read_all(other)
    monkeypatch.undo()
    for start, end in ((0, len(body)), (3, 900_001), (7, 7)):
        assert wire._cut(body, start, end) == body[start:end]


def test_what_boto3_sends_is_all_there() -> None:
    (message,) = read_all(FRAMES["predict-boto3"])
    assert isinstance(message, Predict)
    (request,) = message.requests
    assert request.headers["x-amzn-sagemaker-target-model"] == "us/Houston_TX.tar.gz"
    assert request.headers["x-amzn-sagemaker-custom-attributes"] == "trace=1"
    assert request.headers["accept"] == "application/json"
    assert [(one.name, one.value) for one in request.inputs] == [("body", b"1,2,3")]


def test_query_parameters_come_as_inputs_before_the_body() -> None:
    (message,) = read_all(FRAMES["predict-query"])
    assert isinstance(message, Predict)
    assert [one.name for one in message.requests[0].inputs] == ["a", "body", "body"]


def test_a_load_frame_names_model_path_and_channel() -> None:
    (message,) = read_all(FRAMES["load"])
    assert isinstance(message, Load)
    assert message.model_name == "segments"
    assert message.model_path.endswith("/store/segments")
    assert (message.batch_size, message.gpu) == (1, -1)
    assert len(message.io_name) == 60


def test_a_batch_of_requests_reads_one_by_one() -> None:
    one = blob(b"id-1") + blob(b"Accept") + blob(b"*/*") + END + blob(b"body") + blob(b"") + blob(b"x") + END
    two = blob(b"id-2") + END + END
    (message,) = read_all(b"I" + one + two + END)
    assert isinstance(message, Predict)
    assert [request.request_id for request in message.requests] == [b"id-1", b"id-2"]
    assert message.requests[0].headers == {"accept": "*/*"}


def test_the_reader_says_how_much_it_certainly_still_needs() -> None:
    body = b"7" * 500_000
    frame = b"I" + blob(b"id") + END + blob(b"body") + blob(b"text/csv") + blob(body) + END + END
    reader = FrameReader(MAX_FRAME)
    reader.feed(frame[:1000])
    assert reader.next_message() is None
    assert len(frame) - 1000 - 8 <= reader.wanted <= len(frame) - 1000
    reader.feed(frame[1000:])
    message = reader.next_message()
    assert isinstance(message, Predict)
    assert message.requests[0].inputs[0].value == body


@pytest.mark.parametrize(
    ("frame", "says"),
    [
        (b"X", "unknown command byte 0x58"),
        (b"\x00\x00\x00\x00", "unknown command"),
        (b"L" + integer(MAX_NAME_BYTES + 1), "over the limit"),
        (b"L" + integer(-1), "length -1"),
        (b"L" + integer(-2), "length -2"),
        (b"L" + integer(2**31 - 1), "over the limit"),
        (b"L" + blob(b"\xff\xfe"), "not UTF-8"),
        (b"I" + integer(-(2**31)), "length -2147483648"),
        (b"I" + blob(b"id") + blob(b"name") + integer(-1), "header value has the length -1"),
        (b"I" + blob(b"id") + (blob(b"a") + blob(b"b")) * 4097, "more than 4096 headers"),
        (b"I" + blob(b"id") + END + (blob(b"a") + blob(b"") + blob(b"")) * 4097, "more than 4096 inputs"),
        (b"I" + (blob(b"id") + END + END) * 1025, "more than 1024 requests"),
        (b"I" + blob(b"id") + END + blob(b"body") + blob(b"") + integer(MAX_FRAME + 1), "over the limit"),
        (b"I" + blob(b"id") + END + blob(b"body") + blob(b"") + integer(MAX_FRAME), "frame is over the limit"),
    ],
)
def test_a_broken_frame_is_refused_as_soon_as_it_shows(frame: bytes, says: str) -> None:
    with pytest.raises(WireError, match=says):
        read_all(frame)


def test_many_small_bodies_cannot_add_up_to_more_than_a_frame() -> None:
    part = blob(b"body") + blob(b"") + blob(b"x" * 1000)
    with pytest.raises(WireError, match="frame is over the limit"):
        read_all(b"I" + blob(b"id") + END + part * 50, max_frame_bytes=20_000)


@given(st.binary(max_size=300), st.integers(1, 50))
def test_any_bytes_give_messages_or_a_wire_error_and_nothing_else(data: bytes, step: int) -> None:
    reader = FrameReader(1000)
    try:
        for at in range(0, len(data), step):
            reader.feed(data[at : at + step])
            while reader.next_message() is not None:
                pass
    except WireError:
        pass


@given(st.sampled_from(sorted(FRAMES)), st.integers(0, 2**31), st.binary(min_size=1, max_size=8))
def test_a_damaged_frame_gives_a_message_a_wait_or_a_wire_error(name: str, place: int, patch: bytes) -> None:
    frame = bytearray(FRAMES[name])
    at = place % len(frame)
    frame[at : at + len(patch)] = patch
    reader = FrameReader(MAX_FRAME)
    reader.feed(bytes(frame))
    with contextlib.suppress(WireError):
        reader.next_message()


class ReplyDecoder:
    """ModelResponseDecoder.java, read field by field."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def integer(self) -> int:
        self.at += 4
        return int(struct.unpack_from("!i", self.data, self.at - 4)[0])

    def blob(self) -> bytes:
        size = self.integer()
        self.at += size
        return self.data[self.at - size : self.at]

    def reply(self) -> tuple[int, str, list[Reply]]:
        code, message, answers = self.integer(), self.blob().decode(), []
        while (size := self.integer()) != -1:
            self.at += size
            request_id = self.data[self.at - size : self.at]
            content_type, status, reason = self.blob().decode(), self.integer(), self.blob().decode()
            headers = tuple((self.blob().decode(), self.blob().decode()) for _ in range(self.integer()))
            answers.append(Reply(request_id, status, reason, content_type, headers, self.blob()))
        assert self.at == len(self.data)
        return code, message, answers


def test_mms_reads_a_load_reply_as_code_text_and_pid() -> None:
    code, message, answers = ReplyDecoder(load_reply(507, "no room", 4711)).reply()
    assert (code, answers) == (507, [])
    assert int(message[message.index("[PID]:") + 6 :]) == 4711


header_text = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=40)


def test_netty_never_reads_less_of_a_reply_than_all_that_mms_cannot_wait_for() -> None:
    """AdaptiveRecvByteBufAllocator shrinks below 2 KiB only after reads of at most 1 KiB."""
    largest = Reply(b"i" * 36, 429, "Too Many Requests", "application/x-recordio-protobuf", (("n", "v" * 691),), b"")
    assert len(predict_reply([Reply(b"i", 200, "", "", (), b"")])) > 1024
    assert len(predict_reply([largest])) <= 2048


@given(
    st.lists(
        st.builds(
            Reply,
            st.binary(min_size=1, max_size=40),
            st.integers(100, 599),
            header_text,
            header_text,
            st.lists(st.tuples(header_text, header_text), max_size=4).map(tuple),
            st.binary(max_size=200),
        ),
        max_size=4,
    )
)
def test_mms_reads_back_every_answer_as_it_was_given(answers: list[Reply]) -> None:
    code, _, read = ReplyDecoder(predict_reply(answers)).reply()
    assert code == 200
    assert read == answers


def test_headers_that_mms_could_not_read_are_refused() -> None:
    answer = Reply(b"id", 200, "OK", "text/csv", (("name", "v" * 700),), b"")
    with pytest.raises(WireError, match="MMS can read"):
        predict_reply([answer])


def test_half_surrogate_pairs_are_spelled_out() -> None:
    text = "a\ud800b"
    spelled = b"a\\ud800b"
    assert spelled in load_reply(400, text, 7)
    assert spelled in wire.failure_reply(503, text)
    assert predict_reply([Reply(b"id", 200, "OK", text, [(text, text)], b"")]).count(spelled) == 3
