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
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import orjson

from handler.messages import Exchange

INFERENCE_ID_HEADER = "x-amzn-sagemaker-inference-id"
_ENCODINGS = {"text/csv": b"CSV", "application/json": b"JSON", "application/jsonlines": b"JSON"}
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


def line(at_s: int, call: Exchange) -> bytes:
    """The call, with a newline behind it. There may be thousands a second: what calls have in common is written once.

    handler/telemetry/sheet.c writes ordinary ones to the byte as this does, and what is changed here is changed there.
    """
    request, answer, target, version, is_hit, wait_us, (started, held, decoded, predicted, ended) = call
    headers = request.headers
    form, asked, answered = _form(
        headers.get("content-type", ""), answer.content_type, target, version, answer.status, is_hit
    )
    name = _text(request.request_id)
    if INFERENCE_ID_HEADER in headers:
        name += b',"inferenceId":' + _text(headers[INFERENCE_ID_HEADER])
    return form % (
        asked(request.body), answered(answer.body), name, _second(at_s), wait_us, (decoded - held) // 1000,
        (predicted - decoded) // 1000, (ended - predicted) // 1000, (ended - started) // 1000,
    )  # fmt: skip


_Encode = Callable[[bytes], bytes]


@lru_cache(maxsize=REMEMBERED)
def _form(
    asked_type: str, answered_type: str, target: str | None, version: str, status: int, is_hit: bool | None
) -> tuple[bytes, _Encode, _Encode]:
    """A line with places for what is a call's own, and how each body is written there."""
    sides = [
        b'{"observedContentType":%b,"mode":"%b",' % (_text(content_type), mode)
        for content_type, mode in ((asked_type, b"INPUT"), (answered_type, b"OUTPUT"))
    ]
    metadata = b'{"targetModel":%b,"modelVersion":%b,"cache":"%b","status":%d,' % (
        b"null" if target is None else _text(target), _text(version), _CACHE[is_hit], status,
    )  # fmt: skip
    asked_before, answered_before, metadata = (text.replace(b"%", b"%%") for text in (*sides, metadata))
    form = (
        b'{"captureData":{"endpointInput":' + asked_before + b'%b},"endpointOutput":' + answered_before + b"%b}}"
        b',"eventMetadata":'
        + metadata
        + b'"eventId":%b,"inferenceTime":"%b","stagesUs":{"wait":%d,"decode":%d,"predict":%d,'
        b'"encode":%d},"totalUs":%d},"eventVersion":"0"}\n'
    )
    return form, _encode_as(asked_type), _encode_as(answered_type)


def _encode_as(content_type: str) -> _Encode:
    encoding = _ENCODINGS.get(content_type.partition(";")[0].strip().lower())
    if encoding is None:
        return _as_base64
    before = b'"encoding":"%b","data":' % encoding

    def encode(body: bytes) -> bytes:
        try:
            return before + orjson.dumps(body.decode())
        except UnicodeDecodeError:
            return _as_base64(body)

    return encode


def _as_base64(body: bytes) -> bytes:
    return b'"encoding":"BASE64","data":"%b"' % base64.b64encode(body)


def _text(text: str) -> bytes:
    """As JSON; half a surrogate pair, which no JSON may hold, is spelled out."""
    try:
        return orjson.dumps(text)
    except TypeError:
        return orjson.dumps(text.encode("utf-8", "backslashreplace").decode())


@lru_cache(maxsize=4)
def _second(at_s: int) -> bytes:
    return time_text(at_s).encode()


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
