"""Artifacts that were overwritten or deleted while their models are in memory.

Rule: no caller waits for this. A model that is unchecked for too long answers from memory and has the check done behind it,
on threads of its own, so that a store that hangs holds up neither loads nor answers.

    unchanged -> keep    newer -> load beside it, swap    gone -> drop    broken, no room, store failing -> keep, and say so
    denied    -> keep, unless it is this object alone

S3 says AccessDenied, not NoSuchKey, for a deleted object to a role without s3:ListBucket. It says so, too, of every object
while a policy is being changed. What tells them apart are the other models: denied `GONE_AFTER` times over, and each time
another could be read since the time before, an object is gone, or is not to be served by this role any more.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Protocol

from handler.bounded_table import BoundedTable
from handler.cache.entry import Prepared
from handler.errors import (
    ArtifactBroken,
    ArtifactForbidden,
    ArtifactMissing,
    ArtifactRefused,
    ArtifactUnavailable,
    ServingError,
)
from handler.telemetry.recorder import BROKEN_ARTIFACTS, MODEL_UPDATES, Recorder
from handler.throttle import Throttle

log = logging.getLogger(__name__)

# What could not be told is asked again this soon, or after the usual age if that is shorter.
RETRY_S = 5.0
# A store that is away is away for every model; it is said this often.
SAY_S = 10.0
GONE_AFTER = 3
DENIED = frozenset({"AccessDenied"})  # other 403s are about the credentials
MAX_DENIED = 10_000  # more of them were evicted while in doubt


class Keeping(Protocol):
    """What is asked of the cache's ages."""

    def keep(self, target: str, version: str, *, trouble: str = ..., again_s: float = ...) -> None: ...


class Replacing(Protocol):
    """What is asked of the cache."""

    @property
    def ages(self) -> Keeping: ...
    def replace(self, target: str, version: str, prepared: Prepared) -> bool: ...
    def drop(self, target: str, version: str | None = None) -> bool: ...


class Revalidator:
    """Checks models against their store; `look` is what `ModelCache.watch_age` wants.

    prepare_if_changed   a newer artifact than this version, fetched and examined, or None
    executor             runs the checks, as many at once as it has threads; owned and shut down by the caller
    """

    def __init__(
        self,
        cache: Replacing,
        prepare_if_changed: Callable[[str, str], Prepared | None],
        executor: Executor,
        recorder: Recorder,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cache = cache
        self._prepare_if_changed = prepare_if_changed
        self._executor = executor
        self._recorder = recorder
        self._clock = clock
        self._said = Throttle(SAY_S, clock)
        self._read_at = -math.inf  # when the store has last let us read anything
        self._denied: BoundedTable[str, tuple[int, float]] = BoundedTable(MAX_DENIED)  # how often, and when last

    def look(self, target: str, version: str) -> None:
        """Have the model checked. Returns at once."""
        try:
            self._executor.submit(self.check, target, version)
        except RuntimeError:  # it takes no more work: the endpoint is stopping
            log.debug("model %s is not checked any more", target)

    def check(self, target: str, version: str) -> bool:
        """Compare one model with its artifact, and do what follows. False: the store could not be asked."""
        try:
            prepared = self._prepare_if_changed(target, version)
            self._read_at = self._clock()
            self._denied.pop(target, None)
            if prepared is None:
                self._cache.ages.keep(target, version)
            elif self._cache.replace(target, version, prepared):
                self._recorder.count(MODEL_UPDATES)
                log.info("model %s: version %s took the place of %s", target, prepared.version, version)
        except ArtifactMissing as error:
            if self._cache.drop(target, version):
                log.info("model %s is served no longer: %s", target, error)
        except ArtifactForbidden as error:
            if self._is_gone(target, error):
                if self._cache.drop(target, version):
                    log.warning("model %s is served no longer, as others can be read: %s", target, error)
            else:
                self._say_unchecked(target, error)
                self._cache.ages.keep(target, version, trouble=str(error), again_s=RETRY_S)
        except (ArtifactBroken, ArtifactRefused) as error:
            self._recorder.count(BROKEN_ARTIFACTS)
            log.warning("model %s stays at version %s, as the newer %s", target, version, error)
            self._cache.ages.keep(target, version, trouble=str(error))
        except ServingError as error:
            self._say_unchecked(target, error)
            self._cache.ages.keep(target, version, trouble=str(error), again_s=RETRY_S)
            return not isinstance(error, ArtifactUnavailable)
        except Exception:  # whatever it is, the model must be checked again one day
            log.exception("model %s could not be checked", target)
            self._cache.ages.keep(target, version, trouble="the check failed; see the log", again_s=RETRY_S)
        return True

    def _is_gone(self, target: str, error: ArtifactForbidden) -> bool:
        n_times, last = self._denied.get(target, (0, -math.inf))
        if error.code not in DENIED or self._read_at <= last:
            return False
        if n_times + 1 >= GONE_AFTER:
            del self._denied[target]
            return True
        self._denied.put(target, (n_times + 1, self._clock()))
        return False

    def _say_unchecked(self, target: str, error: ServingError) -> None:
        log.log(
            logging.WARNING if self._said.is_due() else logging.DEBUG,
            "model %s stays as it is, unchecked: %s",
            target,
            error,
        )
