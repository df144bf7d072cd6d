"""A command's whole process tree measured: CPU seconds, wall time, peak memory (PSS).

Rule: what nobody waits for counts as well, as Ray's workers, wherever control groups may be written (root, version 1);
elsewhere only what is waited for.
"""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ACCOUNTS = Path("/sys/fs/cgroup/cpuacct")
PATIENCE_S = 10.0


@dataclass(frozen=True, slots=True)
class Figure:
    cpu_s: float
    wall_s: float
    peak_mb: float


def measured(command: list[str]) -> Figure:
    """A command's whole process tree, until the command has ended."""
    environment = {**os.environ, "OMP_WAIT_POLICY": "passive"}  # spinning threads would be counted as work
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # installed, nobody compiles what is imported anew each time
    with _account() as account:
        began = time.perf_counter()
        process = subprocess.Popen([*account.joining, *command], env=environment, stdout=subprocess.DEVNULL)
        peak = 0.0
        is_over = threading.Event()

        def watch() -> None:
            nonlocal peak
            while not is_over.wait(0.1):
                peak = max(peak, sum(map(_pss_kb, account.pids() or _family(process.pid))) / 1024)

        watcher = threading.Thread(target=watch)
        watcher.start()
        status = process.wait()
        wall_s = time.perf_counter() - began
        is_over.set()
        watcher.join()
        assert status == 0, command
        return Figure(account.cpu_s(), wall_s, peak)


class _Account:
    """joining: before a command, so that it is counted here."""

    def __init__(self, group: Path | None) -> None:
        self._group = group
        self._before = _waited_for()
        self.joining = [] if group is None else ["sh", "-c", 'echo $$ >"$0" && exec "$@"', str(group / "tasks")]

    def pids(self) -> list[int]:
        return [] if self._group is None else [int(pid) for pid in (self._group / "cgroup.procs").read_text().split()]

    def cpu_s(self) -> float:
        if self._group is None:
            return _waited_for() - self._before
        return int((self._group / "cpuacct.usage").read_text()) / 1e9


@contextmanager
def _account() -> Iterator[_Account]:
    if not os.access(ACCOUNTS / "tasks", os.W_OK):
        yield _Account(None)
        return
    group = ACCOUNTS / f"mme-account-{os.getpid()}"
    group.mkdir()
    try:
        yield _Account(group)
    finally:
        deadline = time.monotonic() + PATIENCE_S
        while (group / "tasks").read_text() and time.monotonic() < deadline:
            time.sleep(0.05)  # what the command did not wait for
        with contextlib.suppress(OSError):
            group.rmdir()


def _waited_for() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def family_pss_mb(pid: int) -> float:
    return sum(map(_pss_kb, _family(pid))) / 1024


def _family(pid: int) -> list[int]:
    found, pending = [], [pid]
    while pending:
        found.append(pending.pop())
        with contextlib.suppress(OSError, ValueError):  # it has ended
            for task in Path(f"/proc/{found[-1]}/task").iterdir():
                pending += map(int, (task / "children").read_text().split())
    return found


def _pss_kb(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)
