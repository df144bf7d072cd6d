"""`mme serve` as a child process: started, waited for, and gone before we are.

Rule: Ctrl-C is for us alone. The child has a session of its own, is ended with SIGTERM as any service would be, and gets
that signal from the kernel too when we are killed.
"""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from types import TracebackType

from container.limits import libc
from container.operate.exits import CommandFailed
from container.platform.ports import Ports, PortsUsedUp

READY = "ready"  # the first word of the line that `mme serve` prints when it can answer
STOP_PATIENCE_S = 35.0  # longer than its own longest drain and clean-up
LOOK_S = 0.1  # between two looks at whether to go on waiting


class ChildFailed(CommandFailed):
    """The endpoint is not there, and why."""


class PortTaken(CommandFailed):
    def __init__(self, port: int, why: str, flag: str = "--port") -> None:
        super().__init__(f"cannot listen on 127.0.0.1:{port}: {why}; choose another with {flag}")
        self.port = port


def free_port(ports: Iterable[int], flag: str = "--port") -> int:
    """The first of `ports` that can be listened on. Raises PortTaken, naming the last one tried and what chooses another."""
    for port in ports:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                taken = PortTaken(port, error.strerror or str(error), flag)
            else:
                return port
    raise taken


def ports_for_children(n: int, besides: Collection[int] = ()) -> list[int]:
    """Free ones, for endpoints that nobody but us speaks to. besides: spoken for. Raises CommandFailed."""
    ports = Ports(besides)
    try:
        return [ports.take() for _ in range(n)]
    except PortsUsedUp as error:
        raise CommandFailed(str(error)) from error


class ServeChild:
    """`mme serve ARGUMENTS` in `environment`. To be made on the main thread, before there are others that work.

    ready_s   from the start to readiness, once there
    """

    def __init__(self, arguments: Iterable[str], environment: Mapping[str, str]) -> None:
        self._started_at = time.monotonic()
        self.ready_s: float | None = None
        self._changed = threading.Event()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "container.operate.main", "serve", *arguments],
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,  # facts; trouble goes to our stderr by itself
            text=True,
            start_new_session=True,
            preexec_fn=_end_with_parent,  # noqa: PLW1509  safe: no other thread holds a lock
        )
        assert self._process.stdout is not None  # it is a pipe
        self._output = self._process.stdout
        self._reader = threading.Thread(target=self._read, name="serve's stdout", daemon=True)
        self._reader.start()

    def wait_ready(self, patience_s: float, look: Callable[[], None] = lambda: None) -> float:
        """Seconds it took. Raises ChildFailed when it ended, or is not ready in `patience_s`.

        look   called again and again meanwhile; what it raises ends the waiting
        """
        deadline = time.monotonic() + patience_s
        while not self._changed.wait(LOOK_S):
            look()
            if time.monotonic() > deadline:
                raise ChildFailed(f"the endpoint is not ready after {patience_s:.0f} s")
        if self.ready_s is None:
            raise ChildFailed(f"the endpoint ended with status {self._process.wait()} before it was ready")
        return self.ready_s

    @property
    def is_ready(self) -> bool:
        return self.ready_s is not None and not self.has_ended

    @property
    def has_ended(self) -> bool:
        return self._process.poll() is not None

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait(self, look: Callable[[], None] = lambda: None) -> int:
        """Its exit status, once it has one. look: as of `wait_ready`."""
        while True:
            try:
                return self._process.wait(LOOK_S)
            except subprocess.TimeoutExpired:
                look()

    def ask_to_end(self) -> None:
        """Without waiting for it, as one of several that end side by side."""
        self._process.terminate()

    def __enter__(self) -> ServeChild:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        try:
            self._process.wait(STOP_PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()  # the kernel then kills its children (PDEATHSIG, see supervisor)
            self._process.wait()
        self._reader.join(1.0)
        self._output.close()

    def _read(self) -> None:
        """Reads to the end, so that a full pipe never stops the child."""
        for line in self._output:
            if line.startswith(READY + " ") and self.ready_s is None:
                self.ready_s = time.monotonic() - self._started_at
                self._changed.set()
        self._changed.set()


def _end_with_parent() -> None:
    libc.end_with_parent(signal.SIGTERM)
