"""The operator's port: health, metrics, models and the status page.

Rule: it shows, it changes nothing, and it takes no part in serving: a bounded number of connections, each of bounded
length, on a loopback address unless told otherwise. Nobody can keep a probe from its answer: who has sent no request is cut
for the next who comes, oldest first, and probes need no place among those that are answered. The maker of an AdminServer
closes it.

    /            the status page             /healthz   200 while the process should live
    /status.json its facts                   /readyz    200 while requests may be sent to it
    /models      what is loaded, in pages    /metrics   Prometheus text
"""

from __future__ import annotations

import ipaddress
import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from heapq import nsmallest
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer
from typing import Any
from urllib.parse import SplitResult, parse_qs, urlsplit

from container.metrics.history import History
from container.metrics.prometheus import PrometheusExporter
from container.metrics.serving_port import ServingPort
from container.metrics.source import ModelState, Source
from container.metrics.status import status
from handler.telemetry.recorder import LiveRecorder

log = logging.getLogger(__name__)

MAX_CONNECTIONS = 32
MAX_ANSWERS = 16  # of these, being answered at the same time; probes are not counted, they are answered at once
CONNECTION_S = 30.0  # a connection older than this is closed, however busily its client dawdles
READ_TIMEOUT_S = 5.0
PAGE_MODELS, MAX_PAGE_MODELS = 100, 1_000

SORTS: dict[str, Callable[[ModelState], Any]] = {
    "name": lambda model: model.name,
    "bytes": lambda model: (-model.n_bytes, model.name),
    "hits": lambda model: (-model.hits, model.name),
    "age": lambda model: (-model.age_s, model.name),
    "idle": lambda model: (-model.idle_s, model.name),
}

_PROBES = frozenset({"/healthz", "/readyz", "/ping"})

_PAGE = Path(__file__).parent / "page"
_ASSETS = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/status.css": ("status.css", "text/css; charset=utf-8"),
    "/status.js": ("status.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class AdminServer:
    """Serves from one accepting thread and at most MAX_CONNECTIONS short-lived ones. Binding happens at once.

    unix_path             a socket to make instead of host and port, whose directory says who may ask
    serving_port          the port that callers use, which /healthz and /readyz ask; None leaves it out
    execution_parameters  what SageMaker's batch transform is told at /execution-parameters

    raises  OSError when the address is taken
    """

    def __init__(
        self,
        *,
        source: Source,
        recorder: LiveRecorder,
        history: History,
        prometheus: PrometheusExporter,
        host: str = "127.0.0.1",
        port: int = 0,
        unix_path: Path | None = None,
        serving_port: ServingPort | None = None,
        execution_parameters: Mapping[str, object] | None = None,
        clock_s: Callable[[], float] = time.time,
    ) -> None:
        self._answers = _Answers(
            source, recorder, history, prometheus, serving_port, execution_parameters or {}, clock_s
        )
        self._server = _Server((host, port) if unix_path is None else str(unix_path), self._answers)
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.2}, name="admin-port", daemon=True
        )

    @property
    def address(self) -> tuple[str, int]:
        host, port = self._server.server_address[:2]
        return str(host), port

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Stop accepting and cut what is open. Returns when the port is free."""
        if self._thread.ident is not None:
            self._server.shutdown()
            self._thread.join()
        self._server.cut(older_than_s=0.0)
        self._server.server_close()


class _Refused(Exception):
    """A request this port does not answer; `status` says why."""

    def __init__(self, status: HTTPStatus, why: str) -> None:
        super().__init__(why)
        self.status = status


Answer = tuple[HTTPStatus, str, bytes]


class _Answers:
    """From a path and a query to an answer, without a socket."""

    def __init__(
        self,
        source: Source,
        recorder: LiveRecorder,
        history: History,
        prometheus: PrometheusExporter,
        serving_port: ServingPort | None,
        execution_parameters: Mapping[str, object],
        clock_s: Callable[[], float],
    ) -> None:
        self._serving_port = serving_port
        self._execution_parameters = dict(execution_parameters)
        self._source = source
        self._recorder = recorder
        self._history = history
        self._prometheus = prometheus
        self._clock_s = clock_s
        self._assets = {path: (kind, (_PAGE / name).read_bytes()) for path, (name, kind) in _ASSETS.items()}

    def answer(self, path: str, query: dict[str, list[str]], accept: str) -> Answer:
        if path in self._assets:
            return HTTPStatus.OK, *self._assets[path]
        match path:
            case "/healthz":
                health = self._source.health()
                silence = self._silence()
                is_deaf = self._serving_port is not None and self._serving_port.has_answered and bool(silence)
                return _health(health.is_alive and not is_deaf, (*health.reasons, *silence))
            case "/ping":  # for MMS's plugin, in MMS's own words, but with a status that means it
                health = self._source.health()
                if health.is_alive and health.is_ready:
                    return _json(HTTPStatus.OK, {"status": "Healthy"})
                return _json(HTTPStatus.SERVICE_UNAVAILABLE, {"status": "Unhealthy", "reasons": list(health.reasons)})
            case "/readyz":
                health = self._source.health()
                silence = self._silence()
                return _health(health.is_alive and health.is_ready and not silence, (*health.reasons, *silence))
            case "/metrics":
                text, content_type = self._prometheus.scrape(accept)
                return HTTPStatus.OK, content_type, text
            case "/execution-parameters":
                return _json(HTTPStatus.OK, self._execution_parameters)
            case "/models":
                return _json(HTTPStatus.OK, self._models(query))
            case "/status.json":
                return _json(HTTPStatus.OK, status(self._source, self._recorder, self._history, self._clock_s))
        raise _Refused(
            HTTPStatus.NOT_FOUND, "nothing here; try /, /status.json, /models, /metrics, /healthz or /readyz"
        )

    def _silence(self) -> tuple[str, ...]:
        """Why the serving port does not answer, if it does not."""
        trouble = self._serving_port.trouble() if self._serving_port is not None else ""
        return (trouble,) if trouble else ()

    def _models(self, query: dict[str, list[str]]) -> dict[str, object]:
        limit = _number(query, "limit", default=PAGE_MODELS, most=MAX_PAGE_MODELS)
        offset = _number(query, "offset", default=0, most=1_000_000)
        contains = query.get("contains", [""])[0]
        sort = query.get("sort", ["name"])[0]
        if sort not in SORTS:
            raise _Refused(HTTPStatus.BAD_REQUEST, f"sort must be one of {', '.join(SORTS)}")
        models = self._source.models()
        matching = [model for model in models if contains in model.name] if contains else models
        end = offset + limit
        page = nsmallest(end, matching, key=SORTS[sort])[offset:]
        return {
            "total": len(models),
            "matching": len(matching),
            "models": [asdict(model) for model in page],
            "next_offset": end if end < len(matching) else None,
        }


@dataclass(slots=True)
class _Visit:
    """A connection, since when, and whether its request has been read."""

    since_s: float
    has_asked: bool = False


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # close() cuts open connections itself; a dawdling client must not hold up a shutdown
    request_queue_size = 32

    def __init__(self, address: tuple[str, int] | str, answers: _Answers) -> None:
        self.answers = answers
        self.places = threading.BoundedSemaphore(MAX_ANSWERS)
        self._lock = threading.Lock()
        self._open: dict[socket.socket, _Visit] = {}  # oldest first
        if isinstance(address, str):
            self.address_family = socket.AF_UNIX
            Path(address).unlink(missing_ok=True)  # of a process that was killed
        else:
            self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, _Handler)  # type: ignore[arg-type]  # the base class only passes it to bind
        self.is_loopback = not isinstance(address, str) and is_loopback(str(self.server_address[0]))

    def server_bind(self) -> None:
        # Not HTTPServer's own, which asks the name service for this host's name and may wait for it.
        TCPServer.server_bind(self)
        if self.address_family != socket.AF_UNIX:
            self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            has_room = self._make_room()
            if has_room:
                self._open[request] = _Visit(time.monotonic())
        if not has_room:
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # no thread could be started; process_request_thread will not forget it
            self._forget(request)
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._forget(request)

    def _make_room(self) -> bool:
        """Cut the oldest of those that have sent no request if nobody else could come in. Under the lock."""
        if len(self._open) < MAX_CONNECTIONS:
            return True
        silent = next((request for request, visit in self._open.items() if not visit.has_asked), None)
        if silent is None:
            return False
        del self._open[silent]
        _shut(silent)
        return True

    def asked(self, request: Any) -> None:
        """Its request has been read: it is not cut for another any more."""
        with self._lock:
            visit = self._open.get(request)
            if visit is not None:
                visit.has_asked = True

    def _forget(self, request: Any) -> None:
        with self._lock:
            self._open.pop(request, None)

    def service_actions(self) -> None:
        self.cut(older_than_s=CONNECTION_S)

    def cut(self, older_than_s: float) -> None:
        """End connections that have lasted longer."""
        now_s = time.monotonic()
        with self._lock:
            for request, visit in self._open.items():
                if now_s - visit.since_s >= older_than_s:
                    _shut(request)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002  the signature is the base class's
        log.debug("admin connection from %s broke off", client_address, exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = READ_TIMEOUT_S
    server_version = "mme"
    sys_version = ""

    def do_GET(self) -> None:
        self._reply(has_body=True)

    def do_HEAD(self) -> None:
        self._reply(has_body=False)

    def _reply(self, *, has_body: bool) -> None:
        self.server.asked(self.connection)
        try:
            url, host = _split(self.path), _split(f"//{self.headers.get('Host') or 'localhost'}").hostname
            self._check_host(host or "")
        except _Refused as refusal:
            self._send(_json(refusal.status, {"message": str(refusal)}), has_body=has_body)
            return
        if url.path in _PROBES:
            self._send(self._answer(url), has_body=has_body)
        elif self.server.places.acquire(blocking=False):
            try:
                self._send(self._answer(url), has_body=has_body)
            finally:
                self.server.places.release()
        else:
            busy = {"message": f"{MAX_ANSWERS} others are being answered; ask again"}
            self._send(_json(HTTPStatus.SERVICE_UNAVAILABLE, busy), has_body=has_body)

    def _answer(self, url: SplitResult) -> Answer:
        try:
            return self.server.answers.answer(url.path, parse_qs(url.query), self.headers.get("Accept", ""))
        except _Refused as refusal:
            return _json(refusal.status, {"message": str(refusal)})
        except Exception:
            log.exception("the admin port could not answer %s", self.path)
            return _json(HTTPStatus.INTERNAL_SERVER_ERROR, {"message": "no answer could be made; see the log"})

    def _send(self, answer: Answer, *, has_body: bool) -> None:
        status_code, content_type, body = answer
        self.send_response(status_code)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if has_body:
            self.wfile.write(body)

    def _check_host(self, host: str) -> None:
        """Refuse, on a loopback address, a request meant for another host: a web page whose name was pointed at
        127.0.0.1 could otherwise read this port through its visitor's browser (DNS rebinding)."""
        if self.server.is_loopback and host != "localhost" and not is_loopback(host):
            raise _Refused(HTTPStatus.MISDIRECTED_REQUEST, "this port answers to localhost only")

    def log_message(self, format: str, *args: object) -> None:
        log.debug("admin: " + format, *args)


def _shut(request: socket.socket) -> None:
    """Its thread sees the end of the stream and leaves."""
    with suppress(OSError):  # the client was faster
        request.shutdown(socket.SHUT_RDWR)


def _split(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError as error:
        raise _Refused(HTTPStatus.BAD_REQUEST, str(error)) from error


def _health(is_well: bool, reasons: tuple[str, ...]) -> Answer:
    status_code = HTTPStatus.OK if is_well else HTTPStatus.SERVICE_UNAVAILABLE
    return _json(status_code, {"ok": is_well, "reasons": list(reasons)})


def _json(status_code: HTTPStatus, value: object) -> Answer:
    # ASCII, so that a name no UTF-8 can hold still makes a valid answer.
    return status_code, "application/json", json.dumps(value, separators=(",", ":"), allow_nan=False).encode("ascii")


def _number(query: dict[str, list[str]], name: str, *, default: int, most: int) -> int:
    text = query.get(name, [str(default)])[0]
    if not (text.isascii() and text.isdigit() and len(text) <= 9 and int(text) <= most):
        raise _Refused(HTTPStatus.BAD_REQUEST, f"{name} must be a whole number up to {most}, not {text!r}")
    return int(text)


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
