"""Models of a run, loaded once each and kept.

Rule: every answer is of the model that was there when the run began. One that was overwritten since ends the run, because
half a run of each would be neither's.

Not a cache that forgets what was used least recently: each window asks for nearly every model in turn, so it would load all
of them again for each. What finds no room here is loaded for its group and let go.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from typing import Protocol

from container.operate.batch.troubles import FileUnusable, RunRefused
from handler.errors import ArtifactError, ArtifactMissing, ArtifactUnavailable, ServingError
from handler.loading.loader import PreparedModel
from handler.predictor import Scorer


class Loader(Protocol):
    def prepare(self, target: str) -> PreparedModel: ...
    def prepare_if_changed(self, target: str, version: str) -> PreparedModel | None: ...


class Shelf:
    """versions: of each target that has a model. budget_bytes: what is kept. uri: a target's full name."""

    def __init__(
        self, loader: Loader, versions: Mapping[str, str], executor: Executor, budget_bytes: int, uri: str
    ) -> None:
        self._loader = loader
        self._versions = versions
        self._executor = executor
        self._budget_bytes = budget_bytes
        self._uri = uri
        self._lock = threading.Lock()
        self._flights: dict[str, Future[Scorer | ServingError]] = {}
        self._n_bytes = 0
        self.n_loads = 0

    def request(self, targets: Iterable[str]) -> None:
        """Begin to load what is not here, as far as there is room."""
        for target in targets:
            if self._n_bytes < self._budget_bytes:
                self._flight(target)

    @contextmanager
    def model(self, target: str) -> Iterator[Scorer | ServingError]:
        """The target's model, or why there is none. Raises FileUnusable when it cannot be had just now."""
        outcome = self._flight(target).result()
        if outcome is not _NO_ROOM:
            yield outcome
            return
        prepared = self._prepared(target)
        if isinstance(prepared, ServingError):
            yield prepared
            return
        model = prepared.load()
        try:
            yield model
        finally:
            model.close()

    def _flight(self, target: str) -> Future[Scorer | ServingError]:
        with self._lock:
            flight = self._flights.get(target)
            if flight is None:
                flight = self._flights[target] = self._executor.submit(self._load, target)
            return flight

    def _load(self, target: str) -> Scorer | ServingError:
        if self._n_bytes >= self._budget_bytes:
            return _NO_ROOM
        prepared = self._prepared(target)
        if isinstance(prepared, ServingError):
            return prepared
        with self._lock:
            if self._n_bytes + prepared.n_bytes > self._budget_bytes:
                return _NO_ROOM
            self._n_bytes += prepared.n_bytes
        return prepared.load()

    def _prepared(self, target: str) -> PreparedModel | ServingError:
        version = self._versions.get(target)
        if version is None:
            return ArtifactMissing(f"{self._uri}{target}")
        try:
            prepared: PreparedModel | None = self._loader.prepare(target)
            assert prepared is not None
            if prepared.version != version:  # as kept on disk, perhaps
                prepared = self._loader.prepare_if_changed(target, prepared.version)
        except ArtifactUnavailable as error:
            with self._lock:
                self._flights.pop(target, None)
            raise FileUnusable(str(error), is_passing=True) from error
        except ArtifactError as error:
            return error
        if prepared is None or prepared.version != version:
            raise RunRefused(f"{self._uri}{target} was overwritten after the run began; start another run")
        with self._lock:
            self.n_loads += 1
        return prepared


class _NoRoom(ServingError):
    """Not kept: it is loaded for each group of rows anew."""


_NO_ROOM = _NoRoom("no room")
