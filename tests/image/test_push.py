"""`./build.sh push`, to a registry on this machine, and what it asks of ECR, to moto's."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import threading
import urllib.request
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from tests.image.box import buildah, missing

ROOT = Path(__file__).resolve().parents[2]


class Registry(ThreadingHTTPServer):
    """As much of the distribution API as a push takes. Source: OCI Distribution Specification 1.1, "Push"."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, bytes] = {}
        self.uploads: dict[str, bytes] = {}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Registry

    def _answer(self, status: int, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def do_GET(self) -> None:
        self._answer(200 if self.path == "/v2/" else 404)

    def do_HEAD(self) -> None:
        self._answer(200 if self.path.rpartition("/")[2] in self.server.blobs else 404)

    def do_POST(self) -> None:
        self._body()
        upload = uuid.uuid4().hex
        self.server.uploads[upload] = b""
        self._answer(202, Location=f"/v2/upload/{upload}", Docker_Upload_UUID=upload, Range="0-0")

    def do_PATCH(self) -> None:
        upload = self.path.rpartition("/")[2]
        self.server.uploads[upload] += self._body()
        self._answer(202, Location=self.path, Range=f"0-{len(self.server.uploads[upload]) - 1}")

    def do_PUT(self) -> None:
        if "/manifests/" in self.path:
            body = self._body()
            self.server.manifests[self.path.partition("/v2/")[2]] = body
            self._answer(201, Docker_Content_Digest=f"sha256:{hashlib.sha256(body).hexdigest()}")
            return
        path, _, query = self.path.partition("?")
        digest = re.search(r"sha256(?::|%3A)([0-9a-f]{64})", query)
        assert digest is not None
        self.server.blobs[f"sha256:{digest[1]}"] = self.server.uploads.pop(path.rpartition("/")[2]) + self._body()
        self._answer(201)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def registry() -> Iterator[Registry]:
    server = Registry()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def small_image(tmp_path: Path) -> Iterator[str]:
    """An image of one file: what is pushed does not matter here."""
    if why := missing():
        pytest.skip(why)
    (tmp_path / "file").write_text("content")
    tag = f"localhost/small-{uuid.uuid4().hex[:8]}:1.2-abc"
    container = buildah("from", "scratch")
    buildah("copy", container, str(tmp_path / "file"), "/file")
    buildah("commit", "--format", "docker", "--rm", container, tag)
    yield tag
    buildah("rmi", tag)


@pytest.mark.image
def test_push_sends_the_image_and_prints_the_digest_to_deploy(registry: Registry, small_image: str) -> None:
    repository = f"127.0.0.1:{registry.server_address[1]}/team/models"
    done = subprocess.run(
        ["./build.sh", "push", repository],
        cwd=ROOT,
        env={**os.environ, "BUILDER": "buildah", "IMAGE_TAG": small_image},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    manifest = registry.manifests["team/models/manifests/1.2-abc"]
    digest = f"sha256:{hashlib.sha256(manifest).hexdigest()}"
    assert f"pushed    {repository}:1.2-abc\ndigest    {digest}\n" in done.stdout
    assert f"{repository}@{digest}" in done.stdout
    document = json.loads(manifest)
    for one in [document["config"], *document["layers"]]:
        assert hashlib.sha256(registry.blobs[one["digest"]]).hexdigest() == one["digest"].removeprefix("sha256:")


# -- ECR ---------------------------------------------------------------------------------------------------------------

REGISTRY = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    urllib.request.urlopen(
        urllib.request.Request(f"{url}/moto-api/reset", method="POST")
    ).close()  # its state outlives it
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    yield boto3.client("ecr", region_name="eu-west-1")
    server.stop()


def ecr(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "container.image.ecr", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_repository_is_made_once_scans_and_never_moves_a_tag(aws: Any) -> None:
    first = ecr(REGISTRY, "team/models")
    again = ecr(REGISTRY, "team/models")
    assert (first.returncode, again.returncode) == (0, 0), first.stderr + again.stderr
    assert "made the repository team/models" in first.stderr
    assert again.stderr == ""
    (repository,) = aws.describe_repositories()["repositories"]
    assert repository["imageTagMutability"] == "IMMUTABLE"
    assert repository["imageScanningConfiguration"]["scanOnPush"]


def test_the_password_is_all_of_its_output_and_no_repository_is_made_unasked(aws: Any) -> None:
    done = ecr(REGISTRY)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    assert "AWS:" not in done.stdout
    assert aws.describe_repositories()["repositories"] == []


def test_another_registry_is_refused() -> None:
    done = ecr("registry.example.com")
    assert done.returncode == 2
    assert "registry.example.com" in done.stderr
