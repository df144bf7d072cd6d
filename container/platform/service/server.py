"""One port on which all of the platform listens.

Rule: a request is read whole, within a limit, before anyone looks at it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from container.platform.service.call import Request, Response, Streamed

log = logging.getLogger(__name__)

MAX_BODY_BYTES = 5 * 1024**3  # S3's limit for one request
MAX_CHUNK_LINE = 1024


class BodyRefused(Exception):
    """The body cannot be read; the connection ends."""


class Server(ThreadingHTTPServer):
    """Listens on host:port from the start, 0 being any; answers from `serve` on, a thread for each connection.

    answer   what is said to each request
    pages    the same for GET of certain paths, which no service has: for people
    """

    daemon_threads = True
    request_queue_size = 512

    def __init__(self, host: str, port: int, answer: Callable[[Request], Response]) -> None:
        super().__init__((host, port), _Handler)
        self.answer = answer
        self.pages: dict[str, Callable[[Request], Response]] = {}
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        host, port = self.server_address[:2]
        return f"http://{host!s}:{port}"

    @property
    def origins(self) -> tuple[str, str]:
        """Whose pages may ask. A page from anywhere else in somebody's browser could have models' code run here."""
        return self.url, f"http://localhost:{self.server_address[1]}"

    def serve(self) -> None:
        self._thread = threading.Thread(
            target=self.serve_forever, kwargs={"poll_interval": 0.05}, name="address", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        if self._thread is not None:
            self.shutdown()
            self._thread.join()
        self.server_close()

    def handle_error(self, *_: Any) -> None:
        log.debug("a connection broke", exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # head and body in one write
    server: Server

    def handle_expect_100(self) -> bool:
        """At once: boto3 waits a second for it before each PutObject."""
        super().handle_expect_100()
        self.wfile.flush()
        return True

    def _any(self) -> None:
        try:
            body = self._body()
        except BodyRefused as error:
            self.close_connection = True
            self._send(Response(400, (), str(error).encode()))
            return
        headers = {name.lower(): value for name, value in self.headers.items()}
        if headers.get("origin", self.server.url) not in self.server.origins:
            self._send(Response(403, (), b"this address is not for pages of other sites"))
            return
        request = Request(self.command, self.path, headers, body)
        page = self.server.pages.get(request.bare_path) if self.command == "GET" else None
        self._send((page or self.server.answer)(request))

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = _any  # noqa: N815

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            return b"".join(iter(self._chunk, b""))
        length = self.headers.get("Content-Length", "0")
        if not (length.isascii() and length.isdigit()) or int(length) > MAX_BODY_BYTES:
            raise BodyRefused(f"Content-Length {length!r}")
        body = self.rfile.read(int(length))
        if len(body) < int(length):  # whoever sent it is gone: half an object is none
            raise BodyRefused(f"{len(body)} bytes of {length}")
        return body

    def _chunk(self) -> bytes:
        """One chunk's bytes; none at the end, with the trailer read."""
        line = self.rfile.readline(MAX_CHUNK_LINE)
        try:
            size = int(line.split(b";")[0], 16)
        except ValueError as error:
            raise BodyRefused("a chunk without a size") from error
        if not 0 <= size <= MAX_BODY_BYTES:
            raise BodyRefused(f"a chunk of {size} bytes")
        data = self.rfile.read(size)
        while self.rfile.readline(MAX_CHUNK_LINE).strip():  # the chunk's own line end, or the trailer
            pass
        return data

    def _send(self, response: Response) -> None:
        self.send_response_only(response.status)
        names = set()
        for name, value in response.headers:
            names.add(name.lower())
            self.send_header(name, value)
        if response.parts is not None:
            self.send_header("Transfer-Encoding", "chunked")
        elif "content-length" not in names:  # an answer to HEAD tells the length of what it does not have
            self.send_header("Content-Length", str(len(response.body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if response.parts is not None:
            self._send_parts(response.parts)
        elif self.command != "HEAD":
            self.wfile.write(response.body)

    def _send_parts(self, parts: Streamed) -> None:
        """Each as it comes. Whoever makes them is told when nobody reads any more."""
        try:
            for part in parts:
                self.wfile.write(b"%x\r\n%b\r\n" % (len(part), part))
                self.wfile.flush()
            self.wfile.write(b"0\r\n\r\n")
        finally:
            parts.close()

    def log_message(self, format: str, *args: Any) -> None:
        """Calls are counted, not listed."""
