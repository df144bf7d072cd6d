"""An S3 that takes next to nothing of the machine, so that what is timed beside it is the endpoint's own: answers to
GetObject made beforehand, on one event loop in a process of its own.

    with QuickS3(directory, latency_s=0.02) as s3: ...

Of the objects below the directory each is `segments/NAME` in the bucket `models`; what is put is kept. It knows GetObject,
PutObject, HeadBucket, and a listing that is empty. For S3 that does as S3 does see tests/rig/faulty_s3.py.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import hashlib
import signal
import sys
import zlib
from pathlib import Path

from benchmarks.rig.s3_server import BUCKET, PREFIX, LocalS3

_LISTING = b'<?xml version="1.0"?><ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>'
_MISSING = b'<?xml version="1.0"?><Error><Code>NoSuchKey</Code><Message>there is none</Message></Error>'


class QuickS3(LocalS3):
    """That process."""

    module = "benchmarks.rig.quick_s3"

    @property
    def pid(self) -> int:
        return self._process.pid


class _Connection(asyncio.Protocol):
    """One request after another; a body is read to its length or, in pieces, to the last of them."""

    def __init__(self, answers: dict[str, bytes], latency_s: float) -> None:
        self._answers, self._latency_s = answers, latency_s
        self._data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._data += data
        head, found, rest = self._data.partition(b"\r\n\r\n")
        if not found:
            return
        lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        body = rest[: int(headers.get("content-length", "0"))]
        if len(body) < int(headers.get("content-length", "0")):
            if headers.get("expect"):
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            return
        self._data = rest[len(body) :]
        method, path = lines[0].split(" ")[:2]
        answer = self._answer(method, path, body, headers)
        asyncio.get_running_loop().call_later(self._latency_s, self._transport.write, answer)

    def _answer(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> bytes:
        key = path.partition("?")[0].removeprefix(f"/{BUCKET}/")
        if method == "PUT":
            self._answers[key] = _found(
                _unchunked(body) if "aws-chunked" in headers.get("content-encoding", "") else body
            )
            return _reply(b"200 OK", b"", b'ETag: "put"\r\n')
        if method == "HEAD":
            return _reply(b"200 OK", b"")
        if "list-type" in path:
            return _reply(b"200 OK", _LISTING)
        return self._answers.get(key) or _reply(b"404 Not Found", _MISSING)


def _unchunked(body: bytes) -> bytes:
    """Of `aws-chunked`: a length, what has it, again and again; checksums behind the last."""
    whole = b""
    while True:
        size, _, body = body.partition(b"\r\n")
        n_bytes = int(size.partition(b";")[0], 16)
        if not n_bytes:
            return whole
        whole, body = whole + body[:n_bytes], body[n_bytes + 2 :]


def _found(data: bytes) -> bytes:
    crc = base64.b64encode(zlib.crc32(data).to_bytes(4, "big")).decode()
    etag = hashlib.md5(data).hexdigest()
    headers = f'ETag: "{etag}"\r\nx-amz-checksum-crc32: {crc}\r\nLast-Modified: Sun, 29 Nov 2026 12:00:00 GMT\r\n'
    return _reply(b"200 OK", data, headers.encode())


def _reply(status: bytes, body: bytes, headers: bytes = b"") -> bytes:
    return b"HTTP/1.1 %b\r\n%bContent-Length: %d\r\n\r\n%b" % (status, headers, len(body), body)


async def _serve(answers: dict[str, bytes], latency_s: float) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Connection(answers, latency_s), "127.0.0.1", 0)
    ended = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await ended.wait()


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--latency", type=float, default=0.0)
    chosen = parser.parse_args()
    answers = {PREFIX + path.name: _found(path.read_bytes()) for path in chosen.directory.iterdir()}
    asyncio.run(_serve(answers, chosen.latency))
    return 0


if __name__ == "__main__":
    sys.exit(main())
