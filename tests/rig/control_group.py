"""A group of processes with a memory limit that the kernel enforces: what a container has, without a container.

    with ControlGroup(1 << 30) as group:
        process = subprocess.Popen(group.command(["python", "-m", ...]))
        ...
        assert group.oom_kills == 0

Version 2 where its memory controller can be had, else version 1; either needs the right to write below /sys/fs/cgroup.
"""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Self

V1 = Path("/sys/fs/cgroup/memory")
V2 = Path("/sys/fs/cgroup")


class ControlGroup:
    """Made by entering, removed by leaving, when all its processes have ended. Raises OSError where that is not possible."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._is_v2 = _has_v2()
        self.folder = (V2 if self._is_v2 else V1) / f"mme-{uuid.uuid4().hex[:8]}"

    def __enter__(self) -> Self:
        self.folder.mkdir()
        try:
            if self._is_v2:
                (self.folder / "memory.max").write_text(str(self._limit_bytes))
                with contextlib.suppress(OSError):  # without swap there is no such file
                    (self.folder / "memory.swap.max").write_text("0")
            else:
                (self.folder / "memory.limit_in_bytes").write_text(str(self._limit_bytes))
        except OSError:
            self.folder.rmdir()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        deadline = time.monotonic() + 5
        while True:
            try:
                self.folder.rmdir()
            except OSError:  # a process is still on its way out
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
            else:
                return

    def command(self, words: Sequence[str]) -> list[str]:
        """What runs these words inside."""
        return ["sh", "-c", 'echo $$ >"$1/cgroup.procs" && shift && exec "$@"', "join", str(self.folder), *words]

    @property
    def most_bytes(self) -> int:
        """The most that was ever used, pages of files included."""
        return int((self.folder / ("memory.peak" if self._is_v2 else "memory.max_usage_in_bytes")).read_text())

    @property
    def oom_kills(self) -> int:
        """How many processes the kernel has ended for want of memory."""
        return self._figure("memory.events" if self._is_v2 else "memory.oom_control", "oom_kill")

    @property
    def file_bytes(self) -> int:
        """Pages of files in it, which the kernel drops when it needs them."""
        if self._is_v2:
            return self._figure("memory.stat", "active_file") + self._figure("memory.stat", "inactive_file")
        return self._figure("memory.stat", "total_active_file") + self._figure("memory.stat", "total_inactive_file")

    @property
    def used_bytes(self) -> int:
        """What is used now, pages of files included."""
        return int((self.folder / ("memory.current" if self._is_v2 else "memory.usage_in_bytes")).read_text())

    def _figure(self, name: str, key: str) -> int:
        lines = (line.split() for line in (self.folder / name).read_text().splitlines())
        return next(int(words[1]) for words in lines if words[0] == key)


def _has_v2() -> bool:
    try:
        return "memory" in (V2 / "cgroup.subtree_control").read_text().split()
    except OSError:
        return False


def missing() -> str | None:
    """Why there are no groups here; None when there are."""
    parent = V2 if _has_v2() else V1
    if not os.access(parent, os.W_OK):
        return f"needs the right to write to {parent}"
    try:
        with ControlGroup(64 << 20):
            return None
    except OSError as error:
        return f"no group can be made in {parent}: {error.strerror}"
