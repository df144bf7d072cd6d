"""Models loaded before anybody asks for them.

Rule: preloading evicts nobody and ends where the memory does; only pinned models, which come first, make room for
themselves. Whatever fails here is said and left to the first call that names it: an endpoint that comes up with some
models cold is better than one that does not come up.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from handler.cache.model_cache import ModelCache
from handler.errors import ArtifactError, ArtifactUnavailable, NoRoom, ServingError, Unavailable
from handler.patterns import Patterns
from handler.stores import Store
from handler.throttle import Throttle

log = logging.getLogger("mme.preload")

PROGRESS_S = 2.0
SAID_FAILURES = 5
AWAY_AFTER = 10  # loads in a row that found no store; each may have taken its whole deadline


class Preload:
    """Loads what matches, on threads of its own. Owned by the runtime's main: `start`, then `close`.

    pinned      loaded first, and never evicted afterwards
    warm        loaded next, and no more of it than there is room for; asked for on one of the threads
    n_threads   models loaded at the same time
    n_small     the same, of those that are known to be small: where S3 takes 20 ms for each, few threads mostly wait
    is_small    whether one is known to be
    on_done     called once, on one of the threads, when all that could be loaded is; not when closed before
    """

    def __init__(
        self,
        cache: ModelCache,
        store: Store,
        *,
        pinned: Patterns,
        preloaded: Patterns,
        warm: Iterable[str] = (),
        n_threads: int,
        n_small: int = 0,
        is_small: Callable[[str], bool] = lambda _: False,
        on_done: Callable[[], object],
    ) -> None:
        self._cache = cache
        self._store = store
        self._pinned = pinned
        self._preloaded = preloaded
        self._warm = warm
        self._is_small = is_small
        self._on_done = on_done
        self._any_size = threading.BoundedSemaphore(n_threads)  # its holders load models of any size
        self._turn = threading.Lock()  # whose turn it is to begin: models are begun in their order
        self._lock = threading.Lock()  # guards everything below
        self._targets = self._matching()
        self._is_all_begun = False
        self._is_over = False  # no further load is begun, of what is begun with neither
        self._n_working = max(n_threads, n_small)
        self._n_loaded = self._n_failed = 0
        self._n_away = 0  # loads in a row that found the store away
        self._started_at = time.monotonic()
        self._said = Throttle(PROGRESS_S)
        self._said.is_due()  # the first line comes after a while, too
        self._threads = [
            threading.Thread(target=self._work, name="preload", daemon=True) for _ in range(self._n_working)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    @property
    def is_done(self) -> bool:
        return self._n_working == 0

    def close(self) -> None:
        """Begin no further load."""
        with self._lock:
            self._is_over = True

    def _matching(self) -> Iterator[str]:
        yield from self._pinned.targets(self._store)
        warm = set()
        for target in self._warm:
            if not self._pinned.match(target):
                warm.add(target)
                yield target
        for target in self._preloaded.targets(self._store):
            if not self._pinned.match(target) and target not in warm:
                yield target

    def _work(self) -> None:
        try:
            while (begun := self._begin()) is not None:
                target, place = begun
                with place:
                    if not self._is_over:
                        self._load(target)
        finally:  # whatever happens, the endpoint does not wait for ever
            with self._lock:
                self._n_working -= 1
                is_last = self._n_working == 0
            if is_last and not self._cache.is_closed:
                log.info("preloaded %s", self._so_far())
                self._on_done()

    def _begin(self) -> tuple[str, AbstractContextManager[None]] | None:
        """The next model, and the place it is loaded in, which is given back at the end."""
        with self._turn:
            target = self._next()
            if target is None:
                return None
            if self._is_small(target):
                return target, nullcontext()
            self._any_size.acquire()
            return target, _given_back(self._any_size)

    def _next(self) -> str | None:
        with self._lock:
            if self._is_over or self._is_all_begun:
                return None
            try:
                target = next(self._targets, None)
            except ArtifactError as error:
                log.error("not everything can be preloaded: %s", error)
                target = None
            self._is_all_begun = target is None
            return target

    def _load(self, target: str) -> None:
        try:
            is_in = self._cache.fill(target)
        except Unavailable:  # the endpoint is stopping
            self.close()
            return
        except ServingError as error:
            self._count_failure(target, error)
            return
        except Exception:
            log.exception("model %s is not preloaded", target)
            return
        with self._lock:
            if is_in:
                self._n_loaded += 1
                self._n_away = 0
                self._say_progress()
            elif not self._is_over:
                self._is_over = True
                log.warning("the memory for models is full; the rest is loaded when it is asked for")

    def _count_failure(self, target: str, error: ServingError) -> None:
        with self._lock:
            self._n_failed += 1
            self._n_away = self._n_away + 1 if isinstance(error, ArtifactUnavailable) else 0
            if isinstance(error, NoRoom) and self._pinned.match(target):
                log.error("pinned models need more than all memory for models: %s", error)
            elif self._n_failed <= SAID_FAILURES:
                log.warning("model %s is not preloaded: %s", target, error)
            if self._n_away >= AWAY_AFTER and not self._is_over:
                self._is_over = True
                log.error("the store is away; what is missing is loaded when it is asked for")

    def _say_progress(self) -> None:
        if self._said.is_due():
            log.info("preloading: %s so far", self._so_far())

    def _so_far(self) -> str:
        failed = f", {self._n_failed} could not be loaded" if self._n_failed else ""
        used, budget = self._cache.resident_bytes, self._cache.budget_bytes
        took_s = time.monotonic() - self._started_at
        return f"{self._n_loaded} models in {took_s:.1f} s, {used} of {budget} bytes{failed}"


@contextmanager
def _given_back(place: threading.Semaphore) -> Iterator[None]:
    try:
        yield
    finally:
        place.release()
