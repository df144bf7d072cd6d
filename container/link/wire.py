"""MMS's backend protocol: bytes in, messages out, and back. No socket is known here.

Rule: every length that arrives is checked against its bound before anything is allocated for it.

MMS writes one frame per command and waits for the reply before it writes the next. All integers are signed, 32 bits,
big-endian; a text or a blob is its length followed by its bytes; a list ends with the length -1.

    load     'L' model-name model-path batch-size handler gpu io-name
    predict  'I' { request-id { header-name header-value } -1 { input-name content-type value } -1 } -1
    reply    code message { request-id content-type status reason n-headers { name value } body } -1

Source: multi-model-server 1.1.11, ModelRequestEncoder.java and ModelResponseDecoder.java.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

_INT = struct.Struct("!i")
_read_int = _INT.unpack_from
_END = _INT.pack(-1)

MAX_NAME_BYTES = 8 * 1024  # Netty refuses header sections above 8 KiB, so no name or value can honestly be longer
MAX_PATH_BYTES = 4 * 1024  # PATH_MAX
MAX_FIELDS = 4096  # headers or inputs of one request: a field takes two of Netty's 8 KiB, `a:`, so there can be no more
MAX_BATCH = 1024
# Copied in one go, 0.1 ms: nobody else gets the interpreter meanwhile.
MAX_SLICE_BYTES = 256 * 1024
# MMS decodes what one read has brought, and its decoder can wait for the rest only at some places: in the middle of a
# status or of the headers it breaks the connection (CodecUtils.readMap), and the caller gets 500. Netty's reads begin with
# 2 KiB, grow, and shrink to what recent replies took, but never below 2 KiB while every reply has more than 1 KiB. So each
# begins with that much text nobody reads, at a place where MMS can wait, and all that is delicate comes before 2 KiB.
REPLY_PADDING_BYTES = 1024
MAX_REPLY_HEADER_BYTES = 700

_LOAD = ord("L")
_PREDICT = ord("I")


class WireError(Exception):
    """The peer sent what MMS never sends. The connection that carried it cannot be used any further."""


class Load(NamedTuple):
    """MMS has connected a worker of this model and asks for it to be made ready."""

    model_name: str
    model_path: str
    batch_size: int
    handler: str
    gpu: int
    io_name: str


class Input(NamedTuple):
    """One input of a request. Of an ordinary body the name is `body`."""

    name: str
    content_type: str
    value: bytes


class Call(NamedTuple):
    """One HTTP request as MMS passes it on. Header names are lower case; of repeated ones the last wins."""

    request_id: bytes
    headers: dict[str, str]
    inputs: tuple[Input, ...]


class Predict(NamedTuple):
    requests: tuple[Call, ...]


Message = Load | Predict


class Reply(NamedTuple):
    """The answer to one request; MMS turns it into the HTTP response. Values of headers are single lines."""

    request_id: bytes
    status: int
    reason: str
    content_type: str
    headers: Sequence[tuple[str, str]]
    body: bytes


class _Short(Exception):
    """The frame needs at least this many bytes in all before another look is worthwhile."""

    def __init__(self, total: int) -> None:
        self.total = total


class FrameReader:
    """Takes bytes as they arrive and gives whole messages.

    max_frame_bytes   the largest frame accepted: the body limit and room for the rest
    """

    def __init__(self, max_frame_bytes: int) -> None:
        self._max_frame_bytes = max_frame_bytes
        self._chunks: list[bytes] = []
        self._held = 0
        self._wanted = 1

    @property
    def wanted(self) -> int:
        """How many more bytes are certainly needed before `next_message` can give anything (at least 1)."""
        return max(1, self._wanted - self._held)

    @property
    def is_between_frames(self) -> bool:
        return self._held == 0

    def feed(self, data: bytes) -> None:
        self._chunks.append(data)
        self._held += len(data)

    def next_message(self) -> Message | None:
        """The next whole message, or None until the rest of it is here. Raises WireError on a broken frame."""
        if self._held < self._wanted:
            return None
        data = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        try:
            message, end = _parse(data, self._max_frame_bytes)
        except _Short as short:
            self._chunks = [data]
            self._wanted = short.total
            return None
        self._held = len(data) - end
        self._chunks = [data[end:]] if self._held else []
        self._wanted = 1
        return message


def _parse(data: bytes, max_frame_bytes: int) -> tuple[Message, int]:
    cursor = _Cursor(data, 1, max_frame_bytes)
    command = data[0]
    if command == _PREDICT:
        return Predict(_requests(cursor)), cursor.at
    if command != _LOAD:
        raise WireError(f"unknown command byte 0x{command:02x}")
    load = Load(
        model_name=cursor.text("model name", MAX_NAME_BYTES),
        model_path=cursor.text("model path", MAX_PATH_BYTES),
        batch_size=cursor.integer(),
        handler=cursor.text("handler", MAX_PATH_BYTES),
        gpu=cursor.integer(),
        io_name=cursor.text("io name", MAX_NAME_BYTES),
    )
    return load, cursor.at


def _requests(cursor: _Cursor) -> tuple[Call, ...]:
    requests: list[Call] = []
    while (request_id := cursor.blob_or_end("request id", MAX_NAME_BYTES)) is not None:
        if len(requests) == MAX_BATCH:
            raise WireError(f"more than {MAX_BATCH} requests in a batch")
        requests.append(Call(request_id, _headers(cursor), _inputs(cursor)))
    return tuple(requests)


def _headers(cursor: _Cursor) -> dict[str, str]:
    """Name and value until the end mark. Written out, with the cursor in local names: half of a frame is headers, and
    as calls of `blob` they cost 5 us of the 50 that a whole request takes."""
    headers: dict[str, str] = {}
    data, at, size = cursor.data, cursor.at, len(cursor.data)
    for _ in range(MAX_FIELDS):
        start = at + 4
        if start > size:
            raise _Short(start)
        length = _read_int(data, at)[0]
        if length == -1:
            cursor.at = start
            return headers
        at = start + length
        end = at + 4
        if not 0 <= length <= MAX_NAME_BYTES or end > size:
            raise _unreadable("header name", length, end, cursor.limit)
        name = data[start:at]
        length = _read_int(data, at)[0]
        at = end + length
        if not 0 <= length <= MAX_NAME_BYTES or at > size:
            raise _unreadable("header value", length, at, cursor.limit)
        try:
            headers[name.decode().lower()] = data[end:at].decode()
        except UnicodeDecodeError as error:
            raise WireError("header is not UTF-8") from error
    raise WireError(f"more than {MAX_FIELDS} headers")


def _unreadable(what: str, length: int, end: int, limit: int) -> Exception:
    """Why a field cannot be read: its length is out of bounds, or not all of it is here."""
    if length < 0:
        return WireError(f"{what} has the length {length}")
    if length > MAX_NAME_BYTES:
        return WireError(f"{what} of {length} bytes is over the limit of {MAX_NAME_BYTES}")
    return WireError(f"frame is over the limit of {limit} bytes") if end > limit else _Short(end)


def _inputs(cursor: _Cursor) -> tuple[Input, ...]:
    inputs: list[Input] = []
    while (name := cursor.blob_or_end("input name", MAX_NAME_BYTES)) is not None:
        if len(inputs) == MAX_FIELDS:
            raise WireError(f"more than {MAX_FIELDS} inputs")
        content_type = cursor.text("content type", MAX_NAME_BYTES)
        inputs.append(Input(_text("input name", name), content_type, cursor.body()))
    return tuple(inputs)


def _text(what: str, value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise WireError(f"{what} is not UTF-8") from error


class _Cursor:
    """A position in the bytes of one frame."""

    __slots__ = ("at", "data", "limit")

    def __init__(self, data: bytes, at: int, limit: int) -> None:
        self.data = data
        self.at = at
        self.limit = limit

    def integer(self) -> int:
        end = self.at + 4
        if end > len(self.data):
            raise _Short(end)
        value: int = _read_int(self.data, self.at)[0]
        self.at = end
        return value

    def blob(self, what: str, max_bytes: int) -> bytes:
        value = self.blob_or_end(what, max_bytes)
        if value is None:
            raise WireError(f"{what} has the length -1")
        return value

    def blob_or_end(self, what: str, max_bytes: int) -> bytes | None:
        data = self.data
        start = self.at + 4
        if start > len(data):
            raise _Short(start)
        length: int = _read_int(data, self.at)[0]
        if length < 0:
            if length != -1:
                raise WireError(f"{what} has the length {length}")
            self.at = start
            return None
        if length > max_bytes:
            raise WireError(f"{what} of {length} bytes is over the limit of {max_bytes}")
        end = start + length
        if end > self.limit:
            raise WireError(f"frame is over the limit of {self.limit} bytes")
        if end > len(data):
            raise _Short(end)
        self.at = end
        return _cut(data, start, end)

    def text(self, what: str, max_bytes: int) -> str:
        return _text(what, self.blob(what, max_bytes))

    def body(self) -> bytes:
        """A value and, so that it is cut out once, the two end marks that come after it at least."""
        if self.at + 4 <= len(self.data):
            end = self.at + 4 + _read_int(self.data, self.at)[0] + len(_END) * 2
            if len(self.data) < end <= self.limit:
                raise _Short(end)
        return self.blob("body", self.limit)


def _cut(data: bytes, start: int, end: int) -> bytes:
    """As data[start:end]. Joining lets go of the interpreter lock where it copies a megabyte or more; slicing never does."""
    if end - start <= MAX_SLICE_BYTES:
        return data[start:end]
    return b"".join([data[at : min(at + MAX_SLICE_BYTES, end)] for at in range(start, end, MAX_SLICE_BYTES)])


def _written(text: str) -> bytes:
    """Half surrogate pairs are spelled out: a text that cannot be written would end the connection and say nothing."""
    return text.encode("utf-8", "backslashreplace")


def load_reply(code: int, message: str, pid: int) -> bytes:
    """The reply to `Load`: 200, or the status MMS shall give to whoever registered the model."""
    # MMS parses all text behind "[PID]:" as an integer, so nothing may follow it
    text = _written(f"{message} [PID]:{pid}")
    return b"".join((_INT.pack(code), _INT.pack(len(text)), text, _END))


def failure_reply(status: int, text: str) -> bytes:
    """The reply to a `Predict` nobody can answer any more: MMS gives status and text to all requests of the batch."""
    data = _written(text)
    return b"".join((_INT.pack(status), _INT.pack(len(data)), data, _END))


_PREDICTED = _INT.pack(200) + _INT.pack(REPLY_PADDING_BYTES) + b"ok".ljust(REPLY_PADDING_BYTES)


def predict_reply(answers: Sequence[Reply]) -> bytes:
    """The reply to `Predict`: one answer for every request of the batch, each with its own status."""
    parts: list[bytes] = [_PREDICTED]
    for answer in answers:
        content_type = _written(answer.content_type)
        reason = answer.reason.encode()
        parts += (
            _INT.pack(len(answer.request_id)),
            answer.request_id,
            _INT.pack(len(content_type)),
            content_type,
            _INT.pack(answer.status),
            _INT.pack(len(reason)),
            reason,
            _INT.pack(len(answer.headers)),
        )
        if answer.headers:
            parts += _header_parts(answer.headers)
        parts += (_INT.pack(len(answer.body)), answer.body)
    parts.append(_END)
    return b"".join(parts)


def _header_parts(headers: Sequence[tuple[str, str]]) -> list[bytes]:
    parts: list[bytes] = []
    for field in (text for header in headers for text in header):
        value = _written(field)
        parts += (_INT.pack(len(value)), value)
    size = sum(map(len, parts))
    if size > MAX_REPLY_HEADER_BYTES:
        raise WireError(f"reply headers of {size} bytes are over the {MAX_REPLY_HEADER_BYTES} that MMS can read")
    return parts
