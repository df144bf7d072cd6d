"""The warm list: which models an endpoint's calls ask for most, noted beside them, so that the next start has them in memory.

    s3://acme/prod.warm/ENDPOINT/REPLICA.json      of each replica its own

A replica that is started again under its name begins with what it had. One that is new begins with what all the others
note together, the busiest first, as far as its memory goes.

Rule: it is a help and no duty. What cannot be read or written is said once and costs nobody a call; a list is replaced only
by one of a replica that has been asked for something.
"""

from __future__ import annotations

import heapq
import json
import logging
import math
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from handler.cache.entry import Resident
from handler.errors import ArtifactError, ArtifactMissing, TargetInvalid
from handler.stores.location import LocationInvalid
from handler.stores.writing import WritingStore
from handler.targets import parse_target

log = logging.getLogger("mme.warm")

FORMAT = 1
# A model that came a moment ago and was asked for once has not been asked for once a moment.
YOUNG_S = 300.0
# In which half of what an earlier run knew is forgotten.
KNOWN_HALF_LIFE_S = 3600.0
MAX_LISTS = 32  # the newest, of all replicas there have been
SMALL_BYTES = 1 << 20  # of a model in memory: a start may have many of these in hand at once
_ODD = re.compile(r"[^A-Za-z0-9._-]")


class Holder(Protocol):
    """The cache."""

    def residents(self) -> Sequence[Resident]: ...


@dataclass(frozen=True, slots=True)
class Place:
    """Whose list it is. Names may be anything; what no key should hold becomes `_`."""

    endpoint: str
    replica: str

    @property
    def folder(self) -> str:
        return f"{_plain(self.endpoint)}/"

    @property
    def key(self) -> str:
        return f"{self.folder}{_plain(self.replica)}.json"


class WarmList:
    """Reads the list once, notes it every `interval_s`, and once more when it is closed.

    open_store   opened when it is first needed, on the thread that needs it
    max_models   noted, and given to a start
    """

    def __init__(
        self,
        open_store: Callable[[], WritingStore],
        place: Place,
        holder: Holder,
        *,
        max_models: int,
        interval_s: float,
        clock_s: Callable[[], float] = time.time,
    ) -> None:
        self._open_store = open_store
        self._place = place
        self._holder = holder
        self._max_models = max_models
        self._interval_s = interval_s
        self._clock_s = clock_s
        self._started_s = clock_s()
        self._lock = threading.Lock()  # held while the store is spoken to
        self._store: WritingStore | None = None
        self._known: dict[str, float] = {}  # what the list said, by target
        self._small: frozenset[str] = frozenset()
        self._has_complained = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._note_again, name="warm-list", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def targets(self) -> Iterator[str]:
        """What to have in memory, busiest first."""
        try:
            listed = self._read()
        except (ArtifactError, LocationInvalid) as error:
            self._complain("read", error)
            return
        self._known = {target: one.per_s for target, one in listed.items()}
        self._small = frozenset(target for target, one in listed.items() if one.n_bytes <= SMALL_BYTES)
        yield from list(listed)

    def is_small(self, target: str) -> bool:
        """Whether it was when it was noted; False of what is not in the list."""
        return target in self._small

    def note(self) -> None:
        """Write the list, if anybody has asked for anything."""
        busiest = self._busiest()
        if not busiest:
            return
        text = {
            "format": FORMAT,
            "endpoint": self._place.endpoint,
            "replica": self._place.replica,
            "written_s": round(self._clock_s()),
            "models": [[one.target, float(f"{per_s:.4g}")] for per_s, one in busiest],
            "n_bytes": [one.n_bytes for _, one in busiest],
        }
        try:
            with self._lock:
                self._opened().put(self._place.key, json.dumps(text).encode())
        except (ArtifactError, LocationInvalid) as error:
            self._complain("written", error)

    def close(self, deadline_s: float = 0.75) -> None:
        """Note once more, for at most so long: the end of a process does not wait for a store that is away."""
        self._stop.set()
        self._thread.join(deadline_s)

    def _note_again(self) -> None:
        while not self._stop.wait(self._interval_s):
            self.note()
        self.note()
        with self._lock:
            if self._store is not None:
                self._store.close()
                self._store = None

    def _busiest(self) -> list[tuple[float, Resident]]:
        """Calls a second of each."""
        residents = self._holder.residents()
        if not any(one.hits for one in residents):
            return []
        kept = 0.5 ** ((self._clock_s() - self._started_s) / KNOWN_HALF_LIFE_S)
        rates = ((one.hits / (one.age_s + YOUNG_S) + kept * self._known.get(one.target, 0.0), one) for one in residents)
        return heapq.nsmallest(self._max_models, rates, key=lambda pair: (-pair[0], pair[1].target))

    def _read(self) -> dict[str, _Listed]:
        with self._lock:
            store = self._opened()
            own = _fetch(store, self._place.key)
            if own:
                return dict(_sorted(own)[: self._max_models])
            found = sorted(store.list(self._place.folder), key=lambda one: -one.written_at)[:MAX_LISTS]
            together: dict[str, _Listed] = {}
            for one in found:
                for target, listed in _fetch(store, one.target).items():
                    other = together.get(target, _Listed(0.0, 0))
                    together[target] = _Listed(other.per_s + listed.per_s, max(other.n_bytes, listed.n_bytes))
        return dict(_sorted(together)[: self._max_models])

    def _opened(self) -> WritingStore:
        if self._store is None:
            self._store = self._open_store()
        return self._store

    def _complain(self, done: str, error: Exception) -> None:
        if not self._has_complained:
            self._has_complained = True
            log.warning("the warm list cannot be %s: %s", done, error)


@dataclass(frozen=True, slots=True)
class _Listed:
    """per_s: calls a second; n_bytes: in memory, infinite where a list does not say."""

    per_s: float
    n_bytes: float


def _fetch(store: WritingStore, key: str) -> dict[str, _Listed]:
    """By target; empty when there is no such list, or none that can be read."""
    try:
        return _parsed(json.loads(store.fetch(key).data))
    except ArtifactMissing:
        return {}
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, TargetInvalid, RecursionError) as error:
        log.warning("%s is no warm list: %s", store.uri(key), error)
        return {}


def _parsed(value: Any) -> dict[str, _Listed]:
    if value["format"] != FORMAT:
        raise ValueError(f"format {value['format']!r}, and {FORMAT} is what can be read")
    models = value["models"]
    sizes = value.get("n_bytes", [math.inf] * len(models))  # earlier lists have none
    listed = {
        parse_target(target): _Listed(max(0.0, float(per_s)), float(n_bytes))
        for (target, per_s), n_bytes in zip(models, sizes, strict=True)
    }
    if not all(math.isfinite(one.per_s) for one in listed.values()):
        raise ValueError("nothing is called infinitely often")
    return listed


def _sorted(listed: dict[str, _Listed]) -> list[tuple[str, _Listed]]:
    return sorted(listed.items(), key=lambda pair: (-pair[1].per_s, pair[0]))


def _plain(name: str) -> str:
    return _ODD.sub("_", name).lstrip(".") or "_"
