"""The run with all exporters on, short: nothing is lost at the end, whoever counts."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import telemetry
from benchmarks.rig import segments


def test_every_exporter_has_counted_what_the_client_did_when_the_endpoint_has_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segments, "OUT", tmp_path)
    run = telemetry.run_open(segments.make(4), rates=[30, 0], seconds=5.0, interval_s=1.0)
    client = run["counts"].pop("client")
    assert client["calls"] > client["hits"] > 0
    assert client["refused"] > 0
    assert client["loads"] == 4
    assert run["counts"] == dict.fromkeys(("EMF", "CloudWatch", "Prometheus"), client)
    assert run["problems"] == []
    assert run["dropped"] == 0
    slow, fast = run["phases"]
    assert fast["calls"] > 2 * slow["calls"]
    assert 0 < fast["lines_each"] <= telemetry.MOST_LINES * slow["lines_each"]
