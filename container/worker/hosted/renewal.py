"""Hosted mode's models whose artifacts were overwritten: the platform never looks again at an object that it has unpacked.
Given the prefix it unpacks from, this runtime does.

The platform names a model by a hash. Which object that is the target header of the model's calls says; the first one counts.

    LOAD -> version of what was unpacked      first call through MMS -> target      older than max age -> compare, swap

Nobody tells which version of the object was unpacked, and it may be an old one: the platform keeps what it has unpacked.
So a model's first comparison fetches the object and compares what is in it; all later ones are conditional on its ETag.

Rule: which models are in memory is the platform's business. One is renewed where it is, never dropped: not when its object is
gone, and not for want of room.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace

from handler.cache.ages import Ages
from handler.cache.entry import Prepared
from handler.cache.model_cache import ModelCache
from handler.errors import TargetInvalid
from handler.loading.loader import ModelLoader, PreparedModel
from handler.targets import as_sent, parse_target

log = logging.getLogger(__name__)

NO_ETAG = '"-"'  # no object's: whatever is there has changed since


def versioned(prepared: PreparedModel) -> PreparedModel:
    """Its version is what is in it, which is all that an unpacked artifact and its object have in common."""
    digest = hashlib.sha256(repr(prepared.folds).encode())
    for document in prepared.documents:
        digest.update(document)
    return replace(prepared, version=f"sha256:{digest.hexdigest()[:32]}")


@dataclass(slots=True)
class _Origin:
    """Where a model comes from, and what was there when it was last compared; empty before that."""

    target: str
    etag: str = ""
    version: str = ""


class Renewal:
    """What a revalidator asks, in the keys of the cache.

    loader     of the prefix the platform unpacks from
    extra_bytes   what a hosted model takes besides its booster
    hook       gives a model the object that hooks are to see
    """

    def __init__(
        self,
        loader: ModelLoader,
        *,
        extra_bytes: int,
        hook: Callable[[str, PreparedModel], PreparedModel],
    ) -> None:
        self._loader = loader
        self._extra_bytes = extra_bytes
        self._hook = hook
        self._lock = threading.Lock()
        self._origins: dict[str, _Origin] = {}  # by key, of models that have been asked for by their target

    def learn(self, key: str, raw: str | None) -> None:
        """A call for this model has named its target so."""
        if raw is None or key in self._origins:
            return
        try:
            target = parse_target(as_sent(raw))
        except TargetInvalid as error:
            log.debug("model %s cannot be compared with its object: %s", key, error)
            return
        with self._lock:
            self._origins.setdefault(key, _Origin(target))

    def forget(self, key: str) -> None:
        with self._lock:
            self._origins.pop(key, None)

    def prepare_if_changed(self, key: str, version: str) -> PreparedModel | None:
        """The model in the object as it is now, when that is not `version`. Raises ServingError."""
        with self._lock:
            origin = self._origins.get(key)
        if origin is None:  # nobody has named it yet
            return None
        known = origin.etag if origin.version == version else NO_ETAG
        found = self._loader.prepare_if_changed(origin.target, known)
        if found is None:
            return None
        newer = versioned(found)
        origin.etag, origin.version = found.version, newer.version
        if newer.version == version:
            return None
        return self._hook(key, replace(newer, n_bytes=newer.n_bytes + self._extra_bytes))


class HeldModels:
    """The cache as a revalidator may change it here."""

    def __init__(self, cache: ModelCache) -> None:
        self._cache = cache

    @property
    def ages(self) -> Ages:
        return self._cache.ages

    def replace(self, target: str, version: str, prepared: Prepared) -> bool:
        return self._cache.replace(target, version, prepared, may_leave=False)

    def drop(self, target: str, version: str | None = None) -> bool:
        """Its object is gone. The platform unloads it, or does not."""
        assert version is not None
        self._cache.ages.keep(target, version, trouble="its object is gone; the platform has not unloaded the model")
        return False
