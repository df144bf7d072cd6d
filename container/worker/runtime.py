"""The runtime's sockets and threads: it listens where the supervisor says and serves what connects.

Standalone, the main thread watches all connections. A small request for a model in memory it answers itself: handing one to
another thread costs more than answering it, and threads that compete for the interpreter more still (a thread for each of
16 connections took 2.5 times the processor time). Everything else, above all what has to wait for a load, goes to a pool.
Hosted, each connection has a thread, since it holds a model from its load to its end.

Rule: the main thread owns the listening sockets and the table of connections; a connection belongs to the main thread while
it is watched, and to one thread of the pool from when it is handed over until it is watched again.
"""

from __future__ import annotations

import contextlib
import logging
import select
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor
from functools import partial
from pathlib import Path

from container.link import wire
from container.link.channel import Channel
from container.link.held import FREE, IDLE, N_SLOTS, Board
from container.link.spool import Spool
from container.worker.connection import Connection, Progress
from container.worker.drain import Drain
from container.worker.hosted.gates import Gates
from container.worker.hosted.leases import Hosted, mms_port
from container.worker.lane import Lanes
from container.worker.notes import Notes
from handler.messages import Answer, Request

log = logging.getLogger(__name__)

LOOK_S = 0.02
# Every thread of the pool busy for so long, and none of them done in between: requests should go elsewhere.
FULL_S = 5.0


class Runtime:
    """Serves until its channel to the supervisor ends.

    answer           what to answer to a request, however long it takes; never raises
    answer_at_once   the same if it takes next to nothing, else None
    answer_on_lane   the same for what comes past MMS; None when nothing can be answered at once
    lane_body_bytes  of a request worth sending past MMS, at most
    pool             threads for what takes longer, one for each connection there may be; owned by the caller
    n_threads        how many these are
    spool            where large bodies and answers are; None where the front end knows of no files
    hosted           None in standalone mode; else each connection has its own model, and `answer` is asked nothing
    """

    def __init__(
        self,
        channel: Channel,
        *,
        answer: Callable[[Request], Answer],
        answer_at_once: Callable[[Request], Answer | None] = lambda _: None,
        notes: Notes,
        answer_on_lane: Callable[[Request], Answer | None] | None = None,
        lane_body_bytes: int = 0,
        pool: Executor | None = None,
        n_threads: int = 1,
        io_dir: Path,
        max_frame_bytes: int,
        spool: Spool | None = None,
        hosted: Hosted | None = None,
    ) -> None:
        self._channel = channel
        self._answer_at_once = answer_at_once
        self._notes = notes
        self._answer_on_lane = answer_on_lane
        self._lane_body_bytes = lane_body_bytes
        self._lanes: Lanes | None = None
        self._pool = pool
        self._n_threads = n_threads
        self._hosted = hosted
        self._gates: Gates | None = None
        self._answer = answer
        self._io_dir = io_dir
        self._max_frame_bytes = max_frame_bytes
        self._spool = spool
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[], bool]] = {}  # by descriptor; False ends the runtime
        self._listeners: dict[str, socket.socket] = {}
        self._lock = threading.Lock()  # guards the two lines below
        self._connections: dict[Connection, threading.Thread | None] = {}
        self._n_loaded = 0
        self._board: Board | None = None
        self._slots = list(range(N_SLOTS - 1, -1, -1))  # the free ones
        self._n_in_pool = 0  # guarded by the lock, as the line below
        self._full_since: float | None = None
        self._drain = Drain()

    def serve(self) -> None:
        """Runs on the main thread."""
        self._watch(self._channel.fileno(), self._on_note)
        self._channel.send("started")
        handlers = self._handlers
        try:
            while True:
                has_more = self._lanes is not None and self._lanes.has_more
                for descriptor, _ in self._epoll.poll(0 if has_more else LOOK_S if self._drain.has_begun else -1):
                    handler = handlers.get(descriptor)  # an earlier event of this round may have closed it
                    if handler is not None and not handler():
                        return
                if has_more and self._lanes is not None:
                    self._lanes.go_on()
                if self._drain.has_begun:
                    self._look_whether_drained()
        finally:
            self._close()

    def _watch(self, descriptor: int, handler: Callable[[], bool]) -> None:
        self._handlers[descriptor] = handler
        self._epoll.register(descriptor, select.EPOLLIN)

    def _unwatch(self, descriptor: int) -> None:
        """Hear no more of it, not even that its peer is gone. Closing would not do: the supervisor holds the socket too."""
        with contextlib.suppress(OSError, ValueError):  # it was not watched, or the runtime has ended
            self._epoll.unregister(descriptor)

    def reasons_not_ready(self) -> list[str]:
        """Why requests should go elsewhere just now; empty when they should not."""
        reasons = []
        if self._drain.has_begun:
            reasons.append("stopping: answering only what is in flight")
        if self._hosted is None and not self._n_loaded:  # hosted, an endpoint starts with nothing loaded
            reasons.append("MMS has not connected a worker yet")
        full_since = self._full_since
        if full_since is not None and time.monotonic() - full_since >= FULL_S:
            reasons.append(f"every worker has been busy for {time.monotonic() - full_since:.0f} s")
        return reasons

    def _on_note(self) -> bool:
        note = self._channel.receive()
        if note is None:
            return False
        if note.what == "listen":
            self._listen(note.value, socket.socket(fileno=note.descriptors[0]))
        elif note.what == "ended" and self._hosted is not None:
            self._hosted.ended(mms_port(note.value))
        elif note.what == "unlisten":
            listener = self._listeners.pop(note.value)
            del self._handlers[listener.fileno()]
            self._epoll.unregister(listener)  # closing would not do it: the supervisor has the same socket open
            listener.close()
            if self._hosted is not None:
                self._hosted.closed(mms_port(note.value))
        elif note.what == "gates" and self._hosted is not None:
            self._gates = Gates(socket.socket(fileno=note.descriptors[0]), self._hosted)
        elif note.what == "lane":
            self._open_lanes(socket.socket(fileno=note.descriptors[0]))
        elif note.what == "board":
            self._board = Board(note.descriptors[0])
        elif note.what == "adopt":
            self._adopt(note.value, socket.socket(fileno=note.descriptors[0]))
        elif note.what == "drain":
            self._drain.begin()
        return True

    def _open_lanes(self, listener: socket.socket) -> None:
        """Where nothing is answered at once they are for notes alone."""
        self._lanes = Lanes(
            listener,
            self._answer_on_lane or (lambda _: None),
            take_note=self._notes.take,
            watch=self._watch,
            forget=self._forget_descriptor,
            epoll=self._epoll,
            max_body_bytes=self._lane_body_bytes if self._answer_on_lane else 0,
        )

    def _forget_descriptor(self, descriptor: int) -> None:
        del self._handlers[descriptor]
        self._unwatch(descriptor)

    def _listen(self, name: str, listener: socket.socket) -> None:
        listener.setblocking(False)
        self._listeners[name] = listener
        if self._hosted is not None:
            self._hosted.opened(mms_port(name))
        self._watch(listener.fileno(), partial(self._on_connect, name, listener))

    def _on_connect(self, name: str, listener: socket.socket) -> bool:
        with contextlib.suppress(BlockingIOError, ConnectionAbortedError):
            stream, _ = listener.accept()
            stream.setblocking(True)
            if self._hosted is None:
                self._serve_shared(stream)
            else:
                self._start_thread(self._leased(stream, name, self._hosted))
        return True

    def _serve_shared(self, stream: socket.socket) -> None:
        """Standalone: a connection that the supervisor holds too, where there is room on the board."""
        with self._lock:
            slot = self._slots.pop() if self._board is not None and self._slots else None
        if slot is None:
            self._watch_connection(self._shared(stream, None, 0))
            return
        self._watch_connection(self._shared(stream, self._board, slot))
        self._channel.send("connected", slot, [stream.fileno()])

    def _adopt(self, slot: int, stream: socket.socket) -> None:
        """Go on with a connection that another runtime has left."""
        assert self._board is not None
        with self._lock:
            self._slots.remove(slot)
            self._n_loaded += 1
        connection = self._shared(stream, self._board, slot)
        connection.is_loaded = True
        self._board.page[slot] = IDLE
        self._watch_connection(connection)
        self._channel.send("workers", self._n_loaded)

    def _watch_connection(self, connection: Connection) -> None:
        with self._lock:
            self._connections[connection] = None
        self._watch(connection.fileno(), partial(self._on_readable, connection, connection.fileno()))

    def _on_readable(self, connection: Connection, descriptor: int) -> bool:
        progress = connection.try_at_once(self._answer_at_once)
        if progress is Progress.OVER:
            self._forget(connection, descriptor)
        elif progress is Progress.UNFINISHED:
            assert self._pool is not None
            self._unwatch(descriptor)  # the pool's until it is watched again
            self._count_in_pool(1)
            self._pool.submit(self._finish, connection, descriptor)
        return True

    def _count_in_pool(self, change: int) -> None:
        with self._lock:
            self._n_in_pool += change
            is_full = self._n_in_pool >= self._n_threads
            self._full_since = time.monotonic() if is_full else None

    def _finish(self, connection: Connection, descriptor: int) -> None:
        """Runs on a thread of the pool."""
        goes_on = connection.finish()
        self._count_in_pool(-1)
        if goes_on:
            with contextlib.suppress(OSError, ValueError):  # the runtime has ended, and the epoll with it
                self._epoll.register(descriptor, select.EPOLLIN)
        else:
            self._forget(connection, descriptor)

    def _forget(self, connection: Connection, descriptor: int) -> None:
        """A connection is over and closed. Its descriptor may be another's by now, whose handler is not to be removed."""
        handler = self._handlers.get(descriptor)
        if isinstance(handler, partial) and handler.args[:1] == (connection,):
            del self._handlers[descriptor]
        self._leave(connection)

    def _start_thread(self, connection: Connection) -> None:
        thread = threading.Thread(target=self._run, args=[connection], name="connection", daemon=True)
        with self._lock:
            self._connections[connection] = thread
        thread.start()

    def _shared(self, stream: socket.socket, board: Board | None, slot: int) -> Connection:
        """Standalone: all connections serve all models."""
        return Connection(
            stream,
            answer=self._answer,
            on_load=self._on_load,
            io_dir=self._io_dir,
            max_frame_bytes=self._max_frame_bytes,
            on_closing=self._unwatch,
            has_gone=self._notes.has_gone,
            spool=self._spool,
            page=None if board is None else board.page,
            slot=slot,
        )

    def _leased(self, stream: socket.socket, name: str, hosted: Hosted) -> Connection:
        """Hosted: a connection serves the model it has loaded."""
        lease = hosted.connected(mms_port(name), partial(_hang_up, stream))
        return Connection(
            stream,
            answer=lease.answer,
            on_load=lambda _, load: lease.load(load),
            io_dir=self._io_dir,
            max_frame_bytes=self._max_frame_bytes,
            on_replied=lease.replied,
            on_end=lease.leave,
            has_gone=self._notes.has_gone,
            spool=self._spool,
        )

    def _run(self, connection: Connection) -> None:
        try:
            connection.serve()
        finally:
            self._leave(connection)

    def _leave(self, connection: Connection) -> None:
        with self._lock:
            del self._connections[connection]
            if connection.is_held and self._board is not None:
                self._board.page[connection.slot] = FREE
                self._slots.append(connection.slot)
            if connection.is_loaded:
                self._n_loaded -= 1
            self._channel.send("workers", self._n_loaded)

    def _on_load(self, connection: Connection, load: wire.Load) -> tuple[int, str]:
        if not connection.is_loaded:
            connection.is_loaded = True
            with self._lock:
                self._n_loaded += 1
                self._channel.send("workers", self._n_loaded)
        return 200, f"{load.model_name} is served by the runtime"

    def _look_whether_drained(self) -> None:
        with self._lock:
            connections = list(self._connections)
        served = sum(connection.n_served for connection in connections)
        is_busy = any(connection.is_busy for connection in connections)
        if self._lanes is not None:
            served += self._lanes.n_served
            is_busy = is_busy or self._lanes.is_busy
        if self._drain.is_done(served, is_busy=is_busy):
            self._channel.send("drained")

    def _close(self) -> None:
        """Stop listening, let each connection finish its reply, and wait for their threads."""
        if self._gates is not None:
            self._gates.close()
        if self._lanes is not None:
            self._lanes.close()
        for listener in self._listeners.values():
            listener.close()
        with self._lock:
            connections = dict(self._connections)
        for connection in connections:
            connection.close()
        for thread in connections.values():
            if thread is not None:
                thread.join(timeout=1.0)
        self._epoll.close()


def _hang_up(stream: socket.socket) -> None:
    with contextlib.suppress(OSError):  # the peer was faster
        stream.shutdown(socket.SHUT_RDWR)
