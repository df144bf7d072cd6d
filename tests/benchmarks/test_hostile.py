"""Ten minutes of strangers who mean no good, at random, beside honest callers: `python -m pytest -m slow`."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_ten_minutes_of_every_attack_at_random_harm_no_honest_caller() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "benchmarks.hostile", "--mix", "600"], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "mix wrong      0 of " in run.stdout
