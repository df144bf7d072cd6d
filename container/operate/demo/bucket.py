"""An S3 with one bucket, in this process and gone with it: moto's, on a loopback port.

Rule: the address is known, and connections wait there, before moto is imported, so that the endpoint, which needs it, can
start meanwhile.
"""

from __future__ import annotations

import importlib.util
import logging
import socket
import threading
from http import HTTPStatus
from types import TracebackType
from typing import Any

# What moto's S3 server imports. Source: moto's extras `s3` and `server`.
NEEDS = ("moto", "flask", "flask_cors", "werkzeug")
BACKLOG = 64


def missing_parts() -> list[str]:
    """Packages the S3 server needs and this installation lacks."""
    return [name for name in NEEDS if importlib.util.find_spec(name) is None]


class EmbeddedBucket:
    """`start` it, then `put` objects; leaving the `with` ends the server."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._server: Any = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Import moto, which takes half a second, make the bucket, and serve."""
        from moto.moto_server.werkzeug_app import MotoRequestHandler, create_backend_app
        from werkzeug.serving import make_server

        from container.operate.endpoint.calling import client

        logging.getLogger("werkzeug").setLevel(logging.ERROR)  # it writes a line for each request
        app = create_backend_app("s3")
        # Before anybody is answered: the endpoint, which waits for its first answer, would say that there is no bucket.
        made = app.test_client().put(f"/{self.name}", base_url=self.url)
        assert made.status_code == HTTPStatus.OK, made.text
        # What moto's ThreadedMotoServer does, with S3 alone and on the port we hold already.
        self._server = make_server(
            "127.0.0.1",
            self.port,
            app,
            threaded=True,
            request_handler=MotoRequestHandler,
            fd=self._listener.fileno(),
        )
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="s3", daemon=True)
        self._thread.start()
        self._client = client("s3", self.url)

    def put(self, key: str, data: bytes) -> None:
        self._client.put_object(Bucket=self.name, Key=key, Body=data)

    def __enter__(self) -> EmbeddedBucket:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._thread is not None:
            self._client.close()
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()
        self._listener.close()
