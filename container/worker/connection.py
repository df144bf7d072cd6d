"""One connection of MMS's to the runtime: frames in, answers out.

Rule: what comes over a connection can end that connection and nothing else.
"""

from __future__ import annotations

import contextlib
import http
import logging
import mmap
import os
import re
import socket
from collections.abc import Callable
from enum import Enum, auto
from functools import partial
from pathlib import Path

from container.link import wire
from container.link.held import ANSWERING, BEGINNING, IDLE, IN_DOUBT
from container.link.spool import ANSWER, BODY, LARGE_BYTES, BodyLost, Spool
from handler.messages import Answer, Request

log = logging.getLogger(__name__)

CALL_NUMBER = "x-mme-call"  # as launch/plugin/Call.java writes it
RECEIVE_BYTES = 64 * 1024  # a one-row request is one read; a large body is read in the steps below
LARGE_RECEIVE_BYTES = 1 << 20
SMALL_RECEIVE_BYTES = 8 * 1024  # a frame that may be answered at once
# MMS names a channel by Netty's long id: hexadecimal and dashes. The name becomes part of a path.
_IO_NAME = re.compile(r"[0-9a-f-]{1,128}")
_REASONS = {status.value: status.phrase for status in http.HTTPStatus}


class Progress(Enum):
    """How far `Connection.try_at_once` came."""

    DONE = auto()  # nothing is left to do
    UNFINISHED = auto()  # `finish` has to be called
    OVER = auto()  # the connection has ended and is closed


class Connection:
    """Serves one accepted socket until its peer closes it, breaks the protocol, or `close` is called.

    answer      what to answer to a request; never raises
    on_load     called with each `Load` message, returns the reply's code and text
    io_dir      MMS's temp directory, where it expects the two files it reads a worker's output from
    on_replied  called when a reply has been written
    on_closing  called when the connection is over, while its descriptor is still its own
    on_end      called when it is closed
    has_gone    whether the caller of the call of that number has hung up
    spool       where large bodies and answers are; None where the front end knows of no files
    page, slot  where it says what it is doing, in case this process dies; see container/link/held.py
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
        on_closing: Callable[[int], None] = lambda _: None,
        on_end: Callable[[], None] = lambda: None,
        has_gone: Callable[[str], bool] = lambda _: False,
        spool: Spool | None = None,
        page: bytearray | mmap.mmap | None = None,
        slot: int = 0,
    ) -> None:
        self.is_held = page is not None
        self._page = bytearray(1) if page is None else page
        self.slot = slot
        self._stream = stream
        self._on_replied = on_replied
        self._on_closing = on_closing
        self._on_end = on_end
        self._has_gone = has_gone
        self._spool = spool
        self._answer = answer
        self._on_load = on_load
        self._io_dir = io_dir
        self._reader = wire.FrameReader(max_frame_bytes)
        self._io_links: list[Path] = []
        self.is_busy = False  # between the first byte of a frame and the last of its reply
        self.n_served = 0
        self._unanswered: wire.Message | None = None  # read, and left for another thread
        self._unsent = b""
        self.is_loaded = False  # MMS has asked it to load, and counts it as a worker
        self._page[slot] = IN_DOUBT

    def fileno(self) -> int:
        return self._stream.fileno()

    def serve(self) -> None:
        """Serve on a thread of its own; returns when the connection is over."""
        while self.step():
            pass

    def step(self) -> bool:
        """Wait for the next frame and answer what has come; False when the connection is over, and closed."""
        return self._guarded(self._step)

    def try_at_once(self, answer_at_once: Callable[[Request], Answer | None]) -> Progress:
        """Take what has arrived and answer it if `answer_at_once` does, without waiting for anybody. For the thread that
        watches all connections; what it leaves unfinished, `finish` ends on another."""
        progress = Progress.OVER

        def attempt() -> bool:
            nonlocal progress
            progress = self._try_at_once(answer_at_once)
            return progress is not Progress.OVER

        self._guarded(attempt)
        return progress

    def finish(self) -> bool:
        """Answer what `try_at_once` has left, waiting as long as it takes; False when the connection is over."""
        return self._guarded(self._finish)

    def _guarded(self, work: Callable[[], bool]) -> bool:
        """Run a piece of serving; whatever goes wrong in it ends this connection and nothing else."""
        goes_on = False
        try:
            goes_on = work()
            if not goes_on and not self._reader.is_between_frames:
                log.warning("a connection ended in the middle of a frame")
        except wire.WireError as error:
            log.warning("closing a connection: %s", error)
        except OSError as error:
            log.info("a connection broke: %s", error)
        except Exception:
            log.exception("closing a connection after a fault of ours")
        finally:
            if not goes_on:
                self._end()
        return goes_on

    def _end(self) -> None:
        self.is_busy = False
        self._on_closing(self._stream.fileno())
        with contextlib.suppress(OSError):  # the peer was faster
            self._stream.shutdown(socket.SHUT_RDWR)  # closing would not end it: the supervisor has the same socket open
        self._stream.close()
        for link in self._io_links:
            link.unlink(missing_ok=True)
        self._on_end()

    def _step(self) -> bool:
        if not self._receive():
            return False
        self._answer_all()
        return True

    def _answer_all(self) -> None:
        """Answer every whole message that is here."""
        while (message := self._unanswered or self._reader.next_message()) is not None:
            self._unanswered = None
            self._mark_read(message)
            reply = self._reply(message)
            self._page[self.slot] = IN_DOUBT
            self._stream.sendall(reply)
            self._mark_replied()
            self._replied()
        self.is_busy = not self._reader.is_between_frames

    def _mark_read(self, message: wire.Message) -> None:
        is_lone_request = isinstance(message, wire.Predict) and self._reader.is_between_frames
        self._page[self.slot] = ANSWERING if is_lone_request else IN_DOUBT

    def _mark_replied(self) -> None:
        self._page[self.slot] = IDLE if self.is_loaded and self._reader.is_between_frames else IN_DOUBT

    def _replied(self) -> None:
        self.n_served += 1
        self._on_replied()

    def _finish(self) -> bool:
        if self._unsent:
            self._stream.sendall(self._unsent)
            self._unsent = b""
            self._mark_replied()
        self._answer_all()
        while not self._reader.is_between_frames:
            if not self._step():
                return False
        return True

    def _try_at_once(self, answer_at_once: Callable[[Request], Answer | None]) -> Progress:
        page, slot = self._page, self.slot
        before = page[slot]
        page[slot] = BEGINNING if before == IDLE else IN_DOUBT
        try:
            data = self._stream.recv(SMALL_RECEIVE_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            page[slot] = before
            return Progress.DONE
        if not data:
            return Progress.OVER
        self.is_busy = True
        self._reader.feed(data)
        message = self._reader.next_message()
        if not isinstance(message, wire.Predict) or len(message.requests) != 1:
            page[slot] = IN_DOUBT
            self._unanswered = message
            return Progress.UNFINISHED
        self._mark_read(message)
        call = message.requests[0]
        # A body in a file is large, and may take its time.
        answer = None if BODY in call.headers else answer_at_once(self._as_request(call))
        if answer is None:
            self._unanswered = message
            return Progress.UNFINISHED
        reply = wire.predict_reply([_as_reply(call, answer)])
        page[slot] = IN_DOUBT
        try:
            sent = self._stream.send(reply, socket.MSG_DONTWAIT)
        except BlockingIOError:
            sent = 0
        self._replied()
        if sent < len(reply):
            self._unsent = reply[sent:]
            return Progress.UNFINISHED
        self._mark_replied()
        self.is_busy = not self._reader.is_between_frames
        return Progress.UNFINISHED if self.is_busy else Progress.DONE

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
            return wire.predict_reply([self._answer_one(call) for call in message.requests])
        self._make_io_links(message.io_name)
        code, text = self._on_load(self, message)
        return wire.load_reply(code, text, os.getpid())

    def _answer_one(self, call: wire.Call) -> wire.Reply:
        number = call.headers.get(CALL_NUMBER, "")
        try:
            answer = self._answer(self._as_request(call))
        except BodyLost as error:
            log.warning("a body is lost, its caller gone or its file removed: %s", error)
            return _as_reply(call, _lost(number))
        return _as_reply(call, self._spooled(number, answer))

    def _as_request(self, call: wire.Call) -> Request:
        headers = call.headers.copy()
        number = headers.pop(CALL_NUMBER, "")
        length = headers.pop(BODY, None)
        body = _body(call) if length is None or self._spool is None else self._spool.take(number, length)
        request_id = call.request_id.decode(errors="replace")
        return Request(headers, body, request_id, partial(self._is_wanted, number))

    def _spooled(self, number: str, answer: Answer) -> Answer:
        """The answer, its body left in a file where it is large."""
        if self._spool is None or not number or len(answer.body) <= LARGE_BYTES:
            return answer
        if self._has_gone(number):
            return _lost(number)
        if not self._spool.put(number, answer.body):
            return answer
        return answer._replace(body=b"", headers=(*answer.headers, (ANSWER, f"{number} {len(answer.body)}")))

    def _is_wanted(self, number: str) -> bool:
        """Whether the caller is there still, as far as the front end has said, and the front end itself."""
        if self._has_gone(number):
            return False
        try:
            return bool(self._stream.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        except BlockingIOError:
            return True
        except OSError:
            return False

    def _make_io_links(self, name: str) -> None:
        """MMS opens <tmp>/<name>-stdout and -stderr after a load and reads them to their end: links to /dev/null."""
        if not _IO_NAME.fullmatch(name):
            raise wire.WireError(f"io name {name!r} is none of MMS's")
        for stream in ("stdout", "stderr"):
            link = self._io_dir / f"{name}-{stream}"
            with contextlib.suppress(FileExistsError):
                link.symlink_to("/dev/null")
            self._io_links.append(link)


def _lost(number: str) -> Answer:
    """For the front end, which finds no such file and has words for that."""
    return Answer(503, "text/plain", b"", ((ANSWER, f"{number} 0"),))


def _as_reply(call: wire.Call, answer: Answer) -> wire.Reply:
    return wire.Reply(
        call.request_id,
        answer.status,
        _REASONS.get(answer.status, ""),
        answer.content_type,
        answer.headers,
        answer.body,
    )


def _body(request: wire.Call) -> bytes:
    """The HTTP body. MMS also passes query parameters as inputs, before it."""
    for one in reversed(request.inputs):
        if one.name == "body":
            return one.value
    return b""
