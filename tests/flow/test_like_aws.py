"""`--like aws` through the stock MMS: the image's answers, and the statuses it means to give for a body."""

from __future__ import annotations

import json
from pathlib import Path

import botocore.exceptions
import pytest

from tests.rig import boosters
from tests.rig.endpoint import Endpoint

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures" / "like_aws"
TABLE = [json.loads(line) for line in (FIXTURES / "answers.jsonl").read_text().splitlines()]


def archive(*members: str) -> bytes:
    documents = [(FIXTURES / f"{member}.ubj").read_bytes() for member in members]
    names = ["xgboost-model"] if len(members) == 1 else [f"xgboost-model-{at}" for at in range(len(members))]
    return boosters.archive(dict(zip(names, documents, strict=True)))


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    (root / "regression.tar.gz").write_bytes(archive("regression"))
    (root / "softprob.tar.gz").write_bytes(archive("softprob"))
    (root / "folds.tar.gz").write_bytes(archive("folds-0", "folds-1"))
    (root / "alone.tar.gz").write_bytes(archive("folds-0"))
    return root


def test_a_caller_of_awss_image_sees_no_difference(prefix: Path, scratch: Path) -> None:
    with Endpoint(prefix, scratch, "--like", "aws", "--workers", "2", "--loaders", "1") as endpoint:
        for row in TABLE:
            if row["status"] != 200 or row["model"] not in {"regression", "softprob", "folds"} or "body" not in row:
                continue
            if (
                row["content_type"] != "text/csv"
                or row["accept"] not in {None, "text/csv", "csv"}
                or ":" in row["body"]
            ):
                continue
            accept = {} if row["accept"] is None else {"Accept": row["accept"]}
            reply = endpoint.post(f"{row['model']}.tar.gz", row["body"], **accept)
            assert (reply.status, reply.headers["content-type"], reply.body.decode()) == (
                200,
                row["answer_type"],
                row["answer"],
            )
        empty = endpoint.post("regression.tar.gz", "")
        assert (empty.status, empty.body) == (204, b"")
        with pytest.raises(botocore.exceptions.ClientError) as refusal:
            endpoint.client().invoke_endpoint(
                EndpointName="e", TargetModel="regression.tar.gz", ContentType="text/csv", Body="1,x"
            )
        assert refusal.value.response["OriginalStatusCode"] == 415
        assert (
            endpoint.post("regression.tar.gz", "1,2,3,4").status == 200
        )  # the empty answer left the connection as it was


def test_amazons_variables_choose_the_answer_and_the_folds(prefix: Path, scratch: Path) -> None:
    environment = {
        "SAGEMAKER_INFERENCE_ENSEMBLE": "false",
        "SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT": "application/jsonlines",
    }
    with Endpoint(prefix, scratch, "--workers", "2", "--loaders", "1", environment=environment) as endpoint:
        one, alone = (endpoint.post(f"{name}.tar.gz", "1,2,3,4") for name in ("folds", "alone"))
        assert one.headers["content-type"] == "application/jsonlines"
        assert one.body == alone.body
