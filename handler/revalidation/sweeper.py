"""Sweeper made of all models in memory, so that idle ones are compared with their artifacts, too.

A model in use is checked behind the call that finds it old; without sweeps the first call after an idle night would still
be answered by yesterday's model. A sweep begins twice in each max age.

    one listing of the prefix, when that is cheaper -> what it shows unchanged is confirmed, all else is asked for
    no listing                                      -> what will be too old before the next sweep is asked for

Asking is one conditional request each, a few at a time.

Rule: a listing only ever confirms. What is to be replaced or dropped has been asked for by itself.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from typing import Protocol

from handler.errors import ArtifactError, ArtifactUnavailable
from handler.stores import Store

log = logging.getLogger(__name__)

SWEEPS_PER_AGE = 2
# S3 charges 12.5 times as much for a listing of up to 1,000 keys as for a GET (aws.amazon.com/s3/pricing), and a page takes
# about as long as that many, too.
LISTING_WORTH_REQUESTS = 12.5
# A prefix may grow slowly, a role be given s3:ListBucket: what was found of listings is believed for so long.
BELIEVED_S = 600.0
BATCH = 1_000  # keys between two looks at the cache


class Aging(Protocol):
    """What is asked of the cache's ages."""

    def due(self, within_s: float = ...) -> Sequence[tuple[str, str]]: ...
    def confirm(self, versions: Mapping[str, str], s_ago: float) -> Iterable[str]: ...
    def begin_check(self, target: str, version: str) -> bool: ...


class Sweeper:
    """A thread; owned by the runtime's main: `start`, then `close`.

    store       listed where that is cheaper; None where models have other names than their objects
    check       compares one model with its artifact; False: the store is away, and there is no use in asking on
    confirmed   told of what a listing has shown unchanged
    executor    runs the checks, `n_at_once` at a time; owned and shut down by the caller
    """

    def __init__(
        self,
        ages: Aging,
        store: Store | None,
        check: Callable[[str, str], bool],
        confirmed: Callable[[str, str], None],
        executor: Executor,
        *,
        max_age_s: float,
        n_at_once: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ages = ages
        self._store = store
        self._check = check
        self._confirmed = confirmed
        self._executor = executor
        self._max_age_s = max_age_s
        self._pause_s = max_age_s / SWEEPS_PER_AGE
        self._clock = clock
        self._slots = threading.Semaphore(n_at_once)
        self._n_at_once = n_at_once
        self._n_keys = 0  # below the prefix: as many as the last listing has shown, or more
        self._no_listing_until = -float("inf")
        self._is_away = False
        self._is_closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sweeper", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Begin nothing further. Does not wait for a request under way, which may take its whole deadline."""
        self._is_closed.set()

    def _run(self) -> None:
        began = self._clock()
        while not self._is_closed.wait(max(0.0, began + self._pause_s - self._clock())):
            began = self._clock()
            try:
                self.make()
            except Exception:  # whatever it is, the next sweep is due all the same
                log.exception("a sweep of the models in memory ended early")

    def make(self) -> None:
        """One sweep; returns when all its requests have been answered."""
        present = self._ages.due()
        is_worth = self._is_listing_worth(len(present))
        due = self._after_listing(present) if is_worth else self._ages.due(self._pause_s)
        self._is_away = False
        for target, version in due:
            self._slots.acquire()
            if self._is_away or self._is_closed.is_set() or not self._begin(target, version):
                self._slots.release()
        for _ in range(self._n_at_once):
            self._slots.acquire()
        self._slots.release(self._n_at_once)

    def _begin(self, target: str, version: str) -> bool:
        if not self._ages.begin_check(target, version):
            return False
        try:
            checking = self._executor.submit(self._ask, target, version)
        except RuntimeError:  # it takes no more work: the endpoint is stopping
            return False
        checking.add_done_callback(lambda _: self._slots.release())
        return True

    def _ask(self, target: str, version: str) -> None:
        if not self._check(target, version):
            self._is_away = True

    def _is_listing_worth(self, n_models: int) -> bool:
        if self._store is None or self._clock() < self._no_listing_until:
            return False
        n_requests = max(1.0, self._n_keys / self._store.listed_per_request)
        return n_requests * LISTING_WORTH_REQUESTS < n_models

    def _after_listing(self, present: Sequence[tuple[str, str]]) -> Sequence[tuple[str, str]]:
        """What is to be asked for: what a listing did not show unchanged, or what is due where there was none."""
        assert self._store is not None
        began = self._clock()
        most_keys = len(present) / LISTING_WORTH_REQUESTS * self._store.listed_per_request
        unchanged: set[str] = set()
        batch: dict[str, str] = {}
        n_keys = 0
        try:
            for found in self._store.list():
                n_keys += 1
                batch[found.target] = found.version
                if n_keys % BATCH == 0:
                    unchanged.update(self._confirm(batch, began))
                    batch.clear()
                    if n_keys >= most_keys or self._is_closed.is_set():
                        self._no_listing_until = self._clock() + BELIEVED_S
                        self._n_keys = n_keys
                        return self._ages.due(self._pause_s)
        except ArtifactUnavailable:
            return self._ages.due(self._pause_s)  # the first check will say so, once for all
        except ArtifactError as error:
            log.info("models in memory are compared one by one, since listing is refused: %s", error)
            self._no_listing_until = self._clock() + BELIEVED_S
            return self._ages.due(self._pause_s)
        unchanged.update(self._confirm(batch, began))
        self._n_keys = n_keys
        return [(target, version) for target, version in present if target not in unchanged]

    def _confirm(self, versions: Mapping[str, str], began: float) -> list[str]:
        # As old as the listing's first request: that is what its answers may date from.
        confirmed = list(self._ages.confirm(versions, self._clock() - began))
        for target in confirmed:
            self._confirmed(target, versions[target])
        return confirmed
