"""The multi-model container contract, as its caller: load, unload, list, invoke, ping.

Source: SageMaker guide, "Custom Containers Contract for Multi-Model Endpoints".
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import quote, urlencode

import urllib3
from urllib3.exceptions import HTTPError, ProtocolError, TimeoutError

PING_S = 2.0  # SageMaker's limit for one attempt
LIST_S = 10.0
UNLOAD_S = 360.0
POOL_SIZE = 128


class ContainerGone(Exception):
    """The container does not answer: it is not there, or it broke off."""


class ContainerSlow(Exception):
    """The container has not answered in the time it has."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What the container answered. Header names are lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


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

    def invoke_single(self, body: bytes, headers: Mapping[str, str], timeout_s: float) -> Reply:
        """Of a container with one model."""
        return self._call("POST", "/invocations", timeout_s, body, headers)

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
    ) -> Reply:
        for attempt in (1, 2):
            try:
                response = self._pool.urlopen(method, path, body, dict(headers or {}), retries=False, timeout=timeout_s)
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
                return Reply(response.status, lower, response.data)
        raise AssertionError("unreachable")
