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
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import orjson

from handler.messages import Exchange

VERSION = "0"
INFERENCE_ID_HEADER = "x-amzn-sagemaker-inference-id"
_ENCODINGS = {"text/csv": "CSV", "application/json": "JSON", "application/jsonlines": "JSON"}
_CACHE = {True: "hit", False: "miss", None: "none"}


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
    """The call, with a newline behind it."""
    headers = call.request.headers
    metadata: dict[str, Any] = {
        "eventId": call.request.request_id,
        "inferenceTime": time_text(at_s),
        "targetModel": call.target,
        "modelVersion": call.version,
        "cache": _CACHE[call.is_hit],
        "status": call.answer.status,
        "stagesUs": dict(call.stages_us),
        "totalUs": call.total_us,
    }
    inference_id = headers.get(INFERENCE_ID_HEADER)
    if inference_id:
        metadata["inferenceId"] = inference_id
    value = {
        "captureData": {
            "endpointInput": _side("INPUT", headers.get("content-type", ""), call.request.body),
            "endpointOutput": _side("OUTPUT", call.answer.content_type, call.answer.body),
        },
        "eventMetadata": metadata,
        "eventVersion": VERSION,
    }
    try:
        return orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError:  # half a surrogate pair in a name, which no JSON may hold
        metadata["targetModel"] = str(call.target).encode("utf-8", "backslashreplace").decode()
        return json.dumps(value).encode("ascii") + b"\n"


def _side(mode: str, content_type: str, body: bytes) -> dict[str, str]:
    encoding = _ENCODINGS.get(content_type.partition(";")[0].strip().lower())
    if encoding is not None:
        try:
            return {"observedContentType": content_type, "mode": mode, "data": body.decode(), "encoding": encoding}
        except UnicodeDecodeError:
            pass
    data = base64.b64encode(body).decode("ascii")
    return {"observedContentType": content_type, "mode": mode, "data": data, "encoding": "BASE64"}


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
