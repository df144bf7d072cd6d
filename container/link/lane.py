"""The frames of the lane, by which small warm requests come past MMS (launch/plugin/Lane.java): bytes in, requests out, and
back.

    greeting   'MMEL' u32: the most bytes of a body that may come this way; sent once, by the runtime
    request    u32 length of the rest, request-id (36 bytes), u16 target, u16 attributes, u8 content-type, u8 accept,
               u8 inference-id: their lengths; then these five in that order, and the body
    note       u32 2**31 + 43, u8 what, u64 value, zeros up to 43 bytes: what the runtime would not hear of otherwise
    reply      u32 length of the rest, u16 status, u8 content-type, u16 headers: their lengths; the content type, the headers
               as name NUL value NUL, the body

Numbers are big-endian, texts are bytes as they came in the request's head. Replies have the order of their requests; a note
has none.

Rule: a reply of status 0 is "not at once": nothing has been done, and the request goes MMS's way.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import NamedTuple

from container.link.wire import WireError
from handler.messages import Answer, Request

MAX_FRAME_BYTES = 64 * 1024
NOT_AT_ONCE = struct.pack("!IHBH", 5, 0, 0, 0)

GONE, REFUSED = 1, 2  # what notes are of

_LENGTH = struct.Struct("!I")
_NOTE = 1 << 31
_NOTE_BODY = struct.Struct("!4xBQ")
_HEAD = struct.Struct("!I36sHHBBB")
_HEAD_BYTES = _HEAD.size
_REPLY_HEAD_BYTES = 5
_REPLY = struct.Struct("!IHBH")
_TARGET = "x-amzn-sagemaker-target-model"
_ATTRIBUTES = "x-amzn-sagemaker-custom-attributes"
_INFERENCE_ID = "x-amzn-sagemaker-inference-id"


class Note(NamedTuple):
    """what    GONE: the caller of the call of that number. REFUSED: a request, with that status, by the front end itself"""

    what: int
    value: int


def greeting(max_body_bytes: int) -> bytes:
    return b"MMEL" + _LENGTH.pack(max_body_bytes)


def parse(data: bytes, at: int) -> tuple[Request | Note, int] | None:
    """What begins there, and where the next does; None until the rest of it is here. Raises WireError."""
    if len(data) - at < _HEAD_BYTES:
        return None
    length, request_id, n_target, n_attributes, n_type, n_accept, n_inference_id = _HEAD.unpack_from(data, at)
    end = at + 4 + length
    body_at = at + _HEAD_BYTES + n_target + n_attributes + n_type + n_accept + n_inference_id
    if body_at > end or length > MAX_FRAME_BYTES:
        if length == _NOTE | _HEAD_BYTES - 4:
            return Note(*_NOTE_BODY.unpack_from(data, at)), at + _HEAD_BYTES
        raise WireError(f"a frame of {length} bytes, {body_at - at - 4} of them before the body")
    if end > len(data):
        return None
    headers = {}
    at += _HEAD_BYTES
    if n_target:
        headers[_TARGET] = data[at : at + n_target].decode("latin-1")
        at += n_target
    if n_attributes:
        headers[_ATTRIBUTES] = data[at : at + n_attributes].decode("latin-1")
        at += n_attributes
    if n_type:
        headers["content-type"] = data[at : at + n_type].decode("latin-1")
        at += n_type
    if n_accept:
        headers["accept"] = data[at : at + n_accept].decode("latin-1")
        at += n_accept
    if n_inference_id:
        headers[_INFERENCE_ID] = data[at : at + n_inference_id].decode("latin-1")
    return Request(headers, data[body_at:end], request_id.decode("latin-1")), end


def reply(answer: Answer | None) -> bytes:
    """An answer's frame; of None, that it is not given at once."""
    if answer is None:
        return NOT_AT_ONCE
    content_type, headers = _texts(answer.content_type, answer.headers)
    n_texts = len(content_type) + len(headers)
    head = _REPLY.pack(_REPLY_HEAD_BYTES + n_texts + len(answer.body), answer.status, len(content_type), len(headers))
    return b"".join((head, content_type, headers, answer.body))


@lru_cache(maxsize=64)  # warm answers have the same few
def _texts(content_type: str, headers: tuple[tuple[str, str], ...]) -> tuple[bytes, bytes]:
    return content_type.encode(), b"".join(f"{name}\0{value}\0".encode() for name, value in headers)
