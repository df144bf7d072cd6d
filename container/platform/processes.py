"""Processes that the platform starts: containers and jobs, each gone when the platform is, however that ends.

Rule: a process has a session of its own, so Ctrl-C is for us alone; and it is started from one thread that lives as long
as the platform, because the kernel sends the parting signal when that thread ends. Forking runs no Python of ours: what
asks the kernel for that signal is a program between us and the process, which becomes it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

STOP_PATIENCE_S = 35.0  # SageMaker's 30 s between SIGTERM and SIGKILL, and a little
# What stands between: prctl(PR_SET_PDEATHSIG, SIGTERM), then the process itself, unless we have gone meanwhile.
_LEASH = (
    "import ctypes, os, signal, sys\n"
    "ctypes.CDLL(None).prctl(1, int(signal.SIGTERM), 0, 0, 0)\n"
    "os.getppid() == int(sys.argv[1]) or sys.exit(1)\n"
    "os.execvp(sys.argv[2], sys.argv[2:])\n"
)


class Processes:
    """Any thread may start and stop them; `close` ends all that are left."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._starter = ThreadPoolExecutor(1, thread_name_prefix="starter")
        self._running: set[subprocess.Popen[bytes]] = set()
        self._is_closed = False

    def start(
        self,
        arguments: Sequence[str | Path],
        environment: Mapping[str, str],
        *,
        output: int | IO[Any] = subprocess.DEVNULL,
        errors: int | IO[Any] | None = None,
        directory: Path | None = None,
    ) -> subprocess.Popen[bytes]:
        """output, errors: as Popen has them; errors None is our own stderr.

        Raises OSError, and RuntimeError when all is being closed.
        """
        return self._starter.submit(self._start, arguments, environment, output, errors, directory).result()

    def stop(self, process: subprocess.Popen[bytes], patience_s: float = STOP_PATIENCE_S) -> int:
        """SIGTERM, then SIGKILL for it and whatever it started; its exit status."""
        process.terminate()
        try:
            status = process.wait(patience_s)
        except subprocess.TimeoutExpired:
            _kill_session(process)
            status = process.wait()
        with self._lock:
            self._running.discard(process)
        return status

    def close(self) -> None:
        with self._lock:
            self._is_closed = True
            left = list(self._running)
        for process in left:
            process.terminate()
        for process in left:
            self.stop(process)
        self._starter.shutdown()

    def _start(
        self,
        arguments: Sequence[str | Path],
        environment: Mapping[str, str],
        output: int | IO[Any],
        errors: int | IO[Any] | None,
        directory: Path | None,
    ) -> subprocess.Popen[bytes]:
        with self._lock:
            # What is started is seen by whoever closes, or is not started.
            if self._is_closed:
                raise RuntimeError("nothing is started any more")
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _LEASH, str(os.getpid()), *map(str, arguments)],
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                cwd=directory,
                start_new_session=True,
            )
            self._running.add(process)
        return process


def _kill_session(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        process.kill()
