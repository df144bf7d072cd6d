"""What is in the repository that nobody can read: listed here with its reason, and nothing that could be built."""

from __future__ import annotations

import shutil
import subprocess
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

ALLOWED = {
    "benchmarks/pictures/*.png": "what the READMEs show; benchmarks.pictures and benchmarks.report draw them",
    "tests/frames/*.bin": "frames that MMS wrote, recorded on its socket; tests/frames/README.md says how",
    "tests/fixtures/*": "files that other people's releases wrote, which is what makes them oracles",
}
PROGRAMS = (
    b"\x7fELF",
    b"\xca\xfe\xba\xbe",
    b"\xcf\xfa\xed\xfe",
    b"MZ",
    b"!<arch>",
    b"PK\x03\x04",
)  # or jars, or wheels


@pytest.fixture(scope="module")
def binaries() -> dict[str, bytes]:
    """Tracked files that git takes for binary, by git's own rule: a NUL among the first 8,000 bytes."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("this is no clone")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    there = [name for name in listed.split("\0") if (ROOT / name).is_file()]
    heads = {name: (ROOT / name).open("rb").read(8000) for name in there}
    return {name: head for name, head in heads.items() if b"\0" in head}


def test_every_tracked_binary_is_allowed_and_every_allowance_is_used(binaries: dict[str, bytes]) -> None:
    assert [name for name in binaries if not any(fnmatch(name, pattern) for pattern in ALLOWED)] == []
    assert [pattern for pattern in ALLOWED if not any(fnmatch(name, pattern) for name in binaries)] == []


def test_no_program_is_tracked(binaries: dict[str, bytes]) -> None:
    """What is compiled is compiled where it is used, or travels in a wheel."""
    assert [name for name, head in binaries.items() if head.startswith(PROGRAMS)] == []
