"""The runtime's side of the lane: small warm requests, answered on the main thread, many of them in a turn.

MMS hands a request from thread to thread five times, and each wakes another; that is two thirds of the processor time of a
warm call. So the front end sends what looks small straight here, over one connection for each of its event loops. What
`answer_at_once` does not answer goes back with those words and comes again by MMS's way, where waits, queues and hooks are.

Rule: nothing here waits. A lane that does not take its replies is not read until it does, and a turn is short, however much
has come: the other lanes and MMS's own connections are served in between.
"""

from __future__ import annotations

import contextlib
import logging
import select
import socket
from collections.abc import Callable

from container.link import lane as codec
from container.link.wire import WireError
from handler.messages import Answer, Request

log = logging.getLogger(__name__)

RECEIVE_BYTES = 64 * 1024
# Of one lane, before the others' turn: about a millisecond.
FRAMES_IN_A_TURN = 64


class Lane:
    """One connection of an event loop's.

    answer   the answer to a request, if it takes next to nothing; never raises
    take_note   likewise
    """

    def __init__(
        self,
        stream: socket.socket,
        answer: Callable[[Request], Answer | None],
        take_note: Callable[[codec.Note], None] = lambda _: None,
    ) -> None:
        self._stream = stream
        self._answer = answer
        self._take_note = take_note
        self._here = b""  # read, from where the first frame begins that is not answered
        self._unsent: bytes | memoryview = b""
        self.n_served = 0
        self.has_more = False  # whole frames are here that this turn was too short for

    def fileno(self) -> int:
        return self._stream.fileno()

    @property
    def is_stuck(self) -> bool:
        """Whether replies are left that the other side does not take."""
        return bool(self._unsent)

    @property
    def is_busy(self) -> bool:
        return bool(self._unsent) or bool(self._here) or _has_input(self._stream)

    def turn(self) -> bool:
        """Read once, answer what is whole, send once. False when the lane is over. Raises OSError, WireError."""
        if self._unsent and not self._send(self._unsent):
            return True
        if not self.has_more:
            try:
                data = self._stream.recv(RECEIVE_BYTES, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return True
            if not data:
                return False
            self._here = self._here + data if self._here else data
        replies = self._answer_whole_frames()
        if replies:
            self._send(replies[0] if len(replies) == 1 else b"".join(replies))
        return True

    def _answer_whole_frames(self) -> list[bytes]:
        data, at, answer = self._here, 0, self._answer
        replies: list[bytes] = []
        self.has_more = False
        while (found := codec.parse(data, at)) is not None:
            if len(replies) == FRAMES_IN_A_TURN:
                self.has_more = True
                break
            request, at = found
            if isinstance(request, codec.Note):
                self._take_note(request)
            else:
                replies.append(codec.reply(answer(request)))
        self._here = data[at:]
        self.n_served += len(replies)
        return replies

    def _send(self, data: bytes | memoryview) -> bool:
        try:
            sent = self._stream.send(data, socket.MSG_DONTWAIT)
        except BlockingIOError:
            sent = 0
        self._unsent = b"" if sent == len(data) else memoryview(data)[sent:]
        return not self._unsent

    def close(self) -> None:
        self._stream.close()


class Lanes:
    """All lanes, on the main thread's epoll.

    listener        the supervisor's, where event loops connect
    watch           has a descriptor's handler called when there is something to read
    forget          ends that, before the descriptor is closed
    epoll           where they are watched
    max_body_bytes  of a request that is worth sending here
    """

    def __init__(
        self,
        listener: socket.socket,
        answer: Callable[[Request], Answer | None],
        *,
        take_note: Callable[[codec.Note], None] = lambda _: None,
        watch: Callable[[int, Callable[[], bool]], None],
        forget: Callable[[int], None],
        epoll: select.epoll,
        max_body_bytes: int,
    ) -> None:
        self._listener = listener
        self._answer = answer
        self._take_note = take_note
        self._watch = watch
        self._forget = forget
        self._epoll = epoll
        self._greeting = codec.greeting(max_body_bytes)
        self._lanes: dict[Lane, int] = {}  # and the events each is watched for
        self._n_served_before = 0
        listener.setblocking(False)
        watch(listener.fileno(), self._on_connect)

    @property
    def n_served(self) -> int:
        return self._n_served_before + sum(lane.n_served for lane in self._lanes)

    @property
    def is_busy(self) -> bool:
        return any(lane.is_busy for lane in self._lanes)

    @property
    def has_more(self) -> bool:
        """Whether there is work that epoll knows nothing of."""
        return any(lane.has_more and not lane.is_stuck for lane in self._lanes)

    def go_on(self) -> None:
        """A turn for each lane that has more."""
        for lane in [lane for lane in self._lanes if lane.has_more and not lane.is_stuck]:
            self._turn(lane)

    def _on_connect(self) -> bool:
        with contextlib.suppress(BlockingIOError, ConnectionAbortedError):
            stream, _ = self._listener.accept()
            lane = Lane(stream, self._answer, self._take_note)
            self._lanes[lane] = select.EPOLLIN
            self._watch(lane.fileno(), lambda: self._turn(lane))
            with contextlib.suppress(OSError):  # its end will be seen
                stream.send(self._greeting, socket.MSG_DONTWAIT)
        return True

    def _turn(self, lane: Lane) -> bool:
        """Always true: the end of a lane is not the runtime's."""
        goes_on = False
        try:
            goes_on = lane.turn()
        except (OSError, WireError) as error:
            log.info("a lane of the front end's broke: %s", error)
        if not goes_on:
            self._end(lane)
        else:
            events = select.EPOLLOUT if lane.is_stuck else select.EPOLLIN
            if events != self._lanes[lane]:
                self._lanes[lane] = events
                self._epoll.modify(lane.fileno(), events)
        return True

    def _end(self, lane: Lane) -> None:
        self._n_served_before += lane.n_served
        del self._lanes[lane]
        self._forget(lane.fileno())
        lane.close()

    def close(self) -> None:
        self._listener.close()
        for lane in self._lanes:
            lane.close()


def _has_input(stream: socket.socket) -> bool:
    poll = select.poll()
    poll.register(stream, select.POLLIN)
    return bool(poll.poll(0))
