"""Spans of calls, as a collector gets them."""

from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from container.traces.spans import MAX_QUEUED, Traces, TracesUnusable
from handler.messages import Answer, Exchange, Request
from handler.telemetry.recorder import SPANS_DROPPED, LiveRecorder
from tests.rig.endpoint import free_port

trace_service = pytest.importorskip("opentelemetry.proto.collector.trace.v1.trace_service_pb2")

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PATIENCE_S = 30.0


class Collector:
    """Takes OTLP over HTTP, and keeps the spans."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.services: set[str] = set()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self._body()
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                request = trace_service.ExportTraceServiceRequest.FromString(body)
                for one in request.resource_spans:
                    collector.services |= {
                        a.value.string_value for a in one.resource.attributes if a.key == "service.name"
                    }
                    for scope in one.scope_spans:
                        collector.spans += scope.spans
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def _body(self) -> bytes:
                if "Content-Length" in self.headers:
                    return self.rfile.read(int(self.headers["Content-Length"]))
                pieces = []  # RFC 9112, 7.1: as Envoy sends
                while size := int(self.rfile.readline(), 16):
                    pieces.append(self.rfile.read(size))
                    self.rfile.readline()
                return b"".join(pieces)

            def log_message(self, format: str, *args: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def collector() -> Iterator[Collector]:
    one = Collector()
    yield one
    one.close()


def call(status: int = 200, **headers: str) -> Exchange:
    now = time.perf_counter_ns()
    marks = (now, now + 1_000, now + 5_000, now + 30_000, now + 32_000)
    answer = Answer(status, "text/csv", b"0.5")
    return Exchange(Request(headers, b"1,2", "id"), answer, "us/a.tar.gz", "etag", True, 0, marks)


def names(collector: Collector) -> list[str]:
    return sorted(span.name for span in collector.spans)


def test_a_call_is_a_span_below_the_callers_with_its_stages_below_it(collector: Collector) -> None:
    traces = Traces(collector.url, 0.0, LiveRecorder(), service="acme", instance="one")
    traces.take(*call(traceparent=f"00-{TRACE}-{PARENT}-01"))
    traces.close(PATIENCE_S)
    assert names(collector) == ["decode", "encode", "invoke", "predict", "wait"]
    invoke = next(span for span in collector.spans if span.name == "invoke")
    assert (invoke.trace_id.hex(), invoke.parent_span_id.hex()) == (TRACE, PARENT)
    assert invoke.end_time_unix_nano - invoke.start_time_unix_nano == 32_000
    assert abs(invoke.start_time_unix_nano - time.time_ns()) < 60e9
    for span in collector.spans:
        assert span.trace_id.hex() == TRACE
        assert span is invoke or span.parent_span_id == invoke.span_id
    predict = next(span for span in collector.spans if span.name == "predict")
    assert predict.end_time_unix_nano - predict.start_time_unix_nano == 25_000
    attributes = {one.key: one.value for one in invoke.attributes}
    assert attributes["mme.target"].string_value == "us/a.tar.gz"
    assert attributes["http.response.status_code"].int_value == 200
    assert collector.services == {"acme"}


@pytest.mark.parametrize(
    ("share", "headers", "is_sent"),
    [
        (1.0, {}, True),
        (0.0, {}, False),
        (1.0, {"traceparent": f"00-{TRACE}-{PARENT}-00"}, False),  # the caller's trace is not sampled
        (1.0, {"traceparent": "nonsense"}, True),
    ],
)
def test_who_says_whether_a_call_is_traced(
    collector: Collector, share: float, headers: dict[str, str], is_sent: bool
) -> None:
    traces = Traces(collector.url, share, LiveRecorder(), service="acme", instance="one")
    traces.take(*call(**headers))
    traces.take_failed(call(500, **headers))
    traces.close(PATIENCE_S)
    failed = [span for span in collector.spans if span.status.code == 2]
    assert (names(collector).count("invoke"), len(failed)) == ((2, 1) if is_sent else (0, 0))


def test_a_collector_that_is_away_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = LiveRecorder()
    traces = Traces(f"http://127.0.0.1:{free_port()}", 1.0, recorder, service="acme", instance="one")
    traces._stop.set()  # nobody empties the queue
    traces._thread.join(PATIENCE_S)
    for _ in range(MAX_QUEUED + 5):
        traces.take(*call())
    assert recorder.collect().total(SPANS_DROPPED) == 5


def test_a_large_body_is_told_by_its_length_and_not_kept() -> None:
    traces = Traces(f"http://127.0.0.1:{free_port()}", 1.0, LiveRecorder(), service="acme", instance="one")
    traces._stop.set()  # nobody empties the queue
    traces._thread.join(PATIENCE_S)
    one = call()
    traces.take(*one._replace(request=one.request._replace(body=bytes(5000)), answer=Answer(200, "text/csv", b"1")))
    taken = traces._queue.pop()
    assert (taken.n_asked, taken.n_answered) == (5000, 1)
    assert (taken.call.request.body, taken.call.answer.body) == (b"", b"")
    assert taken.call.request.headers == one.request.headers


@pytest.mark.parametrize("url", ["collector:4317", "grpc://collector", "http://"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(TracesUnusable):
        Traces(url, 1.0, LiveRecorder(), service="acme", instance="one")
