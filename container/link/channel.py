"""What the supervisor and the runtime tell each other: small JSON messages, some with descriptors.

    supervisor -> runtime   settings {...}   listen NAME + socket   ended NAME   unlisten NAME   gates + socket   drain
                            board + page     adopt SLOT + socket   lane + socket
    runtime -> supervisor   started          workers N              preloading   preloaded       drained
                            connected SLOT + socket

Rule: either side ends when the other is gone; there is nothing to reconnect to.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

MAX_MESSAGE_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Note:
    """One message; `descriptors` now belong to the receiver."""

    what: str
    value: Any = None
    descriptors: tuple[int, ...] = ()


class Channel:
    """One end of a SOCK_SEQPACKET pair, which keeps message borders."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end

    @classmethod
    def pair(cls) -> tuple[Channel, socket.socket]:
        """Our end, and the socket to hand to a child."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(ours), theirs

    def fileno(self) -> int:
        return self._end.fileno()

    def send(self, what: str, value: Any = None, descriptors: Sequence[int] = ()) -> bool:
        """False when the other side is gone."""
        data = json.dumps([what, value]).encode()
        try:
            socket.send_fds(self._end, [data], list(descriptors))
        except (BrokenPipeError, ConnectionResetError):
            return False
        return True

    def receive(self) -> Note | None:
        """The next message; None when the other side is gone."""
        try:
            data, descriptors, _, _ = socket.recv_fds(self._end, MAX_MESSAGE_BYTES, 4)
        except (
            ConnectionResetError
        ):  # said once, of an end that was closed with ours unread; what it had sent comes after
            data, descriptors, _, _ = socket.recv_fds(self._end, MAX_MESSAGE_BYTES, 4)
        if not data:
            return None
        what, value = json.loads(data)
        for descriptor in descriptors:
            os.set_inheritable(descriptor, False)
        return Note(what, value, tuple(descriptors))

    def close(self) -> None:
        self._end.close()
