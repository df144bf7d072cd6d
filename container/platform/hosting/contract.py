"""The multi-model container contract, as its caller: load, unload, list, invoke, ping.

Source: SageMaker guide, "Custom Containers Contract for Multi-Model Endpoints".
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import quote, urlencode

import urllib3
from urllib3.exceptions import HTTPError, ProtocolError, TimeoutError

PING_S = 2.0  # SageMaker's limit for one attempt
LIST_S = 10.0
UNLOAD_S = 360.0
POOL_SIZE = 128
PART_BYTES = 64 << 10  # of a stream, at most; a chunk that is smaller is a part of its own


class ContainerGone(Exception):
    """The container does not answer: it is not there, or it broke off."""


class ContainerSlow(Exception):
    """The container has not answered in the time it has."""


class Parts:
    """A body as it comes. Whoever has one reads it to its end or closes it. Raises ContainerGone, ContainerSlow.

    until_s   of monotonic time, when all of it is to be there
    """

    def __init__(self, response: urllib3.response.BaseHTTPResponse, until_s: float) -> None:
        self._response = response
        self._until_s = until_s
        self._then: list[Callable[[], None]] = []

    def __iter__(self) -> Iterator[bytes]:
        try:
            for part in self._response.stream(PART_BYTES):
                if time.monotonic() > self._until_s:
                    raise ContainerSlow("the stream goes on too long")
                yield part
        except TimeoutError as error:
            raise ContainerSlow(str(error)) from error
        except HTTPError as error:
            raise ContainerGone(str(error)) from error
        finally:
            self.close()

    def then(self, done: Callable[[], None]) -> None:
        """Call it when nothing more is read."""
        self._then.append(done)

    def close(self) -> None:
        self._response.close()
        while self._then:
            self._then.pop()()


@dataclass(frozen=True, slots=True)
class Reply:
    """What the container answered. Header names are lower case. parts: the body where it was asked for as a stream."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    parts: Parts | None = None

    def then(self, done: Callable[[], None]) -> Reply:
        """Itself; calls `done` when all of it has come."""
        if self.parts is None:
            done()
        else:
            self.parts.then(done)
        return self


class Container:
    """One container at a URL. Any number of threads may call it at once. Raises ContainerGone, ContainerSlow."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._pool = urllib3.connectionpool.connection_from_url(self.url, maxsize=POOL_SIZE, block=False)

    def is_healthy(self) -> bool:
        try:
            return self._call("GET", "/ping", PING_S).status == 200
        except (ContainerGone, ContainerSlow):
            return False

    def load(self, name: str, path: str, timeout_s: float) -> Reply:
        body = json.dumps({"model_name": name, "url": path}).encode()
        return self._call("POST", "/models", timeout_s, body, {"Content-Type": "application/json"})

    def unload(self, name: str) -> Reply:
        return self._call("DELETE", f"/models/{quote(name, safe='')}", UNLOAD_S)

    def invoke(self, name: str, body: bytes, headers: Mapping[str, str], timeout_s: float) -> Reply:
        return self._call("POST", f"/models/{quote(name, safe='')}/invoke", timeout_s, body, headers)

    def invoke_single(
        self, body: bytes, headers: Mapping[str, str], timeout_s: float, *, stream_s: float | None = None
    ) -> Reply:
        """Of a container with one model. stream_s: for all of an answer that is to be a stream."""
        return self._call("POST", "/invocations", timeout_s, body, headers, stream_s)

    def loaded(self) -> Iterator[str]:
        """Names of the loaded models, fetched page by page."""
        token: str | None = None
        while True:
            query = "?" + urlencode({"next_page_token": token}) if token else ""
            reply = self._call("GET", f"/models{query}", LIST_S)
            if reply.status != 200:
                raise ContainerGone(f"GET /models was answered {reply.status}")
            page = json.loads(reply.body)
            for model in page["models"]:
                yield model["modelName"]
            token = page.get("nextPageToken")
            if not token:
                return

    def close(self) -> None:
        self._pool.close()

    def _call(
        self,
        method: str,
        path: str,
        timeout_s: float,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        stream_s: float | None = None,
    ) -> Reply:
        until_s = time.monotonic() + (stream_s or 0.0)
        for attempt in (1, 2):
            try:
                response = self._pool.urlopen(
                    method,
                    path,
                    body,
                    dict(headers or {}),
                    retries=False,
                    timeout=timeout_s,
                    preload_content=not stream_s,
                )
                is_stream = stream_s is not None and response.status == 200
                data = b"" if is_stream else response.data
            except TimeoutError as error:
                raise ContainerSlow(f"{method} {path}: no answer in {timeout_s:.0f} s") from error
            except ProtocolError as error:
                # A kept connection that the container closed just then; a new one tells whether it is there.
                if attempt == 2:
                    raise ContainerGone(f"{method} {path}: {error}") from error
            except HTTPError as error:
                raise ContainerGone(f"{method} {path}: {error}") from error
            else:
                lower = {name.lower(): value for name, value in response.headers.items()}
                return Reply(response.status, lower, data, Parts(response, until_s) if is_stream else None)
        raise AssertionError("unreachable")
