"""A process that yields does so as a whole session, where sessions are what the kernel shares the processor among."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SAY = """
import os
from pathlib import Path
from container.examine.niceness import yield_to_others

group = Path("/proc/self/autogroup")
yield_to_others(7)
print(os.nice(0), os.getsid(0) == os.getpid(), group.read_text().split()[-1] if group.exists() else 7)
"""


def said_by(*command: str, leads_already: bool = False) -> list[str]:
    return subprocess.run(
        [*command, sys.executable, "-c", SAY],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[3],
        start_new_session=leads_already,
    ).stdout.split()


@pytest.mark.parametrize("leads_already", [False, True])
def test_the_process_leads_a_session_of_its_own_that_is_as_nice(leads_already: bool) -> None:
    assert said_by(leads_already=leads_already) == ["7", "True", "7"]


def test_a_process_that_was_started_nicer_stays_so() -> None:
    """Less nice it could not be without a privilege, and need not."""
    assert said_by("nice", "-n", "12") == ["12", "True", "12"]
