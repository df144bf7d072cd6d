"""A process that yields does so as a whole session, where sessions are what the kernel shares the processor among."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SAY = """
import os
from pathlib import Path
from container.yielding import yield_to_others

group = Path("/proc/self/autogroup")
yield_to_others(7)
print(os.nice(0), os.getsid(0) == os.getpid(), group.read_text().split()[-1] if group.exists() else 7)
"""


@pytest.mark.parametrize("leads_already", [False, True])
def test_the_process_leads_a_session_of_its_own_that_is_as_nice(leads_already: bool) -> None:
    said = subprocess.run(
        [sys.executable, "-c", SAY],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
        start_new_session=leads_already,
    )
    assert said.stdout.split() == ["7", "True", "7"]
