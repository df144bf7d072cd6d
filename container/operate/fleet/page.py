"""The fleet's page: which replica holds what, and what that makes together.

Rule: it shows, it changes nothing. Who asks often is told what was seen a moment ago.

    /            the page            /readyz   200 while calls can be answered by somebody
    /fleet.json  its facts           /models   what is loaded, as an endpoint's admin port tells it, and where
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from container.metrics import admin
from container.metrics.admin import HEADERS, is_loopback
from container.operate.fleet.asked import Asker, Told, merged_models, together

FRESH_S = 1.0
SHOWN_MODELS = 200
_HERE = Path(__file__).parent / "page"
_THERE = Path(admin.__file__).parent / "page"
_ASSETS = {
    "/": (_HERE / "index.html", "text/html; charset=utf-8"),
    "/fleet.js": (_HERE / "fleet.js", "text/javascript; charset=utf-8"),
    "/status.css": (_THERE / "status.css", "text/css; charset=utf-8"),
    "/icon.svg": (_THERE / "icon.svg", "image/svg+xml"),
}


class FleetFacts:
    """What the page shows, at most FRESH_S old. Safe to use from many threads.

    starts   how often each replica has been started, by name
    """

    def __init__(self, title: str, asker: Asker, starts: Callable[[], Mapping[str, int]]) -> None:
        self._title = title
        self._asker = asker
        self._starts = starts
        self._lock = threading.Lock()  # held while one asks; the others wait for what he hears
        self._told: tuple[Told, ...] = ()
        self._asked_at: float | None = None

    def told(self) -> tuple[Told, ...]:
        with self._lock:
            if self._asked_at is None or time.monotonic() - self._asked_at >= FRESH_S:
                self._told = self._asker.ask()
                self._asked_at = time.monotonic()
            return self._told

    def facts(self) -> dict[str, Any]:
        told, starts = self.told(), self._starts()
        return {
            "title": self._title,
            "verdict": _verdict(told),
            "together": asdict(together(told)),
            "replicas": [_replica(one, starts.get(one.name, 0)) for one in told],
            "models": merged_models(told)[:SHOWN_MODELS],
        }

    def models(self, query: Mapping[str, list[str]]) -> dict[str, Any]:
        """As an admin port's /models, so that `mme models --admin` takes a fleet's address too."""
        rows = merged_models(self.told())
        contains = query.get("contains", [""])[0]
        matching = [row for row in rows if contains in row["name"]]
        sort = query.get("sort", ["hits"])[0]
        keys: dict[str, Callable[[dict[str, Any]], Any]] = {
            "name": lambda row: row["name"],
            "bytes": lambda row: -row["n_bytes"],
            "age": lambda row: -row["age_s"],
            "idle": lambda row: -row["idle_s"],
        }
        if sort in keys:
            matching.sort(key=keys[sort])
        offset, limit = _number(query, "offset", 0), _number(query, "limit", SHOWN_MODELS)
        end = offset + limit
        return {
            "total": len(rows),
            "matching": len(matching),
            "models": matching[offset:end],
            "next_offset": end if end < len(matching) else None,
        }


def _replica(one: Told, starts: int) -> dict[str, Any]:
    return {
        "name": one.name,
        "admin": one.admin,
        "why": one.why,
        "requests_per_s": one.now.get("requests_per_s", 0.0),
        "hit_ratio": one.now.get("hit_ratio"),
        "n_models": len(one.models),
        "loaded_bytes": one.now.get("loaded_bytes", 0),
        "budget_bytes": one.now.get("budget_bytes", 0),
        "evictions": one.evictions,
        "starts": starts,
    }


def _verdict(told: tuple[Told, ...]) -> dict[str, str]:
    away = [one for one in told if one.why]
    if not away:
        return {"level": "good", "headline": "All there", "detail": f"{len(told)} replicas take calls."}
    who = "; ".join(f"{one.name}: {one.why}" for one in away[:3])
    if len(away) == len(told):
        return {"level": "bad", "headline": "Nobody there", "detail": f"No replica takes calls. {who}."}
    detail = f"{len(told) - len(away)} of {len(told)} replicas take calls. {who}."
    return {"level": "warn", "headline": "Some away", "detail": detail}


class FleetPage:
    """Serves the page from threads of its own, on a loopback address. Binding happens at once; raises OSError."""

    def __init__(self, facts: FleetFacts, port: int, host: str = "127.0.0.1") -> None:
        self._server = _Server((host, port), _Handler)
        self._server.facts = facts
        self._thread = threading.Thread(target=self._server.serve_forever, name="fleet-page", daemon=True)

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        if self._thread.ident is not None:
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    facts: FleetFacts

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that goes is no news."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = 5.0
    server_version = "mme"
    sys_version = ""

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if not _is_here(urlsplit(f"//{self.headers.get('Host') or 'localhost'}").hostname or ""):
            self._send(HTTPStatus.MISDIRECTED_REQUEST, {"message": "this port answers to localhost only"})
        elif url.path in _ASSETS:
            path, kind = _ASSETS[url.path]
            self._send_bytes(HTTPStatus.OK, kind, path.read_bytes())
        elif url.path == "/fleet.json":
            self._send(HTTPStatus.OK, self.server.facts.facts())
        elif url.path == "/models":
            self._send(HTTPStatus.OK, self.server.facts.models(parse_qs(url.query)))
        elif url.path == "/readyz":
            told = self.server.facts.told()
            is_ready = any(not one.why for one in told)
            status = HTTPStatus.OK if is_ready else HTTPStatus.SERVICE_UNAVAILABLE
            self._send(status, {"ok": is_ready, "reasons": [f"{one.name}: {one.why}" for one in told if one.why]})
        else:
            self._send(HTTPStatus.NOT_FOUND, {"message": "nothing here; try /, /fleet.json, /models or /readyz"})

    def _send(self, status: HTTPStatus, value: object) -> None:
        # ASCII, so that a name no UTF-8 can hold still makes a valid answer.
        self._send_bytes(status, "application/json", json.dumps(value, separators=(",", ":")).encode("ascii"))

    def _send_bytes(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        self.send_response(status)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """A page that asks every two seconds is no news either."""


def _is_here(host: str) -> bool:
    """A web page whose name was pointed at 127.0.0.1 could otherwise read this port (DNS rebinding)."""
    return host == "localhost" or is_loopback(host)


def _number(query: Mapping[str, list[str]], name: str, default: int) -> int:
    text = query.get(name, [str(default)])[0]
    return min(int(text), 100_000) if text.isascii() and text.isdigit() and len(text) < 9 else default
