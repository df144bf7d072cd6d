"""Small real objects that stand in for large ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from typing import Any

from handler.errors import ArtifactMissing
from handler.stores import Fetched, StoredObject


class FakeClock:
    """Seconds that pass only when told to."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


class InlineExecutor(Executor):
    """Runs what it is given at once, on the caller's thread: one thing after another, the same every time."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as error:  # noqa: BLE001  as every executor does
            future.set_exception(error)
        return future


class MemoryStore:
    """A store in a dict. `error`, when set, is what every call raises, `fetch_error` every fetch and
    `list_error` every listing; `errors` are those of single targets. It counts."""

    listed_per_request = 1000

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.fetch_error: Exception | None = None
        self.list_error: Exception | None = None
        self.errors: dict[str, Exception] = {}
        self.n_listings = self.n_listed = 0
        self.n_fetches = self.n_conditions = self.n_downloads = 0
        self._objects: dict[str, tuple[bytes, str]] = {}
        self._n_puts = 0

    def put(self, target: str, data: bytes) -> None:
        self._n_puts += 1
        self._objects[target] = (data, f'"{self._n_puts}"')

    def delete(self, target: str) -> None:
        del self._objects[target]

    def connect(self) -> None:
        """There is nothing to connect to."""

    def uri(self, target: str) -> str:
        return f"mem:{target}"

    def fetch(self, target: str) -> Fetched:
        self.n_fetches += 1
        return self._get(target)

    def fetch_if_changed(self, target: str, version: str) -> Fetched | None:
        self.n_conditions += 1
        if (
            self.error is None
            and target not in self.errors
            and target in self._objects
            and self._objects[target][1] == version
        ):
            return None
        return self._get(target)

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        self.n_listings += 1
        if error := self.error or self.list_error:
            raise error
        for target, (data, version) in sorted(self._objects.items()):
            if target.startswith(prefix):
                self.n_listed += 1
                yield StoredObject(target, len(data), version)

    def close(self) -> None:
        """There is nothing to close."""

    def _get(self, target: str) -> Fetched:
        if error := self.error or self.fetch_error or self.errors.get(target):
            raise error
        if target not in self._objects:
            raise ArtifactMissing(self.uri(target))
        self.n_downloads += 1
        return Fetched(*self._objects[target], self.uri(target))
