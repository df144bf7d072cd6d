"""A store whose outages are told: in the log when one begins, while it lasts and when it ends, and in a metric.

Rule: one line a minute, however many calls fail. At three in the morning the log says what is wrong, not ten thousand times.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator

from handler.errors import ArtifactError, ArtifactForbidden, ArtifactUnavailable
from handler.stores.store import Fetched, Store, StoredObject
from handler.telemetry.recorder import STORE_ERRORS, Recorder
from handler.throttle import Throttle

log = logging.getLogger("mme.store")

SAY_S = 60.0


class MonitoredStore:
    """As the store behind it. What is denied counts as its failing; what is missing or refused does not."""

    def __init__(self, store: Store, recorder: Recorder, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._recorder = recorder
        self._clock = clock
        self._said = Throttle(SAY_S, clock)
        self._lock = threading.Lock()  # guards what follows
        self._failing_since: float | None = None
        self._n_failed = 0
        self._is_told = False  # the log has said that it fails, and not yet that it answers

    @property
    def listed_per_request(self) -> int:
        return self._store.listed_per_request

    def connect(self) -> None:
        self._store.connect()

    def uri(self, target: str) -> str:
        return self._store.uri(target)

    def fetch(self, target: str) -> Fetched:
        try:
            fetched = self._store.fetch(target)
        except ArtifactError as error:
            self._failed(error)
            raise
        self._answered()
        return fetched

    def fetch_if_changed(self, target: str, version: str) -> Fetched | None:
        try:
            fetched = self._store.fetch_if_changed(target, version)
        except ArtifactError as error:
            self._failed(error)
            raise
        self._answered()
        return fetched

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        """A role that may read and not list is no outage, so what is denied here is left to the caller."""
        try:
            yield from self._store.list(prefix)
        except ArtifactUnavailable as error:
            self._failed(error)
            raise
        self._answered()

    def close(self) -> None:
        self._store.close()

    def _failed(self, error: ArtifactError) -> None:
        if not isinstance(error, (ArtifactUnavailable, ArtifactForbidden)):
            return
        self._recorder.count(STORE_ERRORS)
        now = self._clock()
        with self._lock:
            self._n_failed += 1
            n_failed = self._n_failed
            if self._failing_since is None:
                self._failing_since = now
            since_s = now - self._failing_since
            is_due = self._said.is_due()
            self._is_told |= is_due
        if is_due:
            said = f"; it says: {error.detail}" if error.detail else ""
            log.warning("the store fails, %d calls in %.0f s; the last: %s%s", n_failed, since_s, error, said)

    def _answered(self) -> None:
        if self._failing_since is None:
            return
        with self._lock:
            since, n_failed, is_told = self._failing_since, self._n_failed, self._is_told
            self._failing_since, self._n_failed, self._is_told = None, 0, False
        if is_told and since is not None:
            log.info("the store answers again, after %d failed calls in %.0f s", n_failed, self._clock() - since)
