"""A small S3 over real HTTP that misbehaves when told to.

    with FaultyS3() as s3:
        s3.put("models/eu/a.tar.gz", data)
        s3.faults["models/eu/a.tar.gz"] = cut_short(after_bytes=100, times=1)
        store = open_store(f"s3://{s3.bucket}/models/", s3=S3Settings(endpoint_url=s3.url))
        ...
        assert s3.requests["models/eu/a.tar.gz"] == 2

It speaks GetObject (with If-None-Match), ListObjectsV2 (paged), and PutObject, CopyObject and DeleteObject with their
conditions on what is there, for one bucket, path style, any credentials, which is all that a store asks for. Answers
carry Content-Length, ETag (MD5, quoted) and, when the client asks for it, x-amz-checksum-crc32, as S3's do for what boto3
uploads. It listens on a free loopback port; leaving the `with` ends every connection and thread, hanging ones too.
`ENVIRONMENT` is what boto3 needs around it, here or in a child process.

objects      dict of key -> bytes; change it at any time
faults       dict of key -> Fault for GetObject of that key; LISTING is ListObjectsV2, ANY_KEY is everything not named
requests     Counter of requests that arrived, by key or LISTING; the client's own retries count too
access_keys  access key id of every request in order of arrival, None for an unsigned one
connections  how many TCP connections were opened
methods      Counter of what was asked: GET, LIST, PUT, COPY, DELETE, and POST for whatever else comes this way
dies_at      the number of the request, from 1, with which it ends: that one and all later ones are reset
acts_dying   whether that request is still obeyed, its answer being what is lost

Rule: a fault is what S3, a network or a proxy has been seen to do, never something HTTP would not let happen.
"""

from __future__ import annotations

import base64
import hashlib
import re
import socket
import struct
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, quote, unquote, urlsplit
from xml.sax.saxutils import escape

ANY_KEY = "*"
LISTING = "?list"

# Made-up credentials, and nothing of the machine's own: no profile, no instance role, no proxy.
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "AKIATEST",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_CONFIG_FILE": "/dev/null",
    "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
    "AWS_EC2_METADATA_DISABLED": "true",
    "NO_PROXY": "127.0.0.1",
    "no_proxy": "127.0.0.1",
}


@dataclass(frozen=True)
class Answer:
    """What S3 would have said."""

    code: int
    headers: dict[str, str]
    body: bytes


@dataclass
class Fault:
    """What goes wrong with a request, for the next `times` requests (None: for all); of a write, once it is made."""

    act: Callable[[_Exchange, Answer], None]
    times: int | None = None
    is_before: bool = False  # what is to be written is not


def status(code: int, error: str, *, times: int | None = None) -> Fault:
    """An error answer: `status(403, "AccessDenied")`, `status(503, "SlowDown")`, `status(400, "ExpiredToken")`."""
    return Fault(lambda exchange, _: exchange.send(refusal(code, error)), times)


def denied_writing() -> Fault:
    """AccessDenied to whoever writes; the right answer to whoever reads. Nothing is written."""

    def act(exchange: _Exchange, right: Answer) -> None:
        exchange.send(right if exchange.command == "GET" else refusal(403, "AccessDenied"))

    return Fault(act, is_before=True)


def hang(*, times: int | None = None) -> Fault:
    """The request is read and nothing is ever said."""
    return Fault(lambda exchange, _: exchange.wait_for_the_end(), times)


def hang_mid_body(after_bytes: int, *, times: int | None = None) -> Fault:
    """Headers and `after_bytes` of the body come, then silence."""

    def act(exchange: _Exchange, right: Answer) -> None:
        exchange.send(right, until=after_bytes)
        exchange.wait_for_the_end()

    return Fault(act, times)


def cut_short(after_bytes: int, *, times: int | None = None) -> Fault:
    """The connection is closed in good order after `after_bytes` of the body."""

    def act(exchange: _Exchange, right: Answer) -> None:
        exchange.send(right, until=after_bytes)
        exchange.close_connection = True

    return Fault(act, times)


def flip_byte(at: int = 0, *, times: int | None = None) -> Fault:
    """One byte of the body differs from what ETag and checksum were made of."""

    def act(exchange: _Exchange, right: Answer) -> None:
        damaged = bytearray(right.body)
        damaged[at] ^= 0xFF
        exchange.send(replace(right, body=bytes(damaged)))

    return Fault(act, times)


def reset(after_bytes: int | None = None, *, times: int | None = None) -> Fault:
    """TCP reset: before any answer, or after `after_bytes` of the body."""

    def act(exchange: _Exchange, right: Answer) -> None:
        if after_bytes is not None:
            exchange.send(right, until=after_bytes)
        exchange.reset_connection()

    return Fault(act, times)


def drip(chunk_bytes: int, pause_s: float, *, times: int | None = None) -> Fault:
    """The body comes `chunk_bytes` at a time with a pause between: never silent for long, never done."""

    def act(exchange: _Exchange, right: Answer) -> None:
        exchange.send(right, until=0)
        for start in range(0, len(right.body), chunk_bytes):
            exchange.wfile.write(right.body[start : start + chunk_bytes])
            if exchange.s3.is_closing.wait(pause_s):
                break

    return Fault(act, times)


def without_header(name: str, *, times: int | None = None) -> Fault:
    """The right answer but for one header, as some gateways give it; the connection ends with it."""

    def act(exchange: _Exchange, right: Answer) -> None:
        exchange.send(replace(right, headers={k: v for k, v in right.headers.items() if k != name}))
        exchange.close_connection = True

    return Fault(act, times)


def overlong(size: int, *, times: int | None = None) -> Fault:
    """A chunked body of `size` bytes behind a Content-Length that says less; by HTTP's rules the chunks count."""

    def act(exchange: _Exchange, right: Answer) -> None:
        head = replace(right, headers=right.headers | {"Transfer-Encoding": "chunked"}, body=b"")
        exchange.send(head)
        for _ in range(0, size, 1024):
            exchange.wfile.write(b"400\r\n" + b"x" * 1024 + b"\r\n")
        exchange.wfile.write(b"0\r\n\r\n")

    return Fault(act, times)


def latency(delay_s: float, *, times: int | None = None) -> Fault:
    """The right answer, late."""

    def act(exchange: _Exchange, right: Answer) -> None:
        exchange.s3.is_closing.wait(delay_s)
        exchange.send(right)

    return Fault(act, times)


def paced(delay_s: float, bytes_per_s: float) -> Fault:
    """The right answer, late and no faster than that on one connection: S3 as it is."""
    chunk_bytes = 256 * 1024

    def act(exchange: _Exchange, right: Answer) -> None:
        exchange.s3.is_closing.wait(delay_s)
        exchange.send(right, until=0)
        began = time.monotonic()
        for start in range(0, len(right.body), chunk_bytes):
            chunk = right.body[start : start + chunk_bytes]
            exchange.wfile.write(chunk)
            ahead_s = began + (start + len(chunk)) / bytes_per_s - time.monotonic()
            if ahead_s > 0 and exchange.s3.is_closing.wait(ahead_s):
                break

    return Fault(act)


def held_until(opened: threading.Event, *, times: int | None = None) -> Fault:
    """The right answer once the test says so: for a test that needs to know that a download is under way."""

    def act(exchange: _Exchange, right: Answer) -> None:
        while not opened.wait(0.02) and not exchange.s3.is_closing.is_set():
            pass
        exchange.send(right)

    return Fault(act, times)


def refusal(code: int, error: str) -> Answer:
    return _xml(code, f"<Error><Code>{error}</Code><Message>told to</Message></Error>")


def etag(data: bytes) -> str:
    """The ETag S3 gives a single-part, unencrypted object, as it stands in headers and listings."""
    return f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"'


class FaultyS3:
    def __init__(self, bucket: str = "models", page_size: int = 1000) -> None:
        self.bucket = bucket
        self.bucket_answer: Answer | None = None  # to HeadBucket, instead of the right one
        self.page_size = page_size
        self.objects: dict[str, bytes] = {}
        self.faults: dict[str, Fault] = {}
        self.requests: Counter[str] = Counter()
        self.access_keys: list[str | None] = []
        self.connections = 0
        self.methods: Counter[str] = Counter()
        self.dies_at: int | None = None
        self.acts_dying = False
        self.writing = threading.Lock()
        self.is_closing = threading.Event()
        self._lock = threading.Lock()
        self._server = _Server(self)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), name="faulty-s3")

    def hang_up(self) -> None:
        """Cut every open connection, as a load balancer that is replaced does."""
        self._server.hang_up()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def put(self, key: str, data: bytes) -> None:
        self.objects[key] = data

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.is_closing.set()
        self._server.shutdown()
        self._thread.join()
        self._server.hang_up()
        self._server.server_close()  # joins the threads of all exchanges

    def note_request(self, key: str, authorization: str) -> Fault | None:
        """Count the request, and say what is to go wrong with it."""
        signed_by = re.search("Credential=([^/]*)/", authorization)
        with self._lock:
            self.requests[key] += 1
            self.access_keys.append(signed_by[1] if signed_by else None)
            fault = self.faults.get(key) or self.faults.get(ANY_KEY)
            if fault is None or fault.times is None:
                return fault
            if fault.times == 0:
                return None
            fault.times -= 1
            return fault

    def note_connection(self) -> None:
        with self._lock:
            self.connections += 1

    def dies(self, method: str) -> bool | None:
        """Count what is asked. Whether to obey and never say so, or not even that; None is to live."""
        with self._lock:
            self.methods[method] += 1
            n_asked = self.methods.total()
            if self.dies_at is None or n_asked < self.dies_at:
                return None
            return self.acts_dying and n_asked == self.dies_at


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    block_on_close = True
    request_queue_size = 128

    def __init__(self, s3: FaultyS3) -> None:
        self.s3 = s3
        self._open: set[socket.socket] = set()
        self.resetting: set[socket.socket] = set()
        super().__init__(("127.0.0.1", 0), _Exchange)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        self.s3.note_connection()
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        if request in self.resetting:
            self.resetting.discard(request)
            # Closing with no linger time sends RST; the usual shutdown() before it would have sent FIN.
            request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            request.close()
        else:
            super().shutdown_request(request)

    def hang_up(self) -> None:
        """End what is still open, so that threads waiting for a next request on a kept connection come home."""
        for request in list(self._open):
            try:
                request.shutdown(socket.SHUT_RDWR)
            except OSError:  # the client or the exchange was quicker
                continue

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a client that gives up on a hanging answer is what the tests are about."""


class _Exchange(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # connections are kept, as S3 keeps them
    disable_nagle_algorithm = True  # else a body waits 40 ms for the delayed ACK of its head
    server: _Server

    @property
    def s3(self) -> FaultyS3:
        return self.server.s3

    def do_HEAD(self) -> None:
        """HeadBucket."""
        is_there = unquote(urlsplit(self.path).path).strip("/") == self.s3.bucket
        self.send(self.s3.bucket_answer or Answer(200 if is_there else 404, {"Content-Length": "0"}, b""))

    def do_GET(self) -> None:
        where = urlsplit(self.path)
        bucket, _, key = unquote(where.path).removeprefix("/").partition("/")
        query = {name: values[0] for name, values in parse_qs(where.query, keep_blank_values=True).items()}
        fault = self.s3.note_request(key or LISTING, self.headers.get("Authorization", ""))
        if self.s3.dies("GET" if key else "LIST") is not None:
            self.reset_connection()
            return
        if bucket != self.s3.bucket:
            right = refusal(404, "NoSuchBucket")
        elif key:
            right = self._object(key)
        elif query.get("list-type") == "2":
            right = self._listing(query)
        else:
            right = refusal(501, "NotImplemented")
        if fault:
            fault.act(self, right)
        else:
            self.send(right)

    def do_PUT(self) -> None:
        self._write("COPY" if "x-amz-copy-source" in self.headers else "PUT", self._put)

    def do_DELETE(self) -> None:
        self._write("DELETE", self._delete)

    def do_POST(self) -> None:
        self._write("POST", lambda *_: refusal(501, "NotImplemented"))

    def _write(self, method: str, obey: Callable[[str, bytes], Answer]) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        bucket, _, key = unquote(urlsplit(self.path).path).removeprefix("/").partition("/")
        fault = self.s3.note_request(key, self.headers.get("Authorization", ""))
        dies = self.s3.dies(method)
        if dies is False:
            self.reset_connection()
            return
        if fault and fault.is_before:
            fault.act(self, refusal(500, "InternalError"))
            return
        with self.s3.writing:  # S3 looks and writes in one step
            right = obey(key, body) if bucket == self.s3.bucket or method == "POST" else refusal(404, "NoSuchBucket")
        if dies:
            self.reset_connection()
        elif fault:
            fault.act(self, right)
        else:
            self.send(right)

    def _unmet(self, key: str) -> Answer | None:
        """What S3 says to a condition that does not hold."""
        there = self.s3.objects.get(key)
        wanted = self.headers.get("If-Match")
        if wanted is not None and there is None:
            return refusal(404, "NoSuchKey")
        is_met = (wanted is None or (there is not None and wanted == etag(there))) and (
            self.headers.get("If-None-Match") != "*" or there is None
        )
        return None if is_met else refusal(412, "PreconditionFailed")

    def _put(self, key: str, body: bytes) -> Answer:
        source = self.headers.get("x-amz-copy-source")
        if source is not None:
            copied = self.s3.objects.get(unquote(source).removeprefix("/").partition("/")[2])
            if copied is None:
                return refusal(404, "NoSuchKey")
            body = copied
        if unmet := self._unmet(key):
            return unmet
        self.s3.objects[key] = body
        if source is None:
            return Answer(200, {"ETag": etag(body), "Content-Length": "0"}, b"")
        return _xml(
            200,
            f"<CopyObjectResult><ETag>{escape(etag(body))}</ETag>"
            "<LastModified>2026-01-01T00:00:00.000Z</LastModified></CopyObjectResult>",
        )

    def _delete(self, key: str, _: bytes) -> Answer:
        if key in self.s3.objects:
            if unmet := self._unmet(key):
                return unmet
            del self.s3.objects[key]
        return Answer(204, {}, b"")

    def _object(self, key: str) -> Answer:
        data = self.s3.objects.get(key)
        if data is None:
            return refusal(404, "NoSuchKey")
        if self.headers.get("If-None-Match") == etag(data):
            return Answer(304, {"ETag": etag(data)}, b"")
        headers = {"ETag": etag(data), "Content-Type": "binary/octet-stream", "Content-Length": str(len(data))}
        if self.headers.get("x-amz-checksum-mode") == "ENABLED":
            headers["x-amz-checksum-crc32"] = base64.b64encode(zlib.crc32(data).to_bytes(4, "big")).decode()
            headers["x-amz-checksum-type"] = "FULL_OBJECT"
        return Answer(200, headers, data)

    def _listing(self, query: dict[str, str]) -> Answer:
        prefix, after = query.get("prefix", ""), query.get("continuation-token", "").encode()
        objects = dict(self.s3.objects)
        keys = sorted((k for k in objects if k.startswith(prefix) and k.encode() > after), key=str.encode)
        page = keys[: self.s3.page_size]
        is_encoded = query.get("encoding-type") == "url"
        encode: Callable[[str], str] = quote if is_encoded else escape
        contents = "".join(
            f"<Contents><Key>{encode(key)}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
            f"<ETag>{escape(etag(objects[key]))}</ETag><Size>{len(objects[key])}</Size></Contents>"
            for key in page
        )
        more = f"<NextContinuationToken>{escape(page[-1])}</NextContinuationToken>" if len(page) < len(keys) else ""
        return _xml(
            200,
            f'<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>{self.s3.bucket}</Name>'
            f"<Prefix>{encode(prefix)}</Prefix><KeyCount>{len(page)}</KeyCount><MaxKeys>{self.s3.page_size}</MaxKeys>"
            f"{'<EncodingType>url</EncodingType>' if is_encoded else ''}"
            f"<IsTruncated>{'true' if more else 'false'}</IsTruncated>{more}{contents}</ListBucketResult>",
        )

    def send(self, answer: Answer, until: int | None = None) -> None:
        """The head, and the body up to its byte `until`."""
        self.send_response(answer.code)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer.body[:until])

    def wait_for_the_end(self) -> None:
        self.s3.is_closing.wait()
        self.close_connection = True

    def reset_connection(self) -> None:
        self.server.resetting.add(self.connection)
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Tests read `requests`, not stderr."""


def _xml(code: int, text: str) -> Answer:
    body = b'<?xml version="1.0" encoding="UTF-8"?>\n' + text.encode()
    return Answer(code, {"Content-Type": "application/xml", "Content-Length": str(len(body))}, body)
