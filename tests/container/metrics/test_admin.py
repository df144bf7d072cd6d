"""The admin port tells the truth, to few, for a short while, and to this machine only."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from container.metrics import admin
from container.metrics.admin import AdminServer
from container.metrics.history import History, Point
from container.metrics.prometheus import PrometheusExporter
from container.metrics.serving_port import ServingPort
from handler.telemetry.recorder import LiveRecorder


@pytest.fixture
def server(process: Any, recorder: LiveRecorder, clock: Any) -> Iterator[AdminServer]:
    server = AdminServer(
        source=process,
        recorder=recorder,
        history=History(),
        prometheus=PrometheusExporter(recorder, {"endpoint": "churn"}),
        clock_s=clock,
    )
    server.start()
    yield server
    server.close()


def get(server: AdminServer, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection(*server.address, timeout=10)
    try:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def get_json(server: AdminServer, path: str) -> Any:
    status, headers, body = get(server, path)
    assert (status, headers["content-type"]) == (200, "application/json")
    return json.loads(body)


def test_health_and_readiness_follow_the_process(server: AdminServer, process: Any) -> None:
    assert get(server, "/healthz")[0] == get(server, "/readyz")[0] == 200
    process.is_ready, process.reasons = False, ("draining",)
    assert get(server, "/healthz")[0] == 200
    status, _, body = get(server, "/readyz")
    assert (status, json.loads(body)) == (503, {"ok": False, "reasons": ["draining"]})
    process.is_alive = False
    assert get(server, "/healthz")[0] == 503


def test_metrics_are_prometheus_text(server: AdminServer, recorder: LiveRecorder) -> None:
    recorder.invocation("a", True, 10, 5, 200)
    status, headers, body = get(server, "/metrics")
    assert status == 200
    assert headers["content-type"].startswith("text/plain")
    assert b'mme_invocations_total{endpoint="churn"} 1.0' in body


def test_twenty_thousand_models_come_in_pages(server: AdminServer, process: Any) -> None:
    for i in range(20_000):
        process.hold(f"eu/{i:05d}", n_bytes=i)
    first = get_json(server, "/models")
    assert (first["total"], first["matching"], len(first["models"])) == (20_000, 20_000, 100)
    assert first["models"][0] == {
        "name": "eu/00000",
        "version": "etag",
        "n_bytes": 0,
        "age_s": 2.0,
        "idle_s": 1.0,
        "hits": 1,
        "borrowers": 0,
        "is_pinned": False,
        "trouble": "",
    }
    second = get_json(server, f"/models?offset={first['next_offset']}")
    assert second["models"][0]["name"] == "eu/00100"
    biggest = get_json(server, "/models?sort=bytes&limit=2&contains=eu/0")
    assert [model["name"] for model in biggest["models"]] == ["eu/09999", "eu/09998"]
    assert biggest["matching"] == 10_000
    assert get_json(server, "/models?offset=19950")["next_offset"] is None


@pytest.mark.parametrize("query", ["limit=1001", "limit=-1", "limit=x", "offset=1e9", "sort=colour", "limit=²"])
def test_a_question_that_makes_no_sense_is_refused_with_a_reason(server: AdminServer, query: str) -> None:
    from urllib.parse import quote

    status, _, body = get(server, "/models?" + quote(query, safe="=&"))
    assert status == 400
    assert json.loads(body)["message"]


def test_names_no_utf8_can_hold_still_make_an_answer(server: AdminServer, process: Any) -> None:
    process.hold("eu/\udc80\u2028</script>")
    (model,) = get_json(server, "/models")["models"]
    assert model["name"] == "eu/\udc80\u2028</script>"


@pytest.mark.parametrize("path", ["/", "/status.json", "/status.js", "/status.css", "/models", "/nowhere"])
def test_every_answer_forbids_foreign_scripts_framing_and_caching(server: AdminServer, path: str) -> None:
    _, headers, _ = get(server, path)
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"


def test_the_page_needs_nothing_from_elsewhere(server: AdminServer) -> None:
    status, headers, page = get(server, "/")
    assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert b"http://" not in page
    assert b"https://" not in page
    assert b"<style" not in page
    assert b" style=" not in page
    assert b" onclick" not in page
    for asset in (b"/status.js", b"/status.css", b"/icon.svg"):
        assert asset in page
        assert get(server, asset.decode())[0] == 200


def test_head_has_the_headers_and_no_body(server: AdminServer) -> None:
    status, headers, body = get(server, "/healthz", method="HEAD")
    assert (status, body) == (200, b"")
    assert int(headers["content-length"]) > 0


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_nothing_can_be_changed_through_this_port(server: AdminServer, method: str) -> None:
    assert get(server, "/models", method=method)[0] == 501


def test_an_unknown_path_names_the_known_ones(server: AdminServer) -> None:
    status, _, body = get(server, "/../etc/passwd")
    assert status == 404
    assert b"/status.json" in body


@pytest.mark.parametrize(
    ("host", "status"),
    [("localhost:8081", 200), ("127.0.0.1", 200), ("[::1]:80", 200), ("evil.example", 421), ("[", 400)],
)
def test_a_name_pointed_at_this_machine_from_outside_is_refused(server: AdminServer, host: str, status: int) -> None:
    assert get(server, "/status.json", Host=host)[0] == status


def test_a_failing_process_is_an_error_and_not_a_hang(server: AdminServer, process: Any) -> None:
    process.models = None
    status, _, body = get(server, "/models")
    assert (status, json.loads(body)) == (500, {"message": "no answer could be made; see the log"})
    assert get(server, "/healthz")[0] == 200


def until_open(server: AdminServer, n_connections: int) -> None:
    deadline = time.monotonic() + 5
    while len(server._server._open) != n_connections and time.monotonic() < deadline:
        time.sleep(0.005)
    assert len(server._server._open) == n_connections


def test_connections_are_bounded_and_dawdlers_are_cut(server: AdminServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin, "CONNECTION_S", 0.3)
    dawdlers = [socket.create_connection(server.address, timeout=10) for _ in range(admin.MAX_CONNECTIONS)]
    for dawdler in dawdlers:
        assert dawdler.recv(1) == b""  # cut although none of them has said a word
        dawdler.close()
    until_open(server, 0)
    assert get(server, "/healthz")[0] == 200


def test_whoever_is_silent_longest_is_cut_for_the_next_who_comes(
    server: AdminServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admin._Handler, "timeout", 60.0)
    silent = [socket.create_connection(server.address, timeout=10) for _ in range(admin.MAX_CONNECTIONS)]
    silent[1].sendall(b"GET /healthz HTTP/1.1\r\nHost: local")  # half a request is none
    until_open(server, admin.MAX_CONNECTIONS)
    for n in range(3):
        assert get(server, "/healthz")[0] == 200
        assert silent[n].recv(1) == b""
        until_open(server, admin.MAX_CONNECTIONS - 1)
        silent.append(socket.create_connection(server.address, timeout=10))
        until_open(server, admin.MAX_CONNECTIONS)
    silent[-1].sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
    assert silent[-1].recv(12) == b"HTTP/1.0 200"
    for one in silent:
        one.close()


def test_probes_are_answered_while_every_place_for_others_is_taken(server: AdminServer, process: Any) -> None:
    held, models = threading.Event(), process.models

    def slow_models() -> Any:
        held.wait(10)
        return models()

    process.models = slow_models
    waiting = [socket.create_connection(server.address, timeout=10) for _ in range(admin.MAX_ANSWERS)]
    for one in waiting:
        one.sendall(b"GET /models HTTP/1.0\r\n\r\n")
    deadline = time.monotonic() + 5
    while server._server.places._value and time.monotonic() < deadline:
        time.sleep(0.005)
    assert get(server, "/models")[0] == 503
    assert get(server, "/healthz")[0] == get(server, "/readyz")[0] == 200
    held.set()
    for one in waiting:
        assert one.recv(12) == b"HTTP/1.0 200"
        one.close()


def test_a_serving_port_that_falls_silent_is_told_once_it_has_answered(process: Any, recorder: LiveRecorder) -> None:
    trouble, now_s = ["not open yet"], [0.0]
    server = AdminServer(
        source=process,
        recorder=recorder,
        history=History(),
        prometheus=PrometheusExporter(recorder),
        serving_port=ServingPort(lambda: trouble[0], clock=lambda: now_s[0]),
    )
    server.start()
    try:
        assert (get(server, "/healthz")[0], get(server, "/readyz")[0]) == (200, 503)  # it is still starting
        trouble[0], now_s[0] = "", 10.0
        assert (get(server, "/healthz")[0], get(server, "/readyz")[0]) == (200, 200)
        trouble[0] = "no answer"
        assert get(server, "/healthz")[0] == 200  # as it was a moment ago
        now_s[0] = 20.0
        status, _, body = get(server, "/healthz")
        assert (status, json.loads(body)["reasons"]) == (503, ["no answer"])
        assert get(server, "/readyz")[0] == 503
        assert get(server, "/ping")[0] == 200  # Java's own question: to ask Java for it would go round in a circle
    finally:
        server.close()


def test_closing_cuts_what_is_open_ends_every_thread_and_frees_the_port(process: Any, recorder: LiveRecorder) -> None:
    before = threading.active_count()
    server = AdminServer(source=process, recorder=recorder, history=History(), prometheus=PrometheusExporter(recorder))
    server.start()
    host, port = server.address
    deadline = time.monotonic() + 5
    with socket.create_connection((host, port), timeout=10) as idle:
        while not server._server._open and time.monotonic() < deadline:
            time.sleep(0.005)
        started = time.monotonic()
        server.close()
        assert time.monotonic() - started < 20
        assert idle.recv(1) == b""
    again = AdminServer(
        source=process, recorder=recorder, history=History(), prometheus=PrometheusExporter(recorder), port=port
    )
    again.close()
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.005)
    assert threading.active_count() <= before


def test_status_is_served_with_its_history(server: AdminServer, recorder: LiveRecorder, clock: Any) -> None:
    assert get_json(server, "/status.json")["verdict"]["headline"] == "Idle"
    assert Point.between(recorder.collect(), recorder.collect()).requests == 0


def test_the_port_can_be_bound_on_ipv6(process: Any, recorder: LiveRecorder) -> None:
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            pytest.skip("no IPv6 loopback here")
    server = AdminServer(
        source=process, recorder=recorder, history=History(), prometheus=PrometheusExporter(recorder), host="::1"
    )
    server.start()
    try:
        assert get(server, "/healthz")[0] == 200
    finally:
        server.close()
