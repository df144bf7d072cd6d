from __future__ import annotations

import gzip
import io
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from container.platform.platform import Platform
from tests.container.platform.jobs.conftest import ROLE, Account, until
from tests.rig.platform import platform

# A model that answers each line with its length and what its data say; a line `bad` is refused, `slow` never answered.
CONTAINER = """
import os, signal, sys, threading
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
word = open(os.environ.get("MME_OPT_ML", "/opt/ml") + "/model/word").read()
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer(200 if self.path == "/ping" else 404, b"")
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        print(self.headers["Content-Type"], self.headers["Accept"], len(body), os.environ["MINE"], flush=True)
        if body == b"slow\\n":
            threading.Event().wait()
        lines = body.split()
        self.answer(400 if b"bad" in lines else 200, b"\\n".join(b"%d%s" % (len(one), word.encode()) for one in lines))
    def answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass
ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    program = tmp_path_factory.mktemp("image") / "container.py"
    program.write_text(CONTAINER)
    with platform(images={"lengths": [sys.executable, "-S", str(program), "{port}"]}) as one:
        yield one


@pytest.fixture
def account(made: Platform, tmp_path: Path) -> Account:
    return with_model(made, tmp_path)


def with_model(made: Platform, folder: Path) -> Account:
    account = Account(made, folder)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        member = tarfile.TarInfo("word")
        member.size = 1
        tar.addfile(member, io.BytesIO(b"!"))
    account.s3.put_object(Bucket=account.bucket, Key="model.tar.gz", Body=buffer.getvalue())
    account.sagemaker.create_model(
        ModelName=account.name("model"),
        ExecutionRoleArn=ROLE,
        PrimaryContainer={
            "Image": "lengths",
            "ModelDataUrl": f"{account.uri}/model.tar.gz",
            "Environment": {"MINE": "m"},
        },
    )
    return account


def transform(
    account: Account, *, source: dict[str, Any] | None = None, target: dict[str, Any] | None = None, **asked: Any
) -> str:
    data = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"{account.uri}/in"}}
    request = {
        "TransformJobName": account.name(),
        "ModelName": account.name("model"),
        "TransformInput": {"DataSource": data, "ContentType": "text/csv", **(source or {})},
        "TransformOutput": {"S3OutputPath": f"{account.uri}/out", "Accept": "text/csv", **(target or {})},
        "TransformResources": {"InstanceType": "ml.m5.large", "InstanceCount": 1},
        **asked,
    }
    account.sagemaker.create_transform_job(**request)
    return account.name()


def test_each_object_is_answered_beside_its_key(account: Account) -> None:
    account.put_at("in/a.csv", "1\n22\n")
    account.put_at("in/deep/b.csv", "333\n")
    name = transform(account, Environment={"MINE": "j"})
    told = account.transformed(name)
    said = account.said("Transform", name)
    assert told["TransformJobStatus"] == "Completed", (told.get("FailureReason"), said)
    assert account.objects("out/") == {"a.csv.out": b"1!\n2!", "deep/b.csv.out": b"3!"}
    assert said == ["text/csv text/csv 5 j", "text/csv text/csv 4 j"]
    events = account.events(told["TransformJobArn"])
    assert [one["TransformJobStatus"] for one in events] == ["InProgress", "Completed"]
    assert events[-1]["CreationTime"].endswith("Z")
    (line,) = (line for line in account.platform.bill().lines if line.what == name)
    assert (line.kind, line.instance_type, line.n_running) == ("transform", "ml.m5.large", 0)
    listed = account.sagemaker.list_transform_jobs(NameContains=name)["TransformJobSummaries"]
    assert [one["TransformJobStatus"] for one in listed] == ["Completed"]


@pytest.mark.parametrize(
    ("asked", "n_bytes"),
    [({"BatchStrategy": "SingleRecord"}, ["1", "2", "3"]), ({"BatchStrategy": "MultiRecord"}, ["9"])],
)
def test_lines_are_split_and_assembled(account: Account, asked: dict[str, Any], n_bytes: list[str]) -> None:
    account.s3.put_object(Bucket=account.bucket, Key="in/a", Body=gzip.compress(b"1\n22\n333\n"))
    name = transform(
        account, source={"SplitType": "Line", "CompressionType": "Gzip"}, target={"AssembleWith": "Line"}, **asked
    )
    assert account.transformed(name)["TransformJobStatus"] == "Completed"
    assert account.objects("out/") == {"a.out": b"1!\n2!\n3!\n"}
    assert [line.split()[2] for line in account.said("Transform", name)] == n_bytes


def test_one_object_that_is_refused_fails_the_job_and_the_others_are_stored(account: Account) -> None:
    account.put_at("in/a", "1\n")
    account.put_at("in/b", "bad\n")
    told = account.transformed(transform(account, MaxConcurrentTransforms=2))
    assert (told["TransformJobStatus"], told["FailureReason"]) == (
        "Failed",
        "ClientError: See job logs for more information",
    )
    assert account.objects("out/") == {"a.out": b"1!"}
    assert any(
        "Bad HTTP status received from algorithm: 400" in one for one in account.said("Transform", account.name())
    )


def test_a_job_that_is_stopped_stores_nothing(account: Account) -> None:
    account.put_at("in/a", "1\n")
    account.put_at("in/b", "slow\n")
    name = transform(account)
    until(lambda: len(account.said("Transform", name)) == 2)
    account.sagemaker.stop_transform_job(TransformJobName=name)
    assert account.transformed(name)["TransformJobStatus"] == "Stopped"
    assert account.objects("out/") == {}


def test_the_platform_ends_without_the_objects_that_are_still_to_be_answered(tmp_path: Path) -> None:
    program = tmp_path / "container.py"
    program.write_text(CONTAINER)
    played = platform(images={"lengths": [sys.executable, "-S", str(program), "{port}"]})
    with played:
        account = with_model(played, tmp_path)
        for at in range(5):
            account.put_at(f"in/{at}", "slow\n")
        name = transform(account, ModelClientConfig={"InvocationsTimeoutInSeconds": 20, "InvocationsMaxRetries": 0})
        until(lambda: account.said("Transform", name))
        began_s = time.monotonic()
    assert time.monotonic() - began_s < 5 * 20 / 2


@pytest.mark.parametrize("packed", [b"nonsense", "cut", "damaged"])
def test_model_data_that_are_no_archive_fail_the_job_in_words(account: Account, packed: bytes | str) -> None:
    whole = account.s3.get_object(Bucket=account.bucket, Key="model.tar.gz")["Body"].read()
    data = {"cut": whole[:-20], "damaged": whole[:-8] + bytes(8)}.get(str(packed), b"nonsense")
    account.s3.put_object(Bucket=account.bucket, Key="model.tar.gz", Body=data)
    account.put_at("in/a", "1\n")
    told = account.transformed(transform(account))
    assert told["FailureReason"].startswith(f"ClientError: Failed to extract model data archive from {account.uri}")


def test_an_object_that_is_damaged_gzip_is_the_clients_fault(account: Account) -> None:
    whole = gzip.compress(b"1\n22\n333\n" * 50)
    account.s3.put_object(Bucket=account.bucket, Key="in/a", Body=whole[:12] + b"\xff" * 4 + whole[16:])
    name = transform(account, source={"CompressionType": "Gzip"})
    assert account.transformed(name)["FailureReason"] == "ClientError: See job logs for more information"
    assert any("it is no gzip file" in line for line in account.said("Transform", name))


def test_a_multi_model_container_is_refused(account: Account) -> None:
    account.sagemaker.create_model(
        ModelName=account.name("many"),
        ExecutionRoleArn=ROLE,
        PrimaryContainer={"Image": "lengths", "ModelDataUrl": f"{account.uri}/models/", "Mode": "MultiModel"},
    )
    for model, words in ((account.name("many"), "MultiModel mode"), ("none", "Could not find model")):
        with pytest.raises(ClientError) as caught:
            transform(account, ModelName=model)
        assert caught.value.response["Error"]["Code"] == "ValidationException"
        assert words in caught.value.response["Error"]["Message"]
