"""The bill's page and its facts, as the address answers them: /_platform, which no bucket can be called.

Rule: it shows, it changes nothing, and it runs no script but its own.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from container.platform.service.call import Request, Response

HOME = "/_platform"
_PAGE = Path(__file__).parent / "page"
_ASSETS = {
    HOME: ("index.html", "text/html; charset=utf-8"),
    f"{HOME}/bill.css": ("bill.css", "text/css; charset=utf-8"),
    f"{HOME}/bill.js": ("bill.js", "text/javascript; charset=utf-8"),
    f"{HOME}/icon.svg": ("icon.svg", "image/svg+xml"),
}
_HEADERS = (
    (
        "Content-Security-Policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cache-Control", "no-store"),
)


def pages(ask: Callable[[], Any]) -> dict[str, Callable[[Request], Response]]:
    """Path -> what answers it. `ask` makes the facts anew for each call."""

    def asset(name: str, kind: str) -> Callable[[Request], Response]:
        return lambda _: _response(kind, (_PAGE / name).read_bytes())

    found = {path: asset(name, kind) for path, (name, kind) in _ASSETS.items()}
    found[f"{HOME}/facts.json"] = lambda _: _response("application/json", json.dumps(ask()).encode())
    return found


def _response(kind: str, body: bytes) -> Response:
    return Response(200, (("Content-Type", kind), *_HEADERS), body)
