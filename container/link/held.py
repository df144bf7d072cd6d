"""MMS's connections, held by the supervisor as well, so that they outlive the runtime that serves them.

When a runtime dies, MMS would see each of its connections end, give 500 "Worker died." to the caller that waits on one, and
come back after a pause. Held, the connection stays: the caller that waits on it gets 503, and the next runtime reads on.

    byte of the page    what the connection is doing; written by the runtime, read by the supervisor once that is dead

Rule: a reply nobody asked for would be taken for the next request's. So where it cannot be told whether a request was read,
or whether a reply was sent, the connection is closed.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import socket
import struct
import termios

N_SLOTS = 4096

FREE = 0
IDLE = 1  # loaded, and nothing has been read that is not answered
BEGINNING = 2  # about to read a frame's first bytes, or has just read them
ANSWERING = 3  # a whole request has been read, nothing of the reply has been sent
IN_DOUBT = 4

_REQUEST_ID_BYTES = 36  # MMS's are UUIDs
_FRAME_BEGINS = b"I" + struct.pack("!i", _REQUEST_ID_BYTES)


class Board:
    """The shared page. One side creates it; the other is handed its descriptor."""

    def __init__(self, descriptor: int | None = None) -> None:
        self._descriptor = os.memfd_create("mme-board", os.MFD_CLOEXEC) if descriptor is None else descriptor
        if descriptor is None:
            os.ftruncate(self._descriptor, N_SLOTS)
        self.page = mmap.mmap(self._descriptor, N_SLOTS)

    def fileno(self) -> int:
        return self._descriptor

    def settle(self, slot: int, stream: socket.socket, apology: bytes) -> bool:
        """Whether this connection survives, see there. It is at rest then: should the next runtime end before it has come
        to it, nobody is told a second time."""
        if not survives(stream, self.page[slot], apology):
            return False
        self.page[slot] = IDLE
        return True

    def close(self) -> None:
        self.page.close()
        os.close(self._descriptor)


def survives(stream: socket.socket, state: int, apology: bytes) -> bool:
    """Whether a connection can go on with another runtime, now that the one that served it is dead; the caller that waits on
    it has been answered then.

    state     what its byte said last
    apology   the reply for a request that was lost
    """
    if state == BEGINNING:
        state = _began(stream)
    if state == IDLE:
        return True
    if state != ANSWERING:
        return False
    with contextlib.suppress(OSError):
        return stream.send(apology, socket.MSG_DONTWAIT) == len(apology)
    return False


def _began(stream: socket.socket) -> int:
    """Whether a frame's first bytes were read: there was something to read, so they were if it is gone."""
    try:
        (n_waiting,) = struct.unpack("i", fcntl.ioctl(stream, termios.FIONREAD, bytes(4)))
        if not n_waiting:
            return ANSWERING
        head = stream.recv(len(_FRAME_BEGINS), socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except OSError:
        return IN_DOUBT
    return IDLE if head == _FRAME_BEGINS else IN_DOUBT
