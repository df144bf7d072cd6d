"""A container that has every model and answers 1.0, in a twentieth of a second: for tests of what stands around containers.

python tests/rig/tiny_container.py PORT [broken]     broken: it never says that it is healthy
"""

from __future__ import annotations

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        is_broken = "broken" in sys.argv
        body = b"" if self.path == "/ping" else json.dumps({"models": []}).encode()
        self._answer(500 if is_broken else 200, body)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._answer(500 if "failing" in sys.argv and self.path != "/models" else 200, b"1.0")

    def do_DELETE(self) -> None:
        self._answer(200, b"")

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "text/csv")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
