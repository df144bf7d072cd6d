"""The report: all that was measured, nothing that was not."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("matplotlib")

from benchmarks import report
from benchmarks.rig import record

RUN = {"requests_per_s": 5000.0, "p50_us": 900, "p90_us": 1500, "p99_us": 2500, "p999_us": 9000, "cpu_us": 150.0}
SCORING = {"models": 100, "cold_ms": [8.0, 9.0, 12.0], "busy_mb": 300.0, "model_mb": 0.1}
ROUND = {"many": RUN, "one": RUN}
COMPARE = {
    "servers": {
        "ours": {**SCORING, "runs": [{**ROUND, "hundred": RUN}]},
        "echo": {"busy_mb": 100.0, "runs": [ROUND]},
        "uvicorn": {**SCORING, "runs": [{**ROUND, "hundred": RUN}]},
    },
    "verdicts": [
        {"what": "p99 <to> p50", "figure": 2.8, "is_": "at most", "limit": 3.0, "form": "{:.1f} x", "is_met": True}
    ],
}
MEMORY = {
    "start": {"runtime": 30e6, "JVM": 90e6},
    "loaded": {"runtime": 140e6, "JVM": 90e6},
    "emptied": {},
    "segments": 1000,
}


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for module in (record, report):
        monkeypatch.setattr(module, "OUT", tmp_path)
    monkeypatch.setattr(sys, "argv", ["report"])
    return tmp_path


def test_without_figures_it_says_how_to_get_some(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report.main() == 1
    assert "python -m benchmarks." in capsys.readouterr().err
    assert list(out.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "facts", "pictures"),
    [
        ("compare", COMPARE, {"throughput", "latency", "hundred", "memory"}),
        ("memory", MEMORY, {"members", "cost"}),
    ],
)
def test_what_was_measured_is_drawn_with_its_origin(
    out: Path, name: str, facts: dict[str, Any], pictures: set[str]
) -> None:
    record.save(name, facts)
    assert report.main() == 0
    page = (out / "report.html").read_text()
    drawn = {path.stem for path in out.glob("*.png")}
    assert drawn == pictures
    assert all(f'<img src="{picture}.png"' in page for picture in drawn)
    assert page.count("load average") >= len(pictures)
    assert all(path.stat().st_size < 150_000 for path in out.glob("*.png"))


def test_verdicts_stand_on_the_page(out: Path) -> None:
    record.save("compare", COMPARE)
    assert report.main() == 0
    page = (out / "report.html").read_text()
    assert "p99 &lt;to&gt; p50" in page
    assert "<td>2.8 x</td><td>at most 3.0 x</td><td>met</td>" in page
