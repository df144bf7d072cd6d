"""A call that one replica cannot answer is answered by another, by each balancer."""

from __future__ import annotations

import http.client
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from container.operate.fleet.balancer import Balancer, find
from container.operate.fleet.replicas import Address, Fleet
from tests.rig.endpoint import free_port, until
from tests.rig.fleet import has

N_CALLS = 24
PATIENCE_S = 30.0


class Replica:
    """Ready, and answers as it is told: a status, or 0 to hang up without a word."""

    def __init__(self, name: str) -> None:
        self.status = 200
        self.asked: Counter[str] = Counter()
        replica = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._send(200)

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                replica.asked[self.headers["X-Amzn-SageMaker-Target-Model"]] += 1
                if replica.status:
                    self._send(replica.status)
                else:
                    self.close_connection = True

            def _send(self, status: int) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(name)))
                self.end_headers()
                self.wfile.write(name.encode())

            def log_message(self, format: str, *args: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port = int(self.server.server_address[1])
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def replicas() -> Iterator[list[Replica]]:
    made = [Replica("one"), Replica("two")]
    yield made
    for one in made:
        one.close()


def call(port: int, number: int) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    try:
        headers = {"X-Amzn-SageMaker-Target-Model": f"us/{number}.tar.gz"}
        connection.request("POST", "/invocations", "1,2", headers)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


@pytest.mark.parametrize("kind", ["haproxy", "envoy", "nginx"])
@pytest.mark.parametrize("status", [503, 0], ids=["says 503", "hangs up"])
def test_another_replica_answers(tmp_path: Path, replicas: list[Replica], kind: str, status: int) -> None:
    if not has(kind):
        pytest.skip(f"{kind} is not installed")
    port = free_port()
    fleet = Fleet(Address("127.0.0.1", port), tuple(Address("127.0.0.1", one.port) for one in replicas))
    with Balancer(kind, find(kind), fleet, tmp_path) as balancer:
        balancer.wait_ready(PATIENCE_S)
        until(lambda: {call(port, number)[1] for number in range(N_CALLS)} == {"one", "two"}, PATIENCE_S)
        replicas[0].status = status
        assert {call(port, number) for number in range(N_CALLS)} == {(200, "two")}
        replicas[0].status = 200


@pytest.mark.parametrize("kind", ["haproxy", "envoy", "nginx"])
def test_what_a_replica_says_of_a_call_is_not_asked_again_of_another(
    tmp_path: Path, replicas: list[Replica], kind: str
) -> None:
    if not has(kind):
        pytest.skip(f"{kind} is not installed")
    port = free_port()
    fleet = Fleet(Address("127.0.0.1", port), tuple(Address("127.0.0.1", one.port) for one in replicas))
    with Balancer(kind, find(kind), fleet, tmp_path) as balancer:
        balancer.wait_ready(PATIENCE_S)
        for one in replicas:
            one.status = 424
        assert call(port, 1)[0] == 424
        assert sum(sum(one.asked.values()) for one in replicas) == 1
