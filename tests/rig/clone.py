"""A clone of this repository as setup finds it: nothing compiled, and the packages that are there already."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# What build.sh and Python's venv call, besides a compiler.
TOOLS = (
    "bash",
    "sh",
    "cat",
    "chmod",
    "dirname",
    "env",
    "ls",
    "mkdir",
    "mktemp",
    "mv",
    "rm",
    "sed",
    "sha256sum",
    "uname",
)


def make_clone(path: Path, environment: Path) -> Path:
    """Lay one out at `path`, whose .venv is `environment` but for what setup notes down there."""
    for name in ("build.sh", "pyproject.toml", "README.md", "LICENSE", ".gitignore"):
        shutil.copy2(ROOT / name, path / name)
    for name in ("container", "handler", "requirements"):
        shutil.copytree(
            ROOT / name, path / name, ignore=shutil.ignore_patterns("__pycache__", "classes", "libhandler.so*")
        )
    (path / ".venv").mkdir()
    for name in ("bin", "lib", "pyvenv.cfg"):
        (path / ".venv" / name).symlink_to(environment / name)
    note(path, ".locked", "requirements/dev.lock")
    note(path, ".installed", "pyproject.toml")
    return path


def note(clone: Path, stamp: str, source: str) -> None:
    """What setup writes down when it is done with `source`."""
    (clone / ".venv" / stamp).write_text(f"{sha256((clone / source).read_bytes()).hexdigest()}  -\n")


def path_of(folder: Path, tools: Iterable[str] = TOOLS) -> str:
    """A PATH with these tools and nothing else."""
    folder.mkdir()
    for name in tools:
        found = shutil.which(name)
        assert found is not None, f"there is no {name} here"
        (folder / name).symlink_to(found)
    return str(folder)


def build(clone: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`./build.sh ARGUMENTS` there, in `environment` and nothing else."""
    return subprocess.run(
        ["./build.sh", *arguments], cwd=clone, env=environment, capture_output=True, text=True, timeout=300
    )
