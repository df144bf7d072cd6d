"""The sockets that MMS's workers connect to: bound for standalone's stub, or for the door of hosted mode's server.

The stub asks by one line in the control FIFO. We bind the socket, tell the stub what MMS wants to read, and keep the reply
open; the stub's death shows as an error on it. The door asks for each model's socket, and says when it is done with one.

Rule: the sockets belong to the supervisor, so a runtime that dies leaves MMS's books true; the next one listens on the
same sockets, and what MMS connected in between waits in their backlog.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import socket
from dataclasses import dataclass, replace
from pathlib import Path

log = logging.getLogger(__name__)

BACKLOG = 1024  # more than there can be workers of one model
_REQUEST = re.compile(rb"(\.mms\.sock\.\d+) (reply\.\d+)")


@dataclass(frozen=True, slots=True)
class Binding:
    """A socket in MMS's temp directory, and the reply of the stub it was bound for; None when the door asked for it."""

    name: str
    listener: socket.socket
    reply: int | None


def socket_name(port: int) -> str:
    """Where a worker of MMS's connects to."""
    return f".mms.sock.{port}"


class Stubs:
    """Owns the control FIFO and every binding.

    directory   MMS's temp directory, where FIFOs and sockets are
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        os.mkfifo(directory / "control", 0o600)
        # Read and write, so that it never ends when a stub closes it.
        self.control = os.open(directory / "control", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._partial = b""
        self._bindings: dict[str, Binding] = {}
        self._lingering: list[Binding] = []  # their models are unloaded

    @property
    def bindings(self) -> list[Binding]:
        return list(self._bindings.values())

    @property
    def lingering(self) -> list[Binding]:
        return list(self._lingering)

    def on_control(self) -> list[Binding]:
        """Bind for every stub that has asked. Call when `control` is readable."""
        with contextlib.suppress(BlockingIOError):
            self._partial += os.read(self.control, 64 * 1024)
        *lines, self._partial = self._partial.split(b"\n")
        return [binding for line in lines if (binding := self._bind_for_stub(line)) is not None]

    def _bind_for_stub(self, line: bytes) -> Binding | None:
        match = _REQUEST.fullmatch(line)
        if match is None:
            log.error("a stub asked for %r, which makes no sense", line)
            return None
        name, reply_name = (part.decode() for part in match.groups())
        try:
            reply = os.open(self._directory / reply_name, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:  # ENXIO, ENOENT: killed between asking and now
            log.warning("the stub for %s is gone already: %s", name, error)
            return None
        binding = self.bind(name, reply)
        # MMS parses these two lines of what it takes for its worker's output; it connects after the second.
        os.write(reply, b"[PID] %d\nMMS worker started.\n" % os.getpid())
        return binding

    def bind(self, name: str, reply: int | None = None) -> Binding:
        path = self._directory / name
        path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(str(path))
        listener.listen(BACKLOG)
        self._bindings[name] = binding = Binding(name, listener, reply)
        return binding

    def linger(self, name: str) -> Binding | None:
        """The model is unloaded: the socket stays until `forget`, since MMS may be just about to connect, and a worker of its
        that cannot connect never tells its caller so. None when it was never bound."""
        binding = self._bindings.pop(name, None)
        if binding is not None:
            self._lingering.append(binding)
        return binding

    def forget(self, binding: Binding) -> None:
        """Nobody will connect to this socket any more."""
        self._lingering.remove(binding)
        self._release(binding)

    def orphan(self, name: str) -> None:
        """The stub was killed by somebody else than MMS, which still counts on its socket: keep that."""
        binding = self._bindings[name]
        assert binding.reply is not None
        os.close(binding.reply)
        self._bindings[name] = replace(binding, reply=None)

    def _release(self, binding: Binding) -> None:
        binding.listener.close()
        (self._directory / binding.name).unlink(missing_ok=True)

    def close(self) -> None:
        """Let the stub end and every socket go."""
        for binding in self._bindings.values():
            if binding.reply is not None:
                os.close(binding.reply)
        for binding in self.bindings + self._lingering:
            self._release(binding)
        self._bindings.clear()
        self._lingering.clear()
        os.close(self.control)
