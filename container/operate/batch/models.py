"""Models of a run, loaded once each.

Rule: every answer is of the model that was there when the run began. One that was overwritten since ends the run, because
half a run of each would be neither's.

Not a cache that forgets what was used least recently: each window asks for nearly every model in turn, so it would load all
of them again for each. Where models do not fit together, those that came first stay until all data has gone by them, and
the others have their turn in the next pass.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor, Future, wait
from typing import Protocol

from container.operate.tables.files import FileUnusable
from container.operate.troubles import Misused
from handler.errors import ArtifactError, ArtifactMissing, ArtifactUnavailable, ServingError
from handler.loading.loader import PreparedModel
from handler.predictor import Scorer

LOOK_S = 1.0  # whoever waits for a model looks up so often


class Loader(Protocol):
    def prepare(self, target: str) -> PreparedModel: ...
    def prepare_if_changed(self, target: str, version: str) -> PreparedModel | None: ...


class InAnotherPass:
    """The target has its turn in another pass, or has had it."""


IN_ANOTHER_PASS = InAnotherPass()
Outcome = Scorer | ServingError | InAnotherPass


class RunModels:
    """versions: of each target that has a model. budget_bytes: what models may take. uri: before a target, its full name."""

    def __init__(
        self, loader: Loader, versions: Mapping[str, str], executor: Executor, budget_bytes: int, uri: str
    ) -> None:
        self._loader = loader
        self._versions = versions
        self._executor = executor
        self._budget_bytes = budget_bytes
        self._uri = uri
        self._lock = threading.Lock()  # guards what follows
        self._flights: dict[str, Future[Outcome]] = {}
        self._known: dict[str, Outcome] = {}  # of this pass; read without the lock for each group of each window
        self._n_bytes = 0
        self._is_full = False  # until the pass ends: whoever was sent away once is sent away by all
        self._had: set[str] = set()  # turns in earlier passes
        self._n_passes = 0
        self.n_loads = 0
        # Called while somebody waits for a model; what it raises ends that. A window may name thousands that come from far.
        self.check: Callable[[], None] = lambda: None

    @property
    def is_first_pass(self) -> bool:
        return self._n_passes == 0

    def request(self, targets: Iterable[str]) -> None:
        """Begin to load what is not here, as far as there is room."""
        for target in targets:
            if target not in self._known:
                self._flight(target)

    def model(self, target: str) -> Outcome:
        """The target's model, or why there is none. Raises FileUnusable when it cannot be had just now."""
        known = self._known.get(target)
        if known is not None:
            return known
        flight = self._flight(target)
        while flight is not None and not flight.done():
            self.check()
            wait([flight], LOOK_S)
        outcome = self._known[target] = IN_ANOTHER_PASS if flight is None else flight.result()
        return outcome

    def next_pass(self) -> bool:
        """Let go of all models, whose data has gone by. False when none is left that was sent away."""
        with self._lock:
            is_more = self._is_full
            for target, flight in self._flights.items():
                outcome = flight.result()
                if outcome is not IN_ANOTHER_PASS:
                    self._had.add(target)
                if not isinstance(outcome, ServingError | InAnotherPass):
                    outcome.close()
            self._flights.clear()
            self._known.clear()
            self._n_bytes = 0
            self._is_full = False
            self._n_passes += 1
        return is_more

    def _flight(self, target: str) -> Future[Outcome] | None:
        with self._lock:
            flight = self._flights.get(target)
            if flight is None and not self._is_full and target not in self._had:
                flight = self._flights[target] = self._executor.submit(self._load, target)
            return flight

    def _load(self, target: str) -> Outcome:
        if self._is_full:  # by now; to examine it for nothing would cost as much as to load it
            return IN_ANOTHER_PASS
        prepared = self._prepared(target)
        if isinstance(prepared, ServingError):
            return prepared
        with self._lock:
            # One that is larger than all room there is has its turn alone.
            if self._n_bytes and self._n_bytes + prepared.n_bytes > self._budget_bytes:
                self._is_full = True
                return IN_ANOTHER_PASS
            self._n_bytes += prepared.n_bytes
            self.n_loads += 1
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
            raise Misused(f"{self._uri}{target} was overwritten after the run began; start another run")
        return prepared
