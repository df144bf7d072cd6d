"""What is compiled is ours alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

NAMES = ("row", "sheet", "kept", "files", "ubjson")


def test_a_hooks_own_modules_may_have_the_names_of_ours(tmp_path: Path) -> None:
    for name in NAMES:
        (tmp_path / f"{name}.py").write_text("")
    told = subprocess.run(
        [
            *(sys.executable, "-c"),
            f"import sys; sys.path.append({str(tmp_path)!r}); from handler import compiled\n"
            f"import {', '.join(NAMES)}; print(*({', '.join(f'{name}.__file__' for name in NAMES)}))",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout.split() == [str(tmp_path / f"{name}.py") for name in NAMES]
