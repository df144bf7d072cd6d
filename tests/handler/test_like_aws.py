"""--like aws against what AWS's own code answered: every body of the table, byte for byte where that was an answer.

Where AWS's code answers nothing at all (its handler of errors fails, and the caller gets 503), ours says what AWS means to
say: 204 for an empty body, 415 for one that cannot be read or answered so, 400 for rows the model cannot score.
"""

from __future__ import annotations

import base64
import json
import struct
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from handler.cache.model_cache import ModelCache
from handler.dispatch import Dispatcher
from handler.error_responses import CONTAINER, SAGEMAKER, Framing, like_aws
from handler.forest.booster_pool import BoosterPool
from handler.loading.loader import PreparedModel
from handler.messages import Answer, Request
from handler.payload import AWS
from handler.payload.recordio import write_recordio
from handler.predictor import Facts, HandlePool, facts_of_ensemble
from handler.scoring import PlainScoring
from handler.telemetry.recorder import Silent
from tests.rig.fakes import InlineExecutor

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures" / "like_aws"
TABLE = [json.loads(line) for line in (FIXTURES / "answers.jsonl").read_text().splitlines()]
OBJECTIVES = {
    "abalone": "reg:squarederror",
    "regression": "reg:squarederror",
    "binary": "binary:logistic",
    "softprob": "multi:softprob",
    "softmax": "multi:softmax",
    "folds": "reg:squarederror",
    "folds-softmax": "multi:softmax",
}


def prepare(target: str) -> PreparedModel:
    name = "regression" if target == "pickled" else target  # the same booster; how it is unpickled is tested elsewhere
    paths = [path for path in sorted(FIXTURES.glob("*.ubj")) if path.stem.rstrip("-0123") == name]
    documents = tuple(path.read_bytes() for path in paths)
    facts = Facts(OBJECTIVES[name], "gbtree", 9 if name == "abalone" else 4, 3 if name == "softprob" else 1, 1000)
    folds = (facts,) * len(documents)
    return PreparedModel("v", 1000, 1, 1, 1, documents, folds, facts_of_ensemble(folds), BoosterPool(HandlePool()))


@cache
def dispatcher(framing: Framing = CONTAINER, is_like_aws: bool = True) -> Dispatcher:
    cache = ModelCache(
        budget_bytes=100_000, prepare=prepare, executor=InlineExecutor(), max_waiting=4, recorder=Silent()
    )
    if not is_like_aws:
        return Dispatcher(cache, Silent(), wait_s=1, framing=framing)
    return Dispatcher(cache, Silent(), wait_s=1, framing=like_aws(framing), scoring=PlainScoring(AWS))


def ask(row: dict[str, Any], framing: Framing = CONTAINER) -> Answer:
    headers = {"x-amzn-sagemaker-target-model": row["model"]}
    headers |= {"content-type": row["content_type"]} if row["content_type"] is not None else {}
    headers |= {"accept": row["accept"]} if row["accept"] is not None else {}
    body = row["body"].encode() if "body" in row else base64.b64decode(row["body_base64"])
    return dispatcher(framing).answer(Request(headers, body, ""))


def named(row: dict[str, Any]) -> str:
    return f"{row['model']}-{row['content_type']}-{row['accept']}-{row.get('body', row.get('body_base64'))!r}"


ANSWERED = [row for row in TABLE if row["status"] == 200]
FAILED = [row for row in TABLE if row["status"] != 200]

# AWS answers these and we refuse them: a colon is no separator of numbers, and a blank line is no row.
NOT_RIGHT = {("text/csv", "1:2:3:4"), ("text/libsvm", "0:1\n\n2:3")}

# We answer these, which AWS's code cannot.
MORE = {
    ("text/csv", '"1","2","3","4"'),
    ("text/csv", "1,null,3,4"),
    ("text/csv; label_size=0", "1,2,3,4\n5,6,7,8"),
    ("text/libsvm", "1"),
    ("text/libsvm", "1 qid:1 0:1 1:2"),
    ("text/libsvm", "0:1  2:3"),
}
MORE_ACCEPTED = {
    "json": "application/json",
    "application/jsonlines": "application/jsonlines",
    "text/csv, application/json": "text/csv",
    "application/x-recordio-protobuf": "application/x-recordio-protobuf",
    "application/json; charset=utf-8": "application/json",
}


@pytest.mark.parametrize("row", ANSWERED, ids=named)
def test_what_aws_answers_is_answered_byte_for_byte(row: dict[str, Any]) -> None:
    answer = ask(row)
    if (row["content_type"], row.get("body")) in NOT_RIGHT:
        assert answer.status == 415
        return
    assert (answer.status, answer.content_type, answer.body.decode()) == (200, row["answer_type"], row["answer"])


@pytest.mark.parametrize("row", FAILED, ids=named)
def test_what_aws_fails_at_is_told_or_answered(row: dict[str, Any]) -> None:
    answer = ask(row)
    if (row["content_type"], row.get("body")) in MORE:
        assert answer.status == 200
    elif row["accept"] in MORE_ACCEPTED:
        assert (answer.status, answer.content_type) == (200, MORE_ACCEPTED[row["accept"]])
    elif row.get("body") == "":
        assert (answer.status, answer.body) == (204, b"")
    else:
        assert answer.status == (400 if json.loads(answer.body)["type"] == "FeatureMismatch" else 415)


@pytest.mark.parametrize(
    ("body", "status", "original"), [("", 204, None), ("1,x,3,4", 424, 415), ("1,2,3,4,5", 424, 400)]
)
def test_a_caller_of_sagemaker_sees_the_same_inside_a_model_error(body: str, status: int, original: int | None) -> None:
    answer = ask({"model": "regression", "content_type": "text/csv", "accept": None, "body": body}, SAGEMAKER)
    assert answer.status == status
    assert not answer.body if original is None else json.loads(answer.body)["OriginalStatusCode"] == original


def abalone() -> dict[str, bytes]:
    """AWS's file in every type it can be sent as."""
    libsvm = (FIXTURES / "abalone.validation").read_bytes().strip()
    table = np.full((626, 9), np.nan, np.float32)
    for row, line in enumerate(libsvm.decode().split("\n")):
        for cell in line.split()[1:]:
            index, value = cell.split(":")
            table[row, int(index)] = float(value)
    csv = "\n".join(",".join("" if np.isnan(cell) else str(cell) for cell in row) for row in table)
    frames = bytearray(write_recordio({"values": table}))
    frames[8 :: len(frames) // len(table)] = b"\n" * len(table)  # the field `label` made `features`
    return {
        "text/libsvm": libsvm,
        "": libsvm,
        "text/csv": csv.encode(),
        "application/x-recordio-protobuf": bytes(frames),
    }


def field(number: int, data: bytes) -> bytes:
    """A field of bytes, as protobuf has it."""
    assert len(data) < 1 << 14
    size = bytes([len(data)]) if len(data) < 128 else bytes([len(data) & 127 | 128, len(data) >> 7])
    return bytes([number << 3 | 2]) + size + data


def sparse_recordio(libsvm: bytes) -> bytes:
    """A sparse record for each line, its keys as the line has them."""
    frames = []
    for line in libsvm.split(b"\n"):
        cells = [cell.split(b":") for cell in line.split()[1:]]
        values = np.array([float(value) for _, value in cells], "<f4").tobytes()
        tensor = field(1, values) + field(2, bytes(int(index) for index, _ in cells)) + field(3, bytes([9]))
        record = field(1, field(1, b"values") + field(2, field(2, tensor)))
        frames.append(struct.pack("<II", 0xCED7230A, len(record)) + record + bytes(-len(record) % 4))
    return b"".join(frames)


@pytest.mark.parametrize(
    "content_type", ["text/libsvm", "", "text/csv", "application/x-recordio-protobuf", "sparse recordio"]
)
def test_awss_abalone_file_has_awss_scores_in_every_type(content_type: str) -> None:
    """public report f25: 626 of 626 rows differed, since their indices were shifted"""
    if content_type == "sparse recordio":
        content_type, body = "application/x-recordio-protobuf", sparse_recordio(abalone()["text/libsvm"])
    else:
        body = abalone()[content_type]
    request = Request({"x-amzn-sagemaker-target-model": "abalone", "content-type": content_type}, body, "")
    theirs = (FIXTURES / "abalone.json").read_bytes()
    assert dispatcher().answer(request).body == theirs
    ours = dispatcher(is_like_aws=False).answer(request)
    assert np.array_equal(np.array(ours.body.split(), np.float32), np.array(json.loads(theirs), np.float32))
    labels = [float(line.split()[0]) for line in abalone()["text/libsvm"].split(b"\n")]
    assert np.sqrt(np.mean((np.array(json.loads(theirs)) - labels) ** 2)) == pytest.approx(2.28, abs=0.01)
