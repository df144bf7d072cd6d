"""Where MMS waits for us: the door's questions, or lines of the stock server's log that are calls.

The door (launch/plugin/Gate.java) asks what it wants to know. Its lines name a port, and say

    why         why the last load there was refused: answered with the error's type and, on the next line, its text
    closing     the port's connections are about to be closed for good
    unloaded    wait until the memory of what was loaded there is back

The stock server has nothing to ask with. It answers `DELETE /models/x` when the stub is dead, whether or not the memory is
back; it answers a failed load before it has forgotten the model; and it breaks off a load that meets an unload with a 500.
But it logs at the right moments, and log4j's HTTP appender waits for a response on the very thread that logs. launch/mms.py
sends three kinds of lines here; the response is sent when MMS may go on.

    WorkerThread  "W-9003-x State change ... -> WORKER_SCALED_DOWN"   it is about to close the connections of port 9003:
                                                                      wait until no load is under way there
    ModelManager  "Model x unregistered."                             it is about to answer DELETE: wait for the memory
    ACCESS_LOG    "... POST /models ..." 422 ...                      it is about to tell a caller that a load failed, on the
                                                                      thread named W-9003-x: first have it forget x

The gates are also the only proxy of Java's HTTP client, so a model url on another machine arrives here, as GET or CONNECT,
and is refused.

Rule: a gate opens when it does not understand, and MMS goes on by itself when nobody answers.
"""

from __future__ import annotations

import logging
import re
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol

log = logging.getLogger(__name__)

MAX_LINE_BYTES = 64 * 1024
_NUMBER = re.compile(r"[0-9]{1,9}")
_PORT = re.compile(r"W-(\d+)-")
# A worker that has loaded, or a stub's own thread, which says so from its start; else a worker that is still connecting.
_LOADED = " State change WORKER_MODEL_LOADED -> "
_UNREGISTERED = re.compile(r"Model (.*) unregistered\.", re.DOTALL)


class Gatekeeper(Protocol):
    """What the gates wait for. Each returns when MMS may go on."""

    def before_close(self, port: int, *, is_connecting: bool) -> None: ...
    def before_unloaded(self, model_name: str) -> None: ...
    def before_load_failed(self, port: int) -> None: ...
    def why_refused(self, port: int) -> tuple[str, str] | None: ...
    def closing(self, port: int) -> None: ...
    def until_unloaded(self, port: int) -> None: ...


def wait_at_gate(line: str, keeper: Gatekeeper) -> str:
    """Wait for what a line asks for, and return the answer, which only the door reads.

    line   logger|thread|message of MMS's log, or Door|port|what
    """
    logger, _, rest = line.partition("|")
    thread, _, message = rest.partition("|")
    if logger == "WorkerThread" and (port := _PORT.match(message)):
        keeper.before_close(int(port[1]), is_connecting=_LOADED not in message)
    elif logger == "ModelManager" and (name := _UNREGISTERED.fullmatch(message)):
        keeper.before_unloaded(name[1])
    elif logger == "ACCESS_LOG" and (port := _PORT.match(thread)):
        keeper.before_load_failed(int(port[1]))
    elif logger == "Door" and _NUMBER.fullmatch(thread):
        return _answer_door(int(thread), message, keeper)
    return ""


def _answer_door(port: int, what: str, keeper: Gatekeeper) -> str:
    if what == "why" and (reason := keeper.why_refused(port)) is not None:
        return "\n".join(reason)
    if what == "closing":
        keeper.closing(port)
    elif what == "unloaded":
        keeper.until_unloaded(port)
    return ""


class Gates:
    """Serves the listener on threads of its own until `close`."""

    def __init__(self, listener: socket.socket, keeper: Gatekeeper) -> None:
        listener.setblocking(True)
        self._server = _Server(listener, keeper)
        self._thread = threading.Thread(target=self._server.serve_forever, name="gates", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, listener: socket.socket, keeper: Gatekeeper) -> None:
        super().__init__(listener.getsockname(), _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self.keeper = keeper

    def handle_error(self, *_: Any) -> None:
        log.debug("a call at a gate ended early", exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # log4j keeps its connections
    disable_nagle_algorithm = True
    server: _Server

    def do_POST(self) -> None:
        n_bytes = int(self.headers.get("Content-Length", 0))
        if n_bytes > MAX_LINE_BYTES:
            self._answer(413)
            return
        line = self.rfile.read(n_bytes).decode(errors="replace")
        answer = ""
        try:
            answer = wait_at_gate(line, self.server.keeper)
        except Exception:
            log.exception("a gate failed to wait for %r", line)
        self._answer(200, answer.encode(errors="replace"))

    def do_GET(self) -> None:
        log.warning("refused to fetch a model from %s: models are paths on this machine", self.path)
        self._answer(403)

    do_CONNECT = do_GET  # noqa: N815  http.server finds methods by this name

    def _answer(self, status: int, body: bytes = b"") -> None:
        self.send_response_only(status)
        self.send_header("Content-Length", str(len(body)))
        if status != 200:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Calls at the gates are no news."""
