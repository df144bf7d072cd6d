"""One connection of MMS's to the runtime: frames in, answers out, on a thread of its own.

Rule: what comes over a connection can end that connection and nothing else.
"""

from __future__ import annotations

import contextlib
import http
import logging
import os
import re
import socket
from collections.abc import Callable
from pathlib import Path

from container.worker import wire
from handler.messages import Answer, Request

log = logging.getLogger(__name__)

RECEIVE_BYTES = 64 * 1024  # a one-row request is one read; a large body is read in the steps below
LARGE_RECEIVE_BYTES = 1 << 20
# MMS names a channel by Netty's long id: hexadecimal and dashes. The name becomes part of a path.
_IO_NAME = re.compile(r"[0-9a-f-]{1,128}")
_REASONS = {status.value: status.phrase for status in http.HTTPStatus}


class Connection:
    """Serves one accepted socket until its peer closes it, breaks the protocol, or `close` is called.

    answer      what to answer to a request; never raises
    on_load     called with each `Load` message, returns the reply's code and text
    io_dir      MMS's temp directory, where it expects the two files it reads a worker's output from
    on_replied  called when a reply has been written
    on_end      called when the connection is over
    """

    def __init__(
        self,
        stream: socket.socket,
        *,
        answer: Callable[[Request], Answer],
        on_load: Callable[[Connection, wire.Load], tuple[int, str]],
        io_dir: Path,
        max_frame_bytes: int,
        on_replied: Callable[[], None] = lambda: None,
        on_end: Callable[[], None] = lambda: None,
    ) -> None:
        self._stream = stream
        self._on_replied = on_replied
        self._on_end = on_end
        self._answer = answer
        self._on_load = on_load
        self._io_dir = io_dir
        self._reader = wire.FrameReader(max_frame_bytes)
        self._io_links: list[Path] = []
        self.is_busy = False  # between the first byte of a frame and the last of its reply
        self.n_served = 0
        self.is_loaded = False  # MMS has asked it to load, and counts it as a worker

    def serve(self) -> None:
        """Runs on the connection's thread; returns when the connection is over."""
        try:
            while self._receive():
                while (message := self._reader.next_message()) is not None:
                    self._stream.sendall(self._reply(message))
                    self.n_served += 1
                    self._on_replied()
                self.is_busy = not self._reader.is_between_frames
            if not self._reader.is_between_frames:
                log.warning("a connection ended in the middle of a frame")
        except wire.WireError as error:
            log.warning("closing a connection: %s", error)
        except OSError as error:
            log.info("a connection broke: %s", error)
        except Exception:
            log.exception("closing a connection after a fault of ours")
        finally:
            self.is_busy = False
            self._stream.close()
            for link in self._io_links:
                link.unlink(missing_ok=True)
            self._on_end()

    def close(self) -> None:
        """End the connection from another thread: its `serve` returns after the reply it may be working on."""
        with contextlib.suppress(OSError):  # the peer was faster
            self._stream.shutdown(socket.SHUT_RDWR)

    def _receive(self) -> bool:
        wanted = self._reader.wanted
        size = RECEIVE_BYTES if wanted <= RECEIVE_BYTES else min(wanted, LARGE_RECEIVE_BYTES)
        data = self._stream.recv(size)
        self.is_busy = True
        if data:
            self._reader.feed(data)
        return bool(data)

    def _reply(self, message: wire.Message) -> bytes:
        if isinstance(message, wire.Predict):
            return wire.predict_reply([self._answer_one(request) for request in message.requests])
        self._make_io_links(message.io_name)
        code, text = self._on_load(self, message)
        return wire.load_reply(code, text, os.getpid())

    def _answer_one(self, request: wire.Request) -> wire.Answer:
        answer = self._answer(Request(request.headers, _body(request), request.request_id.decode(errors="replace")))
        return wire.Answer(
            request.request_id,
            answer.status,
            _REASONS.get(answer.status, ""),
            answer.content_type,
            answer.headers,
            answer.body,
        )

    def _make_io_links(self, name: str) -> None:
        """MMS opens <tmp>/<name>-stdout and -stderr after a load and reads them to their end: links to /dev/null."""
        if not _IO_NAME.fullmatch(name):
            raise wire.WireError(f"io name {name!r} is none of MMS's")
        for stream in ("stdout", "stderr"):
            link = self._io_dir / f"{name}-{stream}"
            with contextlib.suppress(FileExistsError):
                link.symlink_to("/dev/null")
            self._io_links.append(link)


def _body(request: wire.Request) -> bytes:
    """The HTTP body. MMS also passes query parameters as inputs, before it."""
    for one in reversed(request.inputs):
        if one.name == "body":
            return one.value
    return b""
