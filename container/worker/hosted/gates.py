"""Where the door of hosted mode's server (launch/plugin/Gate.java) asks what only the runtime knows, and waits.

A connection brings one question, `Door|9003|why` with the port of a model, and its end; back comes the answer, and the end:

    why         why the last load there was refused: answered with the error's type and, on the next line, its text
    unloaded    answered when the memory of what was loaded there is back

Rule: a gate opens when it does not understand, and the door goes on by itself when nobody answers.
"""

from __future__ import annotations

import logging
import re
import socket
import threading
from socketserver import StreamRequestHandler, ThreadingMixIn, UnixStreamServer
from typing import Any, Protocol

log = logging.getLogger(__name__)

MAX_LINE_BYTES = 1024
_QUESTION = re.compile(r"Door\|([0-9]{1,9})\|([a-z]+)")


class Gatekeeper(Protocol):
    """What is waited for. Each returns when the door may go on."""

    def why_refused(self, port: int) -> tuple[str, str] | None: ...
    def until_unloaded(self, port: int) -> None: ...


def wait_at_gate(line: str, keeper: Gatekeeper) -> str:
    """Wait for what a line asks for, and return the answer."""
    question = _QUESTION.fullmatch(line)
    if question is None:
        return ""
    port, what = int(question[1]), question[2]
    if what == "why" and (reason := keeper.why_refused(port)) is not None:
        return "\n".join(reason)
    if what == "unloaded":
        keeper.until_unloaded(port)
    return ""


class Gates:
    """Serves the listener, a unix socket's, on threads of its own until `close`."""

    def __init__(self, listener: socket.socket, keeper: Gatekeeper) -> None:
        listener.setblocking(True)
        self._server = _Server(listener, keeper)
        self._thread = threading.Thread(target=self._server.serve_forever, name="gates", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingMixIn, UnixStreamServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, listener: socket.socket, keeper: Gatekeeper) -> None:
        super().__init__(listener.getsockname(), _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self.keeper = keeper

    def handle_error(self, *_: Any) -> None:
        log.debug("a call at a gate ended early", exc_info=True)


class _Handler(StreamRequestHandler):
    server: _Server
    timeout = 10.0  # for the question to arrive

    def handle(self) -> None:
        line = self.rfile.read(MAX_LINE_BYTES + 1)
        if len(line) > MAX_LINE_BYTES:
            return
        answer = ""
        try:
            answer = wait_at_gate(line.decode(errors="replace"), self.server.keeper)
        except Exception:
            log.exception("a gate failed to wait for %r", line)
        self.wfile.write(answer.encode(errors="replace"))
