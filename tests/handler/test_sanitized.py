"""A moment of `./build.sh sanitize`, whose nightly form takes ten minutes: our C stays inside of what it is given."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def has_sanitizers(folder: Path) -> bool:
    compiler = shutil.which("cc")
    if compiler is None:
        return False
    (folder / "main.c").write_text("int main(void) { return 0; }")
    command = [compiler, "-fsanitize=address,undefined", "-o", folder / "main", folder / "main.c"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def test_c_stays_inside_of_what_it_was_given(tmp_path: Path) -> None:
    if not has_sanitizers(tmp_path):
        pytest.skip("no C compiler with sanitizers here")
    run = subprocess.run([ROOT / "build.sh", "sanitize", "1"], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "of them sound and walked" in run.stdout  # by itself
    assert "write_call" in run.stdout  # from Python
