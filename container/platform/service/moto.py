"""The neighbours that we do not play ourselves: moto's server, called in this process, behind our address.

Rule: every call is for this platform's own account, so that several platforms in one process keep apart what they know.
Nothing here imports moto before the first call needs it.
"""

from __future__ import annotations

import importlib.util
import io
import sys
import threading
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote, urlsplit

from container.platform.service.call import Request, Response
from container.platform.service.journal import Journal

NEEDS = ("moto", "flask", "flask_cors", "werkzeug")
ACCOUNT = "x-moto-account-id"  # moto's own header for whose call it is


def missing_parts() -> list[str]:
    """Packages that moto's server needs and this installation lacks."""
    return [name for name in NEEDS if importlib.util.find_spec(name) is None]


class Moto:
    """Any number of threads may ask."""

    def __init__(self, account: str, journal: Journal | None = None) -> None:
        self._account = account
        self._journal = journal
        self._lock = threading.Lock()
        self._application: Any = None
        self.on_first: list[Callable[[], None]] = []  # called before moto is asked for the first time

    @property
    def is_awake(self) -> bool:
        """Whether anything was ever asked, so that it may know something."""
        return self._application is not None

    def pass_on(self, request: Request) -> Response:
        """moto's answer to a request, as it is."""
        response = self._asked(request)
        if self._journal is not None:
            self._journal.write(request, response)
        return response

    def restore(self) -> None:
        """Tell moto again what the journal has of the last run."""
        if self._journal is not None:
            self._journal.tell_again(self._asked)

    def _asked(self, request: Request) -> Response:
        answered: list[tuple[str, list[tuple[str, str]]]] = []

        def start(status: str, headers: list[tuple[str, str]], _: Any = None) -> None:
            answered.append((status, headers))

        chunks = self._app()(self._environ(request), start)
        try:
            body = b"".join(chunks)
        finally:
            if hasattr(chunks, "close"):
                chunks.close()
        status, headers = answered[-1]
        return Response(int(status.split()[0]), tuple(headers), body)

    def backend(self, service: str, region: str) -> Any:
        """moto's own object for a service of this account."""
        from moto.backends import get_backend

        backend: Any = get_backend(service)[self._account][region]
        return backend

    def close(self) -> None:
        """Forget all that this account has."""
        if self._application is None:
            return
        from moto.core.base_backend import BackendDict

        for backends in list(BackendDict._instances):
            if self._account in backends:
                backends[self._account].reset()
                del backends[self._account]

    def _app(self) -> Any:
        with self._lock:
            if self._application is None:
                from moto.core.config import default_user_config
                from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

                for prepare in self.on_first:
                    prepare()
                # A role with AmazonSageMakerFullAccess can be made, as on AWS.
                default_user_config["iam"]["load_aws_managed_policies"] = True
                self._application = DomainDispatcherApplication(create_backend_app)
            return self._application

    def _environ(self, request: Request) -> dict[str, Any]:
        """As PEP 3333 and werkzeug have it."""
        parts = urlsplit(request.path)
        environ: dict[str, Any] = {
            "REQUEST_METHOD": request.method,
            "SCRIPT_NAME": "",
            "PATH_INFO": unquote(parts.path, "latin-1"),
            "RAW_URI": request.path,
            "REQUEST_URI": request.path,
            "QUERY_STRING": parts.query,
            "SERVER_NAME": "127.0.0.1",
            "SERVER_PORT": request.headers.get("host", ":80").rpartition(":")[2],
            "SERVER_PROTOCOL": "HTTP/1.1",
            "REMOTE_ADDR": "127.0.0.1",
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.input": io.BytesIO(request.body),
            "wsgi.input_terminated": True,
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": True,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
        }
        headers = {**request.headers, "content-length": str(len(request.body)), ACCOUNT: self._account}
        headers.pop("transfer-encoding", None)  # the body is whole here
        for name, value in headers.items():
            bare = name.upper().replace("-", "_")
            environ[bare if bare in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{bare}"] = value
        return environ
