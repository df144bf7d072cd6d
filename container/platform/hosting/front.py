"""The endpoint's address for boto3 and the AWS CLI: InvokeEndpoint over HTTP.

POST /endpoints/{name}/invocations      any name; the target in X-Amzn-SageMaker-Target-Model
GET  /ping                              whether every container is healthy
GET  /metrics.json                      the six metrics since the start
"""

from __future__ import annotations

import json
import logging
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from container.platform.hosting.contract import Reply
from container.platform.hosting.errors import ModelError, ServiceError, ValidationError
from container.platform.hosting.fleet import Fleet
from container.platform.hosting.instance import as_fault
from handler.errors import TargetInvalid
from handler.targets import as_sent, parse_target

log = logging.getLogger(__name__)

MAX_BODY_BYTES = 25 * 1024 * 1024  # InvokeEndpoint's limit. Source: SageMaker guide, hosting FAQs
TARGET = "X-Amzn-SageMaker-Target-Model"
ATTRIBUTES = "X-Amzn-SageMaker-Custom-Attributes"
# All others are stripped on their way to the container. Source: SageMaker guide, "your-algorithms-inference-code".
PASSED_ON = ("Content-Type", "Accept", ATTRIBUTES, TARGET, "X-Amzn-SageMaker-Inference-Id")
VARIANT = "AllTraffic"
_PATH = re.compile(r"/endpoints/[^/?]+/invocations/?")


class InvokeServer(ThreadingHTTPServer):
    """Listens on host:port; a thread for each connection."""

    daemon_threads = True
    request_queue_size = 512

    def __init__(self, host: str, port: int, fleet: Fleet) -> None:
        super().__init__((host, port), _Handler)
        self.fleet = fleet

    def handle_error(self, *_: Any) -> None:
        log.debug("a connection broke", exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # head and body in one write
    server: InvokeServer

    def do_POST(self) -> None:
        try:
            reply = self._invoke(self._body())
        except Exception as error:
            fault = as_fault(error)
            if type(fault) is ServiceError:
                log.error("a call failed", exc_info=error)
            self._refuse(fault)
        else:
            self._pass_back(reply)

    def _invoke(self, body: bytes) -> Reply:
        if not _PATH.fullmatch(self.path):
            raise ValidationError(f"{self.path} is no operation here: call invoke_endpoint")
        self._refuse_elsewhere()
        reply = self.server.fleet.invoke(self._target(), body, self._passed_on())
        if reply.status != 200:
            raise ModelError(reply.status, reply.body.decode(errors="replace"))
        return reply

    def do_GET(self) -> None:
        if self.path == "/ping":
            self._send(200 if self.server.fleet.is_healthy else 503, {}, b"")
        elif self.path == "/metrics.json":
            told = json.dumps(self.server.fleet.figures.to_dict(), indent=2).encode()
            self._send(200, {"Content-Type": "application/json"}, told)
        else:
            self._send(404, {}, b"")

    def _body(self) -> bytes:
        length = self.headers.get("Content-Length")
        if length is None or not length.isdigit():
            self.close_connection = True
            raise ValidationError("the request has no Content-Length")
        if int(length) > MAX_BODY_BYTES:
            self.close_connection = True
            raise ValidationError(f"the body has {length} bytes, more than {MAX_BODY_BYTES}")
        return self.rfile.read(int(length))

    def _target(self) -> str:
        raw = self.headers.get(TARGET)
        if raw is None:
            raise ValidationError("this is a multi-model endpoint: name the model with TargetModel")
        try:
            return parse_target(as_sent(raw))
        except TargetInvalid as error:
            raise ValidationError(str(error)) from error

    def _refuse_elsewhere(self) -> None:
        """What names another place than the one there is. Ignored, it would be answered by a model that was not asked."""
        variant = self.headers.get("X-Amzn-SageMaker-Target-Variant")
        if variant is not None and variant != VARIANT:
            raise ValidationError(f"this endpoint has no variant {variant!r}; its one variant is {VARIANT}")
        host = self.headers.get("X-Amzn-SageMaker-Target-Container-Hostname")
        if host is not None:
            raise ValidationError(
                f"TargetContainerHostname {host!r}: this endpoint has one container, not several to choose from"
            )
        component = self.headers.get("X-Amzn-SageMaker-Inference-Component")
        if component is not None:
            raise ValidationError(f"this endpoint has no inference component {component!r}; it has variants")

    def _passed_on(self) -> dict[str, str]:
        return {name: value for name in PASSED_ON if (value := self.headers.get(name)) is not None}

    def _pass_back(self, reply: Reply) -> None:
        headers = {"x-Amzn-Invoked-Production-Variant": VARIANT}
        if "content-type" in reply.headers:
            headers["Content-Type"] = reply.headers["content-type"]
        if ATTRIBUTES.lower() in reply.headers:
            headers[ATTRIBUTES] = reply.headers[ATTRIBUTES.lower()]
        self._send(200, headers, reply.body)

    def _refuse(self, fault: ServiceError) -> None:
        headers = {"Content-Type": "application/json", "x-amzn-errortype": fault.code}
        self._send(fault.status, headers, json.dumps({"Message": fault.message, **fault.fields}).encode())

    def _send(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Calls are counted, not listed."""
