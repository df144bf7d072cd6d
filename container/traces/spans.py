"""A span for each call and one below it for each of its stages, sent to a collector as OTLP over HTTP.

    a call answered -> take (an append) -> [queue] -> spans -> OpenTelemetry's SDK, which batches and sends

Rule: a call never waits for its span: the caller's traceparent is read, and the SDK met, on a thread of ours. What is more
than a queue holds is dropped and counted, and a body is not kept for its length.

Source: W3C Trace Context for traceparent; OpenTelemetry's semantic conventions for what it has a name for.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from handler.errors import StartRefused
from handler.messages import Exchange, Parts
from handler.telemetry.recorder import SPANS_DROPPED, Recorder

log = logging.getLogger("mme.traces")

MAX_QUEUED = 10_000
SMALL_BYTES = 1024  # of a call's bodies: to keep these for a moment takes less than to leave them out
LOOK_S = 0.2
TIMEOUT_S = 5  # of one delivery
STAGES = ("wait", "decode", "predict", "encode")
_CACHE = {True: "hit", False: "miss", None: "none"}


class _Taken(NamedTuple):
    """A call, perhaps without its bodies, and how many bytes they had."""

    call: Exchange
    n_asked: int
    n_answered: int


class TracesUnusable(StartRefused):
    """There is no way to send spans as it was asked for."""


class Traces:
    """Owns its thread and the SDK's. `close` sends what is left.

    url      of the collector, such as http://collector:4318
    share    of the calls that come without a traceparent; with one it says by itself whether it is sampled
    service  what the endpoint is called in traces
    raises   TracesUnusable
    """

    def __init__(self, url: str, share: float, recorder: Recorder, *, service: str, instance: str) -> None:
        self._provider = _provider(_traces_url(url), share, service, instance)
        self._tracer = self._provider.get_tracer("multi-model-endpoint")
        self._recorder = recorder
        self._queue: deque[_Taken] = deque()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._send_all, name="traces", daemon=True)
        self._thread.start()

    def take(self, *parts: *Parts) -> None:
        """Hand a call over. Never waits, never raises."""
        self.take_failed(Exchange(*parts))

    def take_failed(self, call: Exchange) -> None:
        """The same of a call that was answered with an error."""
        if len(self._queue) >= MAX_QUEUED:
            self._recorder.count(SPANS_DROPPED)
            return
        n_asked, n_answered = len(call.request.body), len(call.answer.body)
        if n_asked + n_answered > SMALL_BYTES:
            call = call._replace(request=call.request._replace(body=b""), answer=call.answer._replace(body=b""))
        self._queue.append(_Taken(call, n_asked, n_answered))

    def close(self, deadline_s: float = 0.5) -> None:
        """Send what is there, for at most about so long."""
        self._stop.set()
        self._thread.join(deadline_s)

    def _send_all(self) -> None:
        while not self._stop.wait(LOOK_S):
            self._look()
        self._look()
        self._provider.shutdown()

    def _look(self) -> None:
        epoch_ns = time.time_ns() - time.perf_counter_ns()
        for _ in range(len(self._queue)):
            try:
                self._span(self._queue.popleft(), epoch_ns)
            except Exception:  # the SDK's; the next call may fare better
                log.exception("a call's span is lost")
                self._recorder.count(SPANS_DROPPED)

    def _span(self, taken: _Taken, epoch_ns: int) -> None:
        from opentelemetry import trace
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        call = taken.call
        started, held, decoded, predicted, ended = (epoch_ns + mark for mark in call.marks)
        parent = TraceContextTextMapPropagator().extract(call.request.headers)
        span = self._tracer.start_span(
            "invoke", parent, trace.SpanKind.SERVER, start_time=started, attributes=_attributes(*taken)
        )
        if span.is_recording():
            below = trace.set_span_in_context(span)
            ends = held, decoded, predicted, ended
            for stage, begin, end in zip(STAGES, (started, *ends), ends, strict=False):
                if end > begin and call.is_hit is not None:
                    self._tracer.start_span(stage, below, start_time=begin).end(end)
            if call.answer.status >= 500:
                span.set_status(trace.StatusCode.ERROR)
        span.end(ended)


def _attributes(call: Exchange, n_asked: int, n_answered: int) -> dict[str, str | int]:
    return {
        "http.request.method": "POST",
        "http.response.status_code": call.answer.status,
        "http.request.body.size": n_asked,
        "http.response.body.size": n_answered,
        "mme.target": (call.target or "").encode("utf-8", "backslashreplace").decode(),
        "mme.version": call.version,
        "mme.cache": _CACHE[call.is_hit],
        "mme.request_id": call.request.request_id,
    }


def _traces_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise TracesUnusable(f"{url!r} is no address of a collector such as http://127.0.0.1:4318")
    return url if parts.path.strip("/") else f"{url.rstrip('/')}/v1/traces"  # OTLP 1.x, "OTLP/HTTP Request"


def _provider(url: str, share: float, service: str, instance: str) -> Any:
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio
    except ImportError as error:
        raise TracesUnusable(f"traces need {error.name}: pip install 'multi-model-endpoint[otlp]'") from error
    provider = TracerProvider(
        sampler=ParentBasedTraceIdRatio(share),
        resource=Resource.create({"service.name": service, "service.instance.id": instance}),
        shutdown_on_exit=False,
    )
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=url, timeout=TIMEOUT_S)))
    return provider
