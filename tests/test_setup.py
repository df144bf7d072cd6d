"""What compiles our C: `./build.sh setup` on a machine without compilers, and the image's build."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest

from tests.rig.clone import build, make_clone, path_of

ROOT = Path(__file__).resolve().parent.parent
COPIED = re.compile(r"^COPY (handler/[^\n]*) \S+$", re.MULTILINE)
PROOF = (
    "from handler import compiled; from handler.forest.proof import walker_agrees; "
    "print(compiled.LIBRARY); print(walker_agrees())"
)
# What pip is told about its index, its cache and certificates.
OF_PIP = {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "SSL_", "HOME", "REQUESTS_"))}


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    (tmp_path / "clone").mkdir()
    return make_clone(tmp_path / "clone", Path(sys.prefix))


@pytest.mark.timeout(300)
def test_c_is_compiled_all_the_same_and_what_java_would_have_added_is_said_once(clone: Path, tmp_path: Path) -> None:
    environment = {**OF_PIP, "PATH": path_of(tmp_path / "bin")}
    done = build(clone, "setup", **environment)
    if "ERROR: No matching distribution" in done.stderr or "ConnectionError" in done.stderr:
        pytest.skip("PyPI cannot be reached")
    assert (done.returncode, done.stderr.count("no javac"), done.stderr.count("no C compiler")) == (0, 1, 1), (
        done.stderr
    )
    told = subprocess.run(
        [sys.executable, "-c", PROOF], cwd=clone, env={"PYTHONPATH": str(clone)}, capture_output=True, text=True
    )
    assert told.stdout.splitlines() == [str(clone / "handler/libhandler.so"), "True"], told.stderr
    again = build(clone, "setup", **environment)
    assert (again.returncode, again.stderr) == (0, "")


def test_where_no_compiler_can_be_had_setup_says_what_it_costs_and_goes_on(clone: Path, tmp_path: Path) -> None:
    (clone / "handler/libhandler.so").write_bytes(b"of other sources")
    environment = {"PATH": path_of(tmp_path / "bin"), "PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": "/dev/null"}
    done = build(clone, "setup", **environment)
    assert done.returncode == 0
    assert "models are scored by libxgboost" in done.stderr
    assert not (clone / "handler/libhandler.so").exists()
    assert not (clone / ".venv/.compiled").exists()  # so the next one tries again


def test_the_image_has_every_source_when_it_compiles() -> None:
    compiled = (ROOT / "Dockerfile").read_text().partition(" AS compiled")[2].partition("\nFROM ")[0]
    patterns = " ".join(COPIED.findall(compiled)).split()
    sources = [str(path.relative_to(ROOT)) for path in (ROOT / "handler").rglob("*.[ch]")]
    assert [name for name in sources if not any(_copies(pattern, name) for pattern in patterns)] == []


def _copies(pattern: str, name: str) -> bool:
    """As COPY has it: a `*` does not go into directories."""
    parts, names = pattern.split("/"), name.split("/")
    return len(parts) == len(names) and all(map(fnmatch, names, parts))
