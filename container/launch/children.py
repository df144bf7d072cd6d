"""Child processes: started so that they cannot outlive us, and reaped by us alone."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from container.limits import libc


@dataclass(slots=True)
class Child:
    """A process we started. `status` is its wait status once it has ended."""

    name: str
    pid: int
    started_at: float
    status: int | None = None

    @property
    def is_alive(self) -> bool:
        return self.status is None

    @property
    def ending(self) -> str:
        """How it ended, in words."""
        if self.status is None:
            return "is running"
        if os.WIFSIGNALED(self.status):
            number = os.WTERMSIG(self.status)
            hint = ": out of memory, or somebody's kill -9" if number == signal.SIGKILL else ""
            return f"was ended by {signal.Signals(number).name}{hint}"
        return f"ended with status {os.WEXITSTATUS(self.status)}"

    def kill(self, number: int = signal.SIGKILL) -> None:
        if self.is_alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)


class Children:
    """Starts and reaps. While one exists in a process, nothing else there may wait for children."""

    def __init__(self) -> None:
        # Stubs are the JVM's children; when it dies they become ours instead of init's, and are reaped like the rest.
        libc.adopt_orphans()
        self._children: dict[int, Child] = {}

    def start(
        self,
        name: str,
        command: Sequence[str],
        *,
        environment: Mapping[str, str],
        input: int | None = None,
        output: int | None = None,
        pass_fds: Sequence[int] = (),
    ) -> Child:
        """Start a process in a session of its own, where a terminal's Ctrl-C does not reach it.

        input    descriptor for its standard input; None is nothing
        output   descriptor for both of its streams; None is ours
        """
        process = subprocess.Popen(
            command,
            env=dict(environment),
            stdin=subprocess.DEVNULL if input is None else input,
            stdout=output,
            stderr=output,
            pass_fds=pass_fds,
            start_new_session=True,
            preexec_fn=_die_with_parent,  # noqa: PLW1509  safe: the log's thread holds nothing that it needs
        )
        process.returncode = 0  # Popen shall not wait for it: `reap` does, for all children at once
        child = Child(name, process.pid, time.monotonic())
        self._children[child.pid] = child
        return child

    def reap(self) -> list[Child]:
        """The children that have ended since the last call; orphans handed to us are reaped without a word."""
        ended: list[Child] = []
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return ended
            if pid == 0:
                return ended
            child = self._children.pop(pid, None)
            if child is not None:
                child.status = status
                ended.append(child)

    def wait_all(self, patience_s: float) -> bool:
        """Reap until no child or orphan is left; False when some still are after `patience_s`."""
        deadline = time.monotonic() + patience_s
        while True:
            self.reap()
            try:
                os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return True
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.01)


def _die_with_parent() -> None:
    libc.end_with_parent(signal.SIGKILL)
