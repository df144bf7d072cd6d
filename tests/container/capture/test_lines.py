"""Lines of captured calls: SageMaker's form, what is ours in it, and reading both back."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import jsonschema
import pytest

from container.capture.lines import NoCapture, line, parse
from handler.messages import Answer, Exchange, Request

MARKS = (1_000_000, 1_005_000, 1_009_000, 1_018_000, 1_020_999)  # ns
AT_S = 1_644_859_506  # 2022-02-14T17:25:06Z
ID = "b7d5f3c1-9a52-4a4e-8f66-0c8b0f4dd6a1"
SIDE = {
    "type": "object",
    "required": ["observedContentType", "mode", "data", "encoding"],
    "additionalProperties": False,
    "properties": {
        "observedContentType": {"type": "string"},
        "mode": {"enum": ["INPUT", "OUTPUT"]},
        "data": {"type": "string"},
        "encoding": {"enum": ["CSV", "JSON", "BASE64"]},
    },
}
# Written from the guide's example (SageMaker guide, "Capture data from real-time endpoint").
SCHEMA = {
    "type": "object",
    "required": ["captureData", "eventMetadata", "eventVersion"],
    "additionalProperties": False,
    "properties": {
        "captureData": {
            "type": "object",
            "required": ["endpointInput", "endpointOutput"],
            "properties": {"endpointInput": SIDE, "endpointOutput": SIDE},
        },
        "eventMetadata": {
            "type": "object",
            "required": ["eventId", "inferenceTime"],
            "properties": {
                "eventId": {"type": "string"},
                "inferenceId": {"type": "string"},
                "inferenceTime": {"type": "string", "pattern": "^\\d{4}-\\d\\d-\\d\\dT\\d\\d:\\d\\d:\\d\\dZ$"},
            },
        },
        "eventVersion": {"const": "0"},
    },
}


def call(body: bytes = b"1,2\n", content_type: str = "text/csv", **headers: str) -> Exchange:
    named = {"content-type": content_type, **{name.replace("_", "-"): value for name, value in headers.items()}}
    answer = Answer(200, "text/csv; charset=utf-8", b"0.02")
    return Exchange(Request(named, body, ID), answer, "us/a.tar.gz", '"etag"', True, 3, MARKS)


def test_a_line_is_sagemakers_with_ours_in_its_metadata() -> None:
    text = line(AT_S, call())
    assert text.endswith(b"\n")
    value = json.loads(text)
    jsonschema.validate(value, SCHEMA)
    assert value["captureData"] == {
        "endpointInput": {"observedContentType": "text/csv", "mode": "INPUT", "data": "1,2\n", "encoding": "CSV"},
        "endpointOutput": {
            "observedContentType": "text/csv; charset=utf-8", "mode": "OUTPUT", "data": "0.02", "encoding": "CSV",
        },
    }  # fmt: skip
    assert value["eventMetadata"] == {
        "eventId": ID,
        "inferenceTime": "2022-02-14T17:25:06Z",
        "targetModel": "us/a.tar.gz",
        "modelVersion": '"etag"',
        "cache": "hit",
        "status": 200,
        "stagesUs": {"wait": 3, "decode": 4, "predict": 9, "encode": 2},
        "totalUs": 20,
    }


def test_no_header_of_the_callers_is_written_but_the_inference_id() -> None:
    secret = {"authorization": "AWS4 secret", "x_amzn_sagemaker_custom_attributes": "token=secret"}
    text = line(AT_S, call(x_amzn_sagemaker_inference_id="row-7", **secret))
    assert b"secret" not in text
    assert json.loads(text)["eventMetadata"]["inferenceId"] == "row-7"


@pytest.mark.parametrize(
    ("body", "content_type", "encoding"),
    [
        (b'{"a": 1}', "application/json; charset=utf-8", "JSON"),
        (b"\x93NUMPY", "application/x-npy", "BASE64"),
        (b"\xff,1", "text/csv", "BASE64"),
        (b"", "text/csv", "CSV"),
    ],
)
def test_every_body_comes_back_to_the_byte(body: bytes, content_type: str, encoding: str) -> None:
    text = line(AT_S, call(body, content_type))
    assert json.loads(text)["captureData"]["endpointInput"]["encoding"] == encoding
    back = parse(text)
    assert (back.input, back.input_type, back.output) == (body, content_type, b"0.02")
    assert (back.target, back.version, back.status, back.cache) == ("us/a.tar.gz", '"etag"', 200, "hit")
    assert back.at == datetime(2022, 2, 14, 17, 25, 6, tzinfo=UTC)


def test_half_a_surrogate_pair_in_a_name_is_no_reason_to_lose_the_line() -> None:
    odd = call()._replace(target="us/\ud800.tar.gz")
    assert parse(line(AT_S, odd)).event_id == ID


def test_sagemakers_own_line_is_read() -> None:
    text = (
        b'{"captureData":{"endpointInput":{"observedContentType":"text/csv","mode":"INPUT","data":"1,2\\n","encoding":"CSV"},'
        b'"endpointOutput":{"observedContentType":"text/csv; charset=utf-8","mode":"OUTPUT","data":"0.02","encoding":"CSV"}},'
        b'"eventMetadata":{"eventId":"x","inferenceTime":"2022-02-14T17:25:06Z"},"eventVersion":"0"}'
    )
    back = parse(text)
    assert (back.input, back.output, back.target, back.status) == (b"1,2\n", b"0.02", "", 200)


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b'{"eventMetadata":1,"captureData":2}', b'{"captureData":{}}'])
def test_what_is_no_line_is_refused(text: bytes) -> None:
    with pytest.raises(NoCapture):
        parse(text)
