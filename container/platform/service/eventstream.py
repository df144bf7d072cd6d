"""An answer as a stream of events: parts of a payload one by one, and what goes wrong after the first of them.

    event    u32 length, u32 length of headers, u32 CRC-32 of these, headers, payload, u32 CRC-32 of all before
    header   u8 length and name, u8 7 (text), u16 length and value

Source: botocore/eventstream.py, and ResponseStream in its model of sagemaker-runtime.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping

CONTENT_TYPE = "application/vnd.amazon.eventstream"
_FIXED_BYTES = 16
_TEXT = 7


def payload_part(data: bytes) -> bytes:
    headers = {":message-type": "event", ":event-type": "PayloadPart", ":content-type": "application/octet-stream"}
    return _event(headers, data)


def failure(kind: str, fields: Mapping[str, str]) -> bytes:
    """The stream's end where an error of the service comes after its beginning."""
    headers = {":message-type": "exception", ":exception-type": kind, ":content-type": "application/json"}
    return _event(headers, json.dumps(fields).encode())


def _event(headers: Mapping[str, str], payload: bytes) -> bytes:
    packed = b"".join(_header(name, value) for name, value in headers.items())
    prelude = struct.pack("!II", _FIXED_BYTES + len(packed) + len(payload), len(packed))
    prelude += struct.pack("!I", zlib.crc32(prelude))
    whole = prelude + packed + payload
    return whole + struct.pack("!I", zlib.crc32(whole))


def _header(name: str, value: str) -> bytes:
    return bytes([len(name)]) + name.encode() + struct.pack("!BH", _TEXT, len(value)) + value.encode()
