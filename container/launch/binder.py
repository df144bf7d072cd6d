"""Sockets bound for the door of hosted mode's server (plugin/FrontServer.java), which starts no stubs.

    door        "bind 9003"       "release 9003"
    supervisor  "bound 9003"      (the socket goes some seconds later)

Rule: one connection, from the one JVM; nothing here blocks the supervisor's loop.
"""

from __future__ import annotations

import contextlib
import re
import socket
from enum import Enum
from pathlib import Path

RECEIVE_BYTES = 64 * 1024
_LINE = re.compile(rb"(bind|release) (\d{1,10})")


class Wish(Enum):
    BIND = "bind"
    RELEASE = "release"


class DoorLost(Exception):
    """The JVM has closed the connection, or says what makes no sense."""


class Binder:
    """Listens at `path` and keeps the connection."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(str(path))
        self.listener.listen(1)
        self._connection: socket.socket | None = None
        self._partial = b""

    def accept(self) -> int:
        """Take the door's connection when `listener` is readable, and be its only one. Returns its descriptor."""
        self._connection, _ = self.listener.accept()
        self._connection.setblocking(False)
        return self._connection.fileno()

    def wishes(self) -> list[tuple[Wish, int]]:
        """What has arrived: wishes and the ports they are for. Raises DoorLost."""
        assert self._connection is not None
        try:
            data = self._connection.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return []
        except OSError as error:
            raise DoorLost(str(error)) from error
        if not data:
            raise DoorLost("it has closed the connection")
        *lines, self._partial = (self._partial + data).split(b"\n")
        return [_wish(line) for line in lines]

    def bound(self, port: int) -> None:
        """Tell the door that it can go on. It waits for each reply, so there is always room for one."""
        assert self._connection is not None
        with contextlib.suppress(OSError):  # the JVM has ended; that is told elsewhere
            self._connection.send(b"bound %d\n" % port)

    def close(self) -> None:
        self.listener.close()
        self._path.unlink(missing_ok=True)
        if self._connection is not None:
            self._connection.close()


def _wish(line: bytes) -> tuple[Wish, int]:
    match = _LINE.fullmatch(line)
    if match is None:
        raise DoorLost(f"it says {line!r}")
    return Wish(match[1].decode()), int(match[2])
