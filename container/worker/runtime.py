"""The runtime's sockets and threads: it listens where the supervisor says and serves every connection on a thread.

Rule: the main thread owns the listening sockets and the table of connections; a connection's thread owns its socket.
"""

from __future__ import annotations

import contextlib
import logging
import selectors
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from container.channel import Channel
from container.worker import wire
from container.worker.connection import Connection
from handler.messages import Answer, Request

log = logging.getLogger(__name__)

# MMS passes a request on the moment a worker is free, so after this long without any there is none in its queue either.
QUIET_S = 0.25
LOOK_S = 0.02


class Runtime:
    """Serves until its channel to the supervisor ends.

    answer   what to answer to a request; never raises
    """

    def __init__(
        self,
        channel: Channel,
        *,
        answer: Callable[[Request], Answer],
        io_dir: Path,
        max_frame_bytes: int,
    ) -> None:
        self._channel = channel
        self._answer = answer
        self._io_dir = io_dir
        self._max_frame_bytes = max_frame_bytes
        self._selector = selectors.DefaultSelector()
        self._listeners: dict[str, socket.socket] = {}
        self._lock = threading.Lock()  # guards the two lines below
        self._connections: dict[Connection, threading.Thread] = {}
        self._n_loaded = 0
        self._quiet_since: float | None = None
        self._served_before = 0
        self._is_draining = False

    def serve(self) -> None:
        """Runs on the main thread."""
        self._selector.register(self._channel, selectors.EVENT_READ, self._on_note)
        self._channel.send("started")
        try:
            while True:
                for key, _ in self._selector.select(LOOK_S if self._is_draining else None):
                    if not key.data(key.fileobj):
                        return
                if self._is_draining:
                    self._look_whether_drained()
        finally:
            self._close()

    def reasons_not_ready(self) -> list[str]:
        """Why requests should go elsewhere just now; empty when they should not."""
        reasons = []
        if self._is_draining:
            reasons.append("stopping: answering only what is in flight")
        if not self._n_loaded:
            reasons.append("MMS has not connected a worker yet")
        return reasons

    def _on_note(self, _: Any) -> bool:
        note = self._channel.receive()
        if note is None:
            return False
        if note.what == "listen":
            listener = socket.socket(fileno=note.descriptors[0])
            listener.setblocking(False)
            self._listeners[note.value] = listener
            self._selector.register(listener, selectors.EVENT_READ, self._on_connect)
        elif note.what == "unlisten":
            listener = self._listeners.pop(note.value)
            self._selector.unregister(listener)
            listener.close()
        elif note.what == "drain":
            self._is_draining = True
        return True

    def _on_connect(self, listener: socket.socket) -> bool:
        with contextlib.suppress(BlockingIOError, ConnectionAbortedError):
            stream, _ = listener.accept()
            stream.setblocking(True)
            connection = Connection(
                stream,
                answer=self._answer,
                on_load=self._on_load,
                io_dir=self._io_dir,
                max_frame_bytes=self._max_frame_bytes,
            )
            thread = threading.Thread(target=self._run, args=[connection], name="connection", daemon=True)
            with self._lock:
                self._connections[connection] = thread
            thread.start()
        return True

    def _run(self, connection: Connection) -> None:
        try:
            connection.serve()
        finally:
            with self._lock:
                del self._connections[connection]
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
        now = time.monotonic()
        if served != self._served_before or any(connection.is_busy for connection in connections):
            self._served_before = served
            self._quiet_since = None
        elif self._quiet_since is None:
            self._quiet_since = now
        elif now - self._quiet_since >= QUIET_S:
            self._channel.send("drained")

    def _close(self) -> None:
        """Stop listening, let each connection finish its reply, and wait for their threads."""
        for listener in self._listeners.values():
            listener.close()
        with self._lock:
            connections = dict(self._connections)
        for connection in connections:
            connection.close()
        for thread in connections.values():
            thread.join(timeout=1.0)
        self._selector.close()
