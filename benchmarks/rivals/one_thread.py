"""A trial, not shipped: one thread of the runtime answers every warm request, others only what has to wait.

Importing this changes the runtime of the process: connections are watched by one epoll. A request whose model is in memory
is answered by the thread that read it, so threads do not take the interpreter from each other; any other goes to a pool.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from container.worker import wire
from container.worker.connection import Connection
from container.worker.runtime import Runtime
from handler.dispatch import TARGET_HEADER

_pool = ThreadPoolExecutor(64)
_epoll = select.epoll()
_connections: dict[int, Connection] = {}


def _watch() -> None:
    while True:
        for descriptor, _ in _epoll.poll():
            connection = _connections[descriptor]
            try:
                if not connection._receive():
                    _forget(descriptor)
                    continue
                message = connection._reader.next_message()
                if message is None:
                    continue
                if _is_warm(connection, message):
                    connection._stream.sendall(connection._reply(message))
                else:
                    _epoll.modify(descriptor, 0)
                    _pool.submit(_answer_later, descriptor, message)
            except (OSError, wire.WireError):
                _forget(descriptor)


def _is_warm(connection: Connection, message: wire.Message) -> bool:
    cache: Any = connection._answer.__self__._cache  # type: ignore[attr-defined]  # the dispatcher's
    return isinstance(message, wire.Predict) and all(
        request.headers.get(TARGET_HEADER) in cache for request in message.requests
    )


def _answer_later(descriptor: int, message: wire.Message) -> None:
    connection = _connections[descriptor]
    with contextlib.suppress(OSError):
        connection._stream.sendall(connection._reply(message))
        _epoll.modify(descriptor, select.EPOLLIN)


def _forget(descriptor: int) -> None:
    _epoll.unregister(descriptor)
    _connections.pop(descriptor)._stream.close()


def _on_connect(self: Runtime, _: str, listener: socket.socket) -> bool:
    with contextlib.suppress(BlockingIOError):
        stream, _ = listener.accept()
        stream.setblocking(True)
        connection = self._shared(stream)
        _connections[stream.fileno()] = connection
        _epoll.register(stream.fileno(), select.EPOLLIN)
    return True


Runtime._on_connect = _on_connect  # type: ignore[method-assign,assignment]
threading.Thread(target=_watch, daemon=True).start()
