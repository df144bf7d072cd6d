"""One captured call as a line of JSON, and back.

    {"captureData": {"endpointInput":  {"observedContentType", "mode": "INPUT",  "data", "encoding"},
                     "endpointOutput": {"observedContentType", "mode": "OUTPUT", "data", "encoding"}},
     "eventMetadata": {"eventId", "inferenceId"?, "inferenceTime", and ours: "targetModel", "modelVersion", "cache", "status",
                       "stagesUs", "totalUs"},
     "eventVersion": "0"}

Rule: what a reader of SageMaker's lines looks for is where SageMaker has it; what is ours is in eventMetadata alone. No
header of a caller's is written but the content type and the InferenceId.

Source: SageMaker guide, "Capture data from real-time endpoint". Content types that are no text are BASE64 there, too.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NamedTuple

import orjson

from handler.messages import Exchange

INFERENCE_ID_HEADER = "x-amzn-sagemaker-inference-id"
_ENCODINGS = {"text/csv": "CSV", "application/json": "JSON", "application/jsonlines": "JSON"}
_CACHE = {True: b"hit", False: b"miss", None: b"none"}
REMEMBERED = 4_096  # targets, about


class NoCapture(ValueError):
    """A line that is none, and why."""


@dataclass(frozen=True, slots=True)
class Captured:
    """A line, read. `output` is b"" when SageMaker wrote none; what is ours is empty in lines that are SageMaker's own."""

    event_id: str
    inference_id: str
    at: datetime
    target: str
    version: str
    status: int
    cache: str
    input: bytes = field(repr=False)
    input_type: str
    output: bytes = field(repr=False)
    output_type: str
    stages_us: Mapping[str, int] = field(default_factory=dict)


def line(at_s: float, call: Exchange) -> bytes:
    """The call, with a newline behind it. There may be thousands a second: what calls have in common is made once."""
    request, answer = call.request, call.answer
    headers = request.headers
    begin, middle, end = _common(
        headers.get("content-type", ""), answer.content_type, call.target, call.version, answer.status, call.is_hit
    )
    asked_as, asked = _data(begin, request.body)
    answered_as, answered = _data(middle, answer.body)
    inference_id = headers.get(INFERENCE_ID_HEADER)
    named = b"" if inference_id is None else b',"inferenceId":' + _text(inference_id)
    return b"".join(
        (
            asked_as, asked, answered_as, answered, end, _text(request.request_id), named,
            _second(int(at_s)), _stages(call), LINE_END,
        )
    )  # fmt: skip


LINE_END = b'},"eventVersion":"0"}\n'


class _Side(NamedTuple):
    """What stands before a body's text: of one that is text, and of bytes."""

    encoding: str | None
    as_text: bytes
    as_bytes: bytes


@lru_cache(maxsize=REMEMBERED)
def _common(
    asked_type: str, answered_type: str, target: str | None, version: str, status: int, is_hit: bool | None
) -> tuple[_Side, _Side, bytes]:
    return (
        _side(b'{"captureData":{"endpointInput":', "INPUT", asked_type),
        _side(b'},"endpointOutput":', "OUTPUT", answered_type),
        b'}},"eventMetadata":{"targetModel":%b,"modelVersion":%b,"cache":"%b","status":%d,"eventId":'
        % (b"null" if target is None else _text(target), _text(version), _CACHE[is_hit], status),
    )


def _side(before: bytes, mode: str, content_type: str) -> _Side:
    encoding = _ENCODINGS.get(content_type.partition(";")[0].strip().lower())
    head = b'%b{"observedContentType":%b,"mode":"%b","encoding":"' % (before, _text(content_type), mode.encode())
    return _Side(encoding, head + (encoding or "").encode() + b'","data":', head + b'BASE64","data":')


def _data(side: _Side, body: bytes) -> tuple[bytes, bytes]:
    if side.encoding is not None:
        try:
            return side.as_text, orjson.dumps(body.decode())
        except UnicodeDecodeError:
            pass
    return side.as_bytes, b'"%b"' % base64.b64encode(body)


def _text(text: str) -> bytes:
    """As JSON; half a surrogate pair, which no JSON may hold, is spelled out."""
    try:
        return orjson.dumps(text)
    except TypeError:
        return orjson.dumps(text.encode("utf-8", "backslashreplace").decode())


@lru_cache(maxsize=4)
def _second(at_s: int) -> bytes:
    return b',"inferenceTime":"%b"' % time_text(at_s).encode()


def _stages(call: Exchange) -> bytes:
    marks = call.marks
    if len(marks) != 5:
        return b',"stagesUs":{},"totalUs":%d' % ((marks[-1] - marks[0]) // 1000)
    started, held, decoded, predicted, ended = marks
    return b',"stagesUs":{"wait":%d,"decode":%d,"predict":%d,"encode":%d},"totalUs":%d' % (
        call.wait_us,
        (decoded - held) // 1000,
        (predicted - decoded) // 1000,
        (ended - predicted) // 1000,
        (ended - started) // 1000,
    )


def time_text(at_s: float) -> str:
    """`2022-02-14T17:25:06Z`."""
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse(text: bytes) -> Captured:
    """A line of ours or of SageMaker's. Raises NoCapture."""
    try:
        value = orjson.loads(text)
        metadata, data = value["eventMetadata"], value["captureData"]
        asked = data["endpointInput"]
        answered = data.get("endpointOutput") or {"data": "", "encoding": "CSV", "observedContentType": ""}
        return Captured(
            event_id=str(metadata["eventId"]),
            inference_id=str(metadata.get("inferenceId", "")),
            at=datetime.strptime(metadata["inferenceTime"], "%Y-%m-%dT%H:%M:%S%z"),
            target=str(metadata.get("targetModel") or ""),
            version=str(metadata.get("modelVersion") or ""),
            status=int(metadata.get("status", 200)),
            cache=str(metadata.get("cache", "")),
            input=_bytes(asked),
            input_type=str(asked.get("observedContentType", "")),
            output=_bytes(answered),
            output_type=str(answered.get("observedContentType", "")),
            stages_us={str(name): int(us) for name, us in metadata.get("stagesUs", {}).items()},
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise NoCapture(f"no line of captured data: {type(error).__name__}: {error}") from error


def _bytes(side: Mapping[str, Any]) -> bytes:
    data = side["data"]
    if not isinstance(data, str):
        raise NoCapture("the data is no text")
    return base64.b64decode(data, validate=True) if side.get("encoding") == "BASE64" else data.encode()
