"""A container as a script of a few milliseconds: the multi-model contract, and /invocations.

    python fake_container.py PORT

Its Environment says HOW: never-healthy, dies, lists-nothing, or wrong, which answers 500 to calls. Else it answers with
its Environment, the body and what came in headers, or, to a body that begins with `stream`, with its words one by one.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODELS: dict[str, str] = {}
HOW = os.environ.get("HOW", "")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def do_GET(self) -> None:
        if self.path == "/ping":
            self.say(503 if HOW == "never-healthy" else 200)
        elif HOW == "lists-nothing":
            self.say(404)
        else:
            self.say(200, {"models": [{"modelName": name, "modelUrl": url} for name, url in MODELS.items()]})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path == "/models":
            asked = json.loads(body)
            MODELS[asked["model_name"]] = asked["url"]
            self.say(200)
        elif HOW == "wrong":
            self.say(500, {"message": "wrong on purpose"})
        elif self.path != "/invocations" and self.path.split("/")[2] not in MODELS:
            self.say(404)
        elif body.startswith(b"stream"):
            self.stream(body)
        else:
            time.sleep({b"slow": 0.6, b"brief": 0.05}.get(body, 0))
            self.say(200, {
                "who": os.environ.get("WHO"), "pid": os.getpid(), "body": body.decode(), "path": self.path,
                "session": self.headers.get("X-Amzn-SageMaker-Session-Id"), "environment": dict(os.environ),
                "attributes": self.headers.get("X-Amzn-SageMaker-Custom-Attributes"),
            })  # fmt: skip

    def stream(self, body: bytes) -> None:
        """Its words one by one, in chunks: `wait` until the file that its Environment names is there; `break` ends it all."""
        self.send_response_only(200)
        self.send_header("Content-Type", self.headers.get("Accept", "text/plain"))
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.flush()
        for word in body.split():
            if word == b"break":
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            while word == b"wait" and not os.path.exists(os.environ["WAITS_FOR"]):
                time.sleep(0.02)
            self.wfile.write(b"%x\r\n%b\r\n" % (len(word), word))
            self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")

    def do_DELETE(self) -> None:
        self.say(200 if MODELS.pop(self.path.split("/")[2], None) else 404)

    def say(self, status: int, told: Any = None) -> None:
        text = json.dumps(told or {}).encode()
        self.send_response_only(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        if self.headers.get("X-Amzn-SageMaker-Session-Id") == "NEW_SESSION":
            self.send_header("X-Amzn-SageMaker-New-Session-Id", "1234; Expires=2030-01-01T00:00:00Z")
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: Any) -> None:
        """No news."""


if __name__ == "__main__":
    print("a line of its log", flush=True)
    if HOW == "dies":
        sys.exit(1)
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
