"""What the store's listing says there is, asked for only while callers keep naming what is not there.

Thousands of invented names would otherwise be asked of the store one by one, on the threads that load real models. One page
of a listing knows a thousand names.

Rule: a name is denied without asking the store only for FRESH_S after a whole listing that did not hold it, and only while
many are missed. Who drops an artifact and then calls is served, unless somebody has been naming hundreds that are not there.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from itertools import islice

from handler.errors import ArtifactError
from handler.stores.store import StoredObject

log = logging.getLogger(__name__)

# So many missed within so long are no accident.
MANY_MISSED = 100
MISSED_S = 10.0
FRESH_S = 5.0
# A listing that failed or was too long is not tried again for so long.
PAUSE_S = 60.0
# Names of a hundred characters: 20 MB, for as long as the listing is fresh.
MAX_NAMES = 100_000


class Catalogue:
    """Safe to use from many threads.

    list_all   every artifact there is
    start      runs something on another thread
    """

    def __init__(
        self,
        list_all: Callable[[], Iterable[StoredObject]],
        start: Callable[[Callable[[], None]], object] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._list_all = list_all
        self._start = start or _on_a_thread
        self._clock = clock
        self._lock = threading.Lock()  # guards what follows
        self._names: frozenset[str] = frozenset()
        self._listed_at = -FRESH_S  # when the listing of these names began
        self._missed_since = -MISSED_S
        self._n_missed = 0
        self._is_listing = False
        self._not_before = 0.0

    def missed(self) -> None:
        """The store has just been asked for something that is not there."""
        now = self._clock()
        with self._lock:
            if now - self._missed_since >= MISSED_S:
                self._missed_since, self._n_missed = now, 0
            self._n_missed += 1
            wants_listing = self._n_missed >= MANY_MISSED and self._may_list(now)
        if wants_listing:
            self._start(self._look)

    def denies(self, target: str) -> bool:
        """Whether a fresh listing did not hold it. Takes no time."""
        now = self._clock()
        age_s = now - self._listed_at
        if age_s >= FRESH_S:
            if self._names:
                self._names = frozenset()
            return False
        if target in self._names:
            return False
        if age_s >= FRESH_S / 2:  # the next is there when this one has grown old
            with self._lock:
                wants_listing = self._may_list(now)
            if wants_listing:
                self._start(self._look)
        return True

    def _may_list(self, now: float) -> bool:
        """Under the lock. True once: whoever is told so starts the listing."""
        if self._is_listing or now < self._not_before or now - self._listed_at < FRESH_S / 2:
            return False
        self._is_listing = True
        return True

    def _look(self) -> None:
        began_at = self._clock()
        names: frozenset[str] | None = None
        try:
            names = frozenset(one.target for one in islice(self._list_all(), MAX_NAMES + 1))
        except ArtifactError as error:
            log.warning("many callers name what is not there, and no listing tells what is: %s", error)
        with self._lock:
            self._is_listing = False
            if names is None or len(names) > MAX_NAMES:
                self._not_before = self._clock() + PAUSE_S
            else:
                self._names, self._listed_at = names, began_at


def _on_a_thread(work: Callable[[], None]) -> None:
    threading.Thread(target=work, name="catalogue", daemon=True).start()
