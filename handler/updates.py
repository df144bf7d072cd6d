"""Artifacts that were overwritten or deleted while their models are in memory.

Rule: no caller waits for this. A call that finds its model unchecked for too long is answered from memory and has the
check done behind it, on threads of its own, so that a store that hangs holds up neither loads nor answers.

    unchanged -> keep    newer -> load beside it, swap    gone -> drop    broken, no room, store failing -> keep, and say so
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Protocol

from handler.cache import Prepared
from handler.errors import ArtifactBroken, ArtifactMissing, ArtifactRefused, ServingError
from handler.telemetry import BROKEN_ARTIFACTS, MODEL_UPDATES, Recorder

log = logging.getLogger(__name__)

# What could not be told is asked again this soon, or after the usual age if that is shorter.
RETRY_S = 5.0
# A store that is away is away for every model; it is said this often.
SAY_S = 10.0


class Replacing(Protocol):
    """What is asked of the cache."""

    def keep(self, target: str, version: str, *, trouble: str = ..., again_s: float = ...) -> None: ...
    def replace(self, target: str, version: str, prepared: Prepared) -> bool: ...
    def drop(self, target: str, version: str | None = None) -> bool: ...


class Updates:
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
    ) -> None:
        self._cache = cache
        self._prepare_if_changed = prepare_if_changed
        self._executor = executor
        self._recorder = recorder
        self._quiet_until = 0.0

    def look(self, target: str, version: str) -> None:
        """Have the model checked. Returns at once."""
        try:
            self._executor.submit(self._check, target, version)
        except RuntimeError:  # it takes no more work: the endpoint is stopping
            log.debug("model %s is not checked any more", target)

    def _check(self, target: str, version: str) -> None:
        try:
            prepared = self._prepare_if_changed(target, version)
            if prepared is None:
                self._cache.keep(target, version)
            elif self._cache.replace(target, version, prepared):
                self._recorder.count(MODEL_UPDATES)
                log.info("model %s: version %s took the place of %s", target, prepared.version, version)
        except ArtifactMissing as error:
            if self._cache.drop(target, version):
                log.info("model %s is served no longer: %s", target, error)
        except (ArtifactBroken, ArtifactRefused) as error:
            self._recorder.count(BROKEN_ARTIFACTS)
            log.warning("model %s stays at version %s, as the newer %s", target, version, error)
            self._cache.keep(target, version, trouble=str(error))
        except ServingError as error:
            self._say_unchecked(target, error)
            self._cache.keep(target, version, trouble=str(error), again_s=RETRY_S)
        except Exception:  # whatever it is, the model must be checked again one day
            log.exception("model %s could not be checked", target)
            self._cache.keep(target, version, trouble="the check failed; see the log", again_s=RETRY_S)

    def _say_unchecked(self, target: str, error: ServingError) -> None:
        now = time.monotonic()
        is_quiet = now < self._quiet_until
        if not is_quiet:
            self._quiet_until = now + SAY_S
        log.log(logging.DEBUG if is_quiet else logging.WARNING, "model %s stays as it is, unchecked: %s", target, error)
