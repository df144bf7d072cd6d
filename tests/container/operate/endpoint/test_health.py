"""`mme health` against HTTP servers that say what MMS and the admin port say."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from container.operate.exits import Exit
from container.operate.main import main
from tests.rig.endpoint import free_port


@contextmanager
def answering(status: int, body: bytes) -> Iterator[int]:
    """A server that gives this one answer; its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", free_port()), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MME_PORT", "SAGEMAKER_BIND_TO_PORT", "MME_HOST", "MME_ADMIN_PORT", "MME_ADMIN_HOST"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("status", ["Healthy", "Partial Healthy"])
def test_an_endpoint_with_workers_is_well(status: str) -> None:
    with answering(200, b'{"status": "%s"}' % status.encode()) as port:
        assert main(["health", "--port", str(port)]) == Exit.OK


def test_mmss_own_ping_of_200_that_says_unhealthy_is_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    body = b'{"status": "Unhealthy"}'
    with answering(200, body) as port:
        assert main(["health", "--port", str(port)]) == Exit.FAILED
    assert body.decode() in capsys.readouterr().out


@pytest.mark.parametrize("body", [b"", b"ok", b"[]", b'{"ready": true}'])
def test_another_ping_is_taken_at_its_status(body: bytes) -> None:
    with answering(200, body) as port:
        assert main(["health", "--port", str(port)]) == Exit.OK
    with answering(503, body) as port:
        assert main(["health", "--port", str(port)]) == Exit.FAILED


def test_the_admin_port_is_asked_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        answering(503, b"the runtime is gone") as sick,
        answering(200, b"alive") as well,
        answering(503, b"no") as busy,
    ):
        monkeypatch.setenv("MME_PORT", str(busy))
        assert main(["health", "--admin-port", str(sick)]) == Exit.FAILED
        monkeypatch.setenv("MME_ADMIN_PORT", str(well))
        assert main(["health"]) == Exit.OK  # the serving port answers; what it says is the admin port's to judge


def test_a_serving_port_that_does_not_answer_is_a_failure_whatever_the_admin_port_says(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with answering(200, b"alive") as well, socket.socket() as deaf:
        port = free_port()
        deaf.bind(("127.0.0.1", port))
        assert main(["health", "--admin-port", str(well), "--port", str(port)]) == Exit.FAILED
    assert f"127.0.0.1:{port}" in capsys.readouterr().out


def test_nobody_there_is_a_failure_with_the_address(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: nobody answers, and nobody else can
        port = taken.getsockname()[1]
        assert main(["health", "--admin-port", str(port)]) == Exit.FAILED
    assert f"127.0.0.1:{port}" in capsys.readouterr().out


def test_a_port_that_is_none_is_the_callers_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["health", "--port", "eighty"]) == Exit.USAGE
    assert "--port" in capsys.readouterr().err
