"""Requests through the stock MMS, as plain boto3 and plain HTTP send them."""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from shutil import which

import botocore.exceptions
import numpy as np
import pytest

from tests.rig import boosters
from tests.rig.endpoint import Endpoint
from tests.rig.faulty_s3 import ENVIRONMENT

ROW = "0.1,0.2,0.3,0.4,0.5,0.6"
X = np.array([[0.1, 0.2, 0.3, 0.4, 0.5, 0.6]], np.float32)


def answer_of(number: int, x: np.ndarray = X) -> np.ndarray:
    return boosters.expected(boosters.segment(number), x)


def csv(body: bytes) -> np.ndarray:
    return np.loadtxt(io.BytesIO(body), delimiter=",", dtype=np.float32, ndmin=2)


def test_boto3_calls_a_target_below_a_folder_and_is_told_cold_from_warm(endpoint: Endpoint) -> None:
    call = {"EndpointName": "houses", "TargetModel": "us/3.tar.gz", "ContentType": "text/csv", "Body": ROW}
    cold, warm = endpoint.client().invoke_endpoint(**call), endpoint.client().invoke_endpoint(**call)
    assert cold["CustomAttributes"].startswith("cache=miss,load_ms=")
    assert warm["CustomAttributes"] == "cache=hit"
    for answer in (cold, warm):
        assert answer["ContentType"] == "text/csv"
        np.testing.assert_array_equal(csv(answer["Body"].read()), answer_of(3))


def test_bare_invocations_take_the_target_header(endpoint: Endpoint) -> None:
    reply = endpoint.post("us/1.tar.gz", ROW)
    assert reply.status == 200
    np.testing.assert_array_equal(csv(reply.body), answer_of(1))


def test_the_target_may_come_in_custom_attributes(endpoint: Endpoint) -> None:
    reply = endpoint.post(None, ROW, X_Amzn_SageMaker_Custom_Attributes="trace=7,TargetModel=us/2.tar.gz")
    np.testing.assert_array_equal(csv(reply.body), answer_of(2))


def test_json_in_and_out(endpoint: Endpoint) -> None:
    body = '{"instances":[[0.1,0.2,0.3,0.4,0.5,0.6],[0.1,null,0.3,0.4,0.5,0.6]]}'
    reply = endpoint.post("us/1.tar.gz", body, Content_Type="application/json", Accept="application/json")
    x = np.repeat(X, 2, axis=0)
    x[1, 1] = np.nan
    assert [row["score"] for row in reply.json["predictions"]] == pytest.approx(answer_of(1, x)[:, 0].tolist())


def test_thousands_of_rows_with_missing_cells(endpoint: Endpoint) -> None:
    x = boosters.rows(5000, 6, seed=9)
    x[::7, 2] = np.nan
    body = "\n".join(",".join("" if np.isnan(value) else repr(float(value)) for value in row) for row in x)
    reply = endpoint.post("us/4.tar.gz", body)
    np.testing.assert_array_equal(csv(reply.body), answer_of(4, x))


@pytest.mark.skipif(which("aws") is None, reason="no AWS CLI here")
def test_the_aws_cli_works_too(endpoint: Endpoint, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    command = ["aws", "sagemaker-runtime", "invoke-endpoint", "--endpoint-name", "houses"]
    command += ["--endpoint-url", f"http://127.0.0.1:{endpoint.port}/predictions/segments"]
    command += ["--target-model", "us/0.tar.gz", "--content-type", "text/csv", "--body", ROW]
    version = subprocess.run(["aws", "--version"], capture_output=True, text=True, check=True).stdout
    if not version.startswith("aws-cli/1"):  # version 2 would take the body for base64
        command += ["--cli-binary-format", "raw-in-base64-out"]
    run = subprocess.run([*command, str(out)], env={**os.environ, **ENVIRONMENT}, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    np.testing.assert_array_equal(csv(out.read_bytes()), answer_of(0))


def test_many_callers_get_each_the_answer_of_their_own_segment(endpoint: Endpoint) -> None:
    client = endpoint.client()
    wanted = [answer_of(number) for number in range(6)]

    def call(number: int) -> bool:
        answer = client.invoke_endpoint(
            EndpointName="e", TargetModel=f"us/{number % 6}.tar.gz", ContentType="text/csv", Body=ROW
        )
        return bool((csv(answer["Body"].read()) == wanted[number % 6]).all())

    with ThreadPoolExecutor(16) as callers:
        assert all(callers.map(call, range(600)))


@pytest.mark.parametrize(
    ("call", "code", "original", "says"),
    [
        ({"TargetModel": "us/none.tar.gz"}, "ValidationError", None, "Failed to download model data"),
        ({"TargetModel": "../secret"}, "ValidationError", None, "path segment"),
        ({"TargetModel": "/etc/passwd"}, "ValidationError", None, "absolute"),
        ({}, "ValidationError", None, "no target model"),
        ({"ContentType": "image/png"}, "ModelError", 415, "image/png"),
        ({"Accept": "image/png"}, "ModelError", 406, "image/png"),
        ({"Body": "1,2,3"}, "ModelError", 400, "6"),
        ({"Body": "1,2,3,4,5,abc"}, "ModelError", 400, "abc"),
        ({"Body": ""}, "ModelError", 400, "empty"),
        ({"TargetModel": "broken.tar.gz"}, "ModelError", 422, "broken.tar.gz"),
    ],
)
def test_errors_are_the_exceptions_that_sagemaker_raises(
    endpoint: Endpoint, segments: Path, call: dict[str, str], code: str, original: int | None, says: str
) -> None:
    (segments / "broken.tar.gz").write_bytes(b"\x1f\x8b not an archive")
    good = {"EndpointName": "e", "ContentType": "text/csv", "Body": ROW, "TargetModel": "us/1.tar.gz"}
    if not call:
        del good["TargetModel"]
    with pytest.raises(botocore.exceptions.ClientError) as raised:
        endpoint.client().invoke_endpoint(**(good | call))
    response = raised.value.response
    assert response["Error"]["Code"] == code
    assert says in response["Error"]["Message"]
    if original is not None:
        assert response["OriginalStatusCode"] == original  # type: ignore[typeddict-item]
        assert says in response["OriginalMessage"]  # type: ignore[typeddict-item]


def test_a_model_dropped_in_later_is_served_by_the_next_call(endpoint: Endpoint, segments: Path) -> None:
    assert endpoint.post("eu/new.tar.gz", ROW).status == 400
    (segments / "eu").mkdir(exist_ok=True)
    (segments / "eu" / "new.tar.gz").write_bytes(boosters.segment_archive(5))
    np.testing.assert_array_equal(csv(endpoint.post("eu/new.tar.gz", ROW).body), answer_of(5))


def test_a_target_may_be_called_what_people_call_it(endpoint: Endpoint, segments: Path) -> None:
    (segments / "us" / "Málaga €.tar.gz").write_bytes(boosters.segment_archive(2))
    answer = endpoint.client().invoke_endpoint(
        EndpointName="e", TargetModel="us/Málaga €.tar.gz", ContentType="text/csv", Body=ROW
    )
    np.testing.assert_array_equal(csv(answer["Body"].read()), answer_of(2))


def test_a_form_is_told_how_to_call_instead(endpoint: Endpoint) -> None:
    reply = endpoint.post("us/1.tar.gz", ROW, Content_Type="application/x-www-form-urlencoded")
    assert (reply.status, reply.json["OriginalStatusCode"]) == (424, 415)
    assert "text/csv" in reply.json["Message"]


def test_a_body_over_the_limit_is_refused_and_the_next_call_served(endpoint: Endpoint) -> None:
    with contextlib.suppress(ConnectionError):  # MMS answers 413 and closes while the body is still being sent
        assert endpoint.post("us/1.tar.gz", b"1," * (14 << 20)).status == 413
    assert endpoint.post("us/1.tar.gz", ROW).status == 200


PAGE = (Path(__file__).parents[2] / "handler" / "payload" / "README.md").read_text()
CURLS = [line.replace("\\|", "|") for line in re.findall(r"\| `([^`]*curl [^`]* \$U[^`]*)` \|", PAGE)]


@pytest.mark.skipif(which("curl") is None, reason="no curl here")
@pytest.mark.parametrize("line", CURLS)
def test_each_line_of_the_page_is_answered(endpoint: Endpoint, segments: Path, tmp_path: Path, line: str) -> None:
    (segments / "us" / "Houston_TX.tar.gz").write_bytes(boosters.segment_archive(1))
    shown = re.search(r"^T='.*$", PAGE, re.MULTILINE)
    assert shown is not None
    names = shown[0].replace(":8080", f":{endpoint.port}")
    script = (
        f"{names}\n{line.replace('curl ', 'curl --fail --silent --show-error ').replace('python3', sys.executable)}"
    )
    run = subprocess.run(["sh", "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    written = run.stdout or next(tmp_path.iterdir()).read_bytes()
    assert written


def test_the_page_has_a_line_for_every_kind_of_body_and_answer() -> None:
    assert len(CURLS) == 10
