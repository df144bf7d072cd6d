"""Hatchling's hook for our wheel: its name says which systems what was compiled for it runs on.

Rule: nothing is compiled here. `./build.sh wheel` and the Dockerfile have done that; a wheel made without is for any system,
and slower.
"""

from __future__ import annotations

import platform
import re
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

OLDEST_GLIBC = 17  # 2.17, the oldest that pip has a name for everywhere


class CompiledParts(BuildHookInterface[Any]):
    """Found by hatchling, being the one hook in this file."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        library = Path(self.root, "handler/libhandler.so")
        if version == "standard" and library.exists():  # and not "editable", where the sources stay in their place
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-{platform_tag(library.read_bytes(), platform.machine())}"


def platform_tag(library: bytes, machine: str) -> str:
    """The systems that have what a library asks of glibc, as PEP 600 names them."""
    needed = [int(minor) for minor in re.findall(rb"\0GLIBC_2\.(\d+)", library)]
    return f"manylinux_2_{max([OLDEST_GLIBC, *needed])}_{machine}"
