"""Models of a run, loaded once each.

Rule: every answer is of the model that was there when the run began. One that was overwritten since ends the run, because
half a run of each would be neither's.

Not a cache that forgets what was used least recently: each window asks for nearly every model in turn, so it would load all
of them again for each. Where models do not fit together, those that came first stay until all data has gone by them, and
the rows of the others are put by until these have room (spilled.py).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor, Future, wait
from typing import Protocol

from container.operate.tables.files import FileUnusable
from container.operate.tables.segments import Met
from container.operate.troubles import Misused
from handler.errors import ArtifactError, ArtifactMissing, ArtifactUnavailable, ServingError
from handler.loading.loader import PreparedModel
from handler.predictor import Scorer
from handler.stores.store import StoredObject

LOOK_S = 1.0  # whoever waits for a model looks up so often
MAX_TOGETHER = 32  # models that one job loads
MAX_KEPT = 64  # models that are read from disk together
# Of those, examined together: of what one costs, a twentieth is then messages, and with 16 it was a tenth.
MAX_EXAMINED = 32
EXAMINED_BYTES = 1 << 20


class Loader(Protocol):
    def prepare_kept(self, targets: Sequence[str]) -> Sequence[PreparedModel | None]: ...
    def prepare_all(self, targets: Sequence[str]) -> Sequence[PreparedModel | ArtifactError]: ...
    def prepare_if_changed(self, target: str, version: str) -> PreparedModel | None: ...


class NoRoom:
    """The target's model finds no room beside those that are loaded."""


NO_ROOM = NoRoom()
Outcome = Scorer | ServingError | NoRoom
# What is raised to whoever asks for the model, wherever it was found out.
Trouble = FileUnusable | Misused
Prepare = Callable[[Sequence[str]], Sequence[PreparedModel | ArtifactError | None]]


class RunModels:
    """artifacts: all there are, by target. budget_bytes: what models may take. uri: before a target, its full name."""

    def __init__(
        self, loader: Loader, artifacts: Mapping[str, StoredObject], executor: Executor, budget_bytes: int, uri: str
    ) -> None:
        self._loader = loader
        self._artifacts = artifacts
        self._executor = executor
        self.budget_bytes = budget_bytes
        self._uri = uri
        self.met = Met()  # by the run's windows
        self._lock = threading.Lock()  # guards what follows
        # Each of a few targets, of which it may find that it has not all: then they are another's to begin.
        self._flights: dict[str, Future[Mapping[str, Outcome | Trouble]]] = {}
        self._known: dict[str, Outcome] = {}  # read without the lock for each group of each window
        self._n_bytes = 0
        self._n_artifact_bytes = 0  # of those
        self.is_full = False  # for good: whoever was sent away once is sent away by all
        self.n_loads = 0
        self.is_all_kept = True  # on disk, whatever was asked for: nobody is at work examining it
        # Called while somebody waits for a model; what it raises ends that. A window may name thousands that come from far.
        self.check: Callable[[], None] = lambda: None

    def request(self, targets: Iterable[str]) -> None:
        """Load what is kept on disk and begin to load the rest, as far as there is room. Raises what `check` does."""
        known, artifacts = self._known, self._artifacts
        # Once each: two segments may have one, as x-y and z and x and y-z of a template {a}-{b}.
        asked = dict.fromkeys(target for target in targets if target not in known and target in artifacts)
        new = self._load_kept(list(asked))
        # A job for each costs a quarter as much as to load a model; a few models are for all threads all the same.
        n_together = max(1, min(MAX_TOGETHER, len(new) // MAX_TOGETHER))
        for at in range(0, len(new), n_together):
            with self._lock:
                self._begin(new[at : at + n_together])

    def model(self, target: str) -> Outcome:
        """The target's model, or why there is none. Raises FileUnusable when it cannot be had just now."""
        known = self._known.get(target)
        if known is not None:
            return known
        if target not in self._artifacts:
            return ArtifactMissing(f"{self._uri}{target}")
        if self.is_full and target not in self._flights:
            return NO_ROOM
        outcome: Outcome | Trouble | None = None
        while outcome is None:
            with self._lock:
                self._begin([target])
                flight = self._flights.get(target)
            while flight is not None and not flight.done():
                self.check()
                wait([flight], LOOK_S)
            outcome = NO_ROOM if flight is None else flight.result().get(target)
        if isinstance(outcome, Trouble):
            raise outcome
        self._known[target] = outcome
        return outcome

    def guessed_bytes(self, target: str) -> float:
        """What its model may take, as far as those that were loaded tell: none of it is known for certain."""
        ratio = self._n_bytes / self._n_artifact_bytes if self._n_artifact_bytes else 1.0
        return self._artifacts[target].size * ratio

    def largest_guessed_bytes(self) -> float:
        """Of all models there are."""
        return self.guessed_bytes(max(self._artifacts, key=lambda target: self._artifacts[target].size))

    def others(self, budget_bytes: int) -> RunModels:
        """Nothing loaded yet, for those that find no room here."""
        others = RunModels(self._loader, self._artifacts, self._executor, budget_bytes, self._uri)
        others.check = self.check
        return others

    def let_go(self) -> None:
        """Of all models; none is asked for any more."""
        for flight in set(self._flights.values()):
            if not flight.cancel() and flight.exception() is None:
                for outcome in flight.result().values():
                    if not isinstance(outcome, Exception | NoRoom):
                        outcome.close()
        self._flights.clear()
        self._known.clear()

    def _load_kept(self, targets: Sequence[str]) -> list[str]:
        """Load those that are kept on disk, in this thread: to hand a model to another takes as long as to read it. Returns
        the others, as far as nobody has begun with them."""
        left: list[str] = []
        for at in range(0, len(targets), MAX_KEPT):
            flight: Future[Mapping[str, Outcome | Trouble]] = Future()
            flight.set_running_or_notify_cancel()
            with self._lock:
                new = [target for target in targets[at : at + MAX_KEPT] if target not in self._flights]
                if self.is_full:
                    break
                self._flights.update(dict.fromkeys(new, flight))
            try:
                loaded = self._load_all(new, self._kept, MAX_KEPT)
            except BaseException as error:
                flight.set_exception(error)
                raise
            with self._lock:
                others = [target for target in new if target not in loaded]
                for target in others:
                    del self._flights[target]
            flight.set_result(loaded)
            left += others
        if left:
            self.is_all_kept = False
        return left

    def _kept(self, targets: Sequence[str]) -> list[PreparedModel | None]:
        """What is kept on disk of each, where it is the run's; of any other version the store has to be asked."""
        found = self._loader.prepare_kept(targets)
        return [
            one if one is not None and one.version == self._artifacts[target].version else None
            for target, one in zip(targets, found, strict=True)
        ]

    def _begin(self, targets: Sequence[str]) -> None:
        """To load those that nobody has begun to, one after the other. Under the lock."""
        new = [target for target in targets if target not in self._flights]
        if new and not self.is_full:
            flight = self._executor.submit(self._load_all, new, self._loader.prepare_all, MAX_EXAMINED)
            self._flights.update(dict.fromkeys(new, flight))

    def _load_all(self, targets: Sequence[str], prepare: Prepare, most: int) -> Mapping[str, Outcome | Trouble]:
        """prepare: so many of them together as `most` at the most; of those that it has nothing of, there is nothing here."""
        loaded: dict[str, Outcome | Trouble] = {}
        n_done = 0
        while n_done < len(targets):
            self.check()  # what it raises, whoever waits for one of them hears
            few = self._few(targets[n_done : n_done + most])
            n_done += len(few)
            if self.is_full:  # by now; to examine them for nothing would cost as much as to load them
                loaded.update(dict.fromkeys(few, NO_ROOM))
                continue
            for target, prepared in zip(few, prepare(few), strict=True):
                if prepared is not None:
                    outcome = loaded[target] = self._load(target, prepared)
                    if not isinstance(outcome, Trouble):
                        self._known[target] = outcome
        return loaded

    def _few(self, targets: Sequence[str]) -> Sequence[str]:
        """The first of them: as many as are examined or read together, and find room if guesses are right."""
        left_bytes, room_bytes = float(EXAMINED_BYTES), float(self.budget_bytes - self._n_bytes)
        for n, target in enumerate(targets):
            left_bytes -= self._artifacts[target].size
            room_bytes -= self.guessed_bytes(target)
            if n and (left_bytes < 0 or room_bytes < 0):
                return targets[:n]
        return targets

    def _load(self, target: str, found: PreparedModel | ArtifactError) -> Outcome | Trouble:
        prepared = self._of_the_run(target, found)
        if isinstance(prepared, ServingError | Trouble):
            return prepared
        with self._lock:
            # One that is larger than all room there is has it alone.
            if self.is_full or (self._n_bytes and self._n_bytes + prepared.n_bytes > self.budget_bytes):
                self.is_full = True
                return NO_ROOM
            self._n_bytes += prepared.n_bytes
            self._n_artifact_bytes += self._artifacts[target].size
            self.n_loads += 1
        return prepared.load()

    def _of_the_run(self, target: str, found: PreparedModel | ArtifactError) -> PreparedModel | ServingError | Trouble:
        """The model as it was when the run began."""
        version = self._artifacts[target].version
        prepared: PreparedModel | None = None
        try:
            if isinstance(found, ArtifactError):
                raise found
            prepared = found
            if prepared.version != version:  # as kept on disk, perhaps
                prepared = self._loader.prepare_if_changed(target, prepared.version)
        except ArtifactUnavailable as error:
            with self._lock:
                self._flights.pop(target, None)
            return FileUnusable(str(error), is_passing=True)
        except ArtifactError as error:
            return error
        if prepared is None or prepared.version != version:
            return Misused(f"{self._uri}{target} was overwritten after the run began; start another run")
        return prepared
