"""Spans of a running endpoint's calls, warm ones among them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.rig.endpoint import Endpoint

pytest.importorskip("opentelemetry.sdk")

from tests.container.traces.test_spans import PARENT, TRACE, Collector

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
