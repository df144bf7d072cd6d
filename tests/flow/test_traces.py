"""Spans of a running endpoint's calls, warm ones among them, and as a part of traces that another program has begun."""

from __future__ import annotations

import http.client
import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from container.operate.fleet import envoy
from container.operate.fleet.balancer import find
from container.operate.fleet.replicas import Address, Fleet
from tests.rig.endpoint import Endpoint, free_port, until
from tests.rig.fleet import has

pytest.importorskip("opentelemetry.sdk")

from tests.container.traces.test_spans import PARENT, TRACE, Collector

PATIENCE_S = 60.0
ROW = "0.1,0.2,0.3,0.4,0.5,0.6"


def test_a_warm_call_with_a_traceparent_is_a_span_of_its_trace(segments: Path, scratch: Path) -> None:
    collector = Collector()
    flags = ["--otlp", collector.url, "--otlp-share", "0", "--workers", "4", "--endpoint-name", "acme"]
    try:
        with Endpoint(segments, scratch, *flags) as endpoint:
            for _ in range(3):
                assert endpoint.post("us/1.tar.gz", ROW).status == 200
                assert endpoint.post("us/1.tar.gz", ROW, traceparent=f"00-{TRACE}-{PARENT}-01").status == 200
            assert endpoint.post("us/none.tar.gz", ROW, traceparent=f"00-{TRACE}-{PARENT}-01").status == 400
        invokes = [span for span in collector.spans if span.name == "invoke"]
        assert len(invokes) == 4
        assert {(span.trace_id.hex(), span.parent_span_id.hex()) for span in invokes} == {(TRACE, PARENT)}
        assert collector.services == {"acme"}
    finally:
        collector.close()


def ask(port: int) -> int:
    """The status of a call; 0 while nobody listens."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    headers = {"Content-Type": "text/csv", "X-Amzn-SageMaker-Target-Model": "us/1.tar.gz"}
    try:
        connection.request("POST", "/invocations", ROW, headers)
        return connection.getresponse().status
    except ConnectionError:
        return 0
    finally:
        connection.close()


@contextmanager
def tracing_envoy(endpoint: Endpoint, collector: Collector, folder: Path) -> Iterator[int]:
    """Envoy before an endpoint, with its own tracer on; the port it listens on."""
    fleet = Fleet(Address("127.0.0.1", free_port()), (Address("127.0.0.1", endpoint.port),))
    document = envoy.document(fleet)
    (listener,) = document["static_resources"]["listeners"]
    host, port = collector.server.server_address[:2]
    (place,) = envoy.document(Fleet(fleet.listen, (Address(str(host), port),)))["static_resources"]["clusters"]
    document["static_resources"]["clusters"].append(
        {
            "name": "collector",
            "type": "STATIC",
            "load_assignment": {**place["load_assignment"], "cluster_name": "collector"},
        }
    )
    service = {"http_uri": {"uri": f"{collector.url}/v1/traces", "cluster": "collector", "timeout": "5s"}}
    listener["filter_chains"][0]["filters"][0]["typed_config"]["tracing"] = {
        "provider": {
            "name": "envoy.tracers.opentelemetry",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.config.trace.v3.OpenTelemetryConfig",
                "http_service": service,
                "service_name": "envoy",
            },
        }
    }
    (folder / "envoy.json").write_text(json.dumps(document))
    command = [find("envoy"), "-c", str(folder / "envoy.json"), "--use-dynamic-base-id", "--concurrency", "1"]
    with (folder / "log").open("w") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            yield fleet.listen.port
        finally:
            process.terminate()


@pytest.mark.skipif(not has("envoy"), reason="Envoy is not installed")
def test_a_trace_that_envoy_begins_goes_on_in_the_endpoint(segments: Path, scratch: Path, tmp_path: Path) -> None:
    collector = Collector()
    flags = ["--otlp", collector.url, "--otlp-share", "0", "--workers", "4", "--endpoint-name", "acme"]
    try:
        with Endpoint(segments, scratch, *flags) as endpoint, tracing_envoy(endpoint, collector, tmp_path) as port:
            until(lambda: ask(port) == 200, PATIENCE_S)
            assert [ask(port) for _ in range(5)] == [200] * 5  # Envoy sends five spans at a time
            until(lambda: collector.services == {"envoy", "acme"}, PATIENCE_S)
        ours = [span for span in collector.spans if span.name == "invoke"]
        theirs = {span.span_id: span.trace_id for span in collector.spans}
        assert [theirs[span.parent_span_id] for span in ours if span.parent_span_id in theirs] != []
        assert all(theirs.get(span.parent_span_id, span.trace_id) == span.trace_id for span in ours)
    finally:
        collector.close()
