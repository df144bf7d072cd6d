"""The whole loop as a person watches it: rows to answers, twice, and one model taken back."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest

from container.operate.demo.loop import BROKEN, DEARER
from tests.rig.command import Command
from tests.rig.endpoint import free_port

pytest.importorskip("pyarrow")


@pytest.mark.timeout(300)
def test_prices_arrive_and_are_answered_and_a_broken_feed_is_kept_back_and_taken_back() -> None:
    command = [sys.executable, "-m", "container.operate.main", "demo", "--loop", "--port", str(free_port())]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    said = done.stdout
    asked = re.findall(r"--target us/(\w+)\.tar\.gz 2020,4000,5,4,1,3\n([\d.]+)", said)
    assert [city for city, _ in asked] == [DEARER, DEARER, BROKEN, BROKEN]
    before, dearer, broken, taken_back = (float(usd) for _, usd in asked)
    assert 1.2 < dearer / before < 1.5  # by a third
    assert broken < 0.8 * taken_back
    assert said.count("verified  yes") == 4
    assert "not live  worst is " in said
    assert "new 10   better 0   worse 0" in said
    assert f"no better us/{BROKEN}.tar.gz: than a constant" in said
    assert "1 written  instead of" in said


def test_ctrl_c_ends_the_command_in_hand_and_the_loop(run: Callable[..., Command]) -> None:
    demo = run("demo", "--loop", "--port", str(free_port()))
    demo.wait_for("$ mme pipeline")
    demo.signal(signal.SIGINT)
    assert demo.wait() == 130, demo.trouble
    assert demo.trouble == ""
    demo.assert_nothing_is_left()
