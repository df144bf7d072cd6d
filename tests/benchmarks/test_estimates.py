"""Estimates of work are about what it takes, by the benchmark's own bounds: `python -m pytest -m slow`."""

from __future__ import annotations

import subprocess
import sys

import pytest

from handler.forest import walker


@pytest.mark.slow
@pytest.mark.skipif(not walker.is_available(), reason="there was no C compiler")
def test_what_is_estimated_is_about_what_it_takes() -> None:
    run = subprocess.run([sys.executable, "-m", "benchmarks.estimates"], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
