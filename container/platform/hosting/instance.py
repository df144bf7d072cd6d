"""One instance: a container, its disk, and the book of what is loaded there.

    absent -> loading (one flight per target) -> loaded -> unloading -> absent

Rule: the lock guards the book only; nothing is downloaded, loaded or invoked while it is held. A model is unloaded when
nobody uses it, and invoked when nobody unloads it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from container.platform.hosting.contract import Container, ContainerGone, ContainerSlow, Reply
from container.platform.hosting.disk import ArchiveUnreadable, Disk, DiskFull
from container.platform.hosting.errors import (
    ModelError,
    ModelNotReady,
    ServiceError,
    ServiceUnavailable,
    ValidationError,
)
from container.platform.hosting.figures import Figures
from handler.cache.singleflight import Flights
from handler.errors import ArtifactError, ArtifactForbidden, ArtifactMissing, ArtifactRefused
from handler.stores import Store
from handler.telemetry.recorder import (
    MODEL_CACHE_HIT,
    MODEL_DOWNLOADING_TIME,
    MODEL_LOADING_TIME,
    MODEL_LOADING_WAIT_TIME,
    MODEL_UNLOADING_TIME,
)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Clocks:
    """SageMaker's limits, in seconds. Source: guide, "Invoke a Multi-Model Endpoint".

    invoke   InvokeEndpoint's, the load it waits for included
    load     a load goes on this long, after its caller has been told ModelNotReadyException
    stream   for all of a streamed answer, of which a part has the time of an invoke; "your-algorithms-inference-code"
    room     for a model in use to be let go, when nothing else could be unloaded; ours
    """

    invoke_s: float = 60.0
    load_s: float = 360.0
    stream_s: float = 480.0
    room_s: float = 5.0


@dataclass(slots=True)
class _Loaded:
    n_using: int = 0


class Instance:
    """Any number of threads may call `invoke` at once.

    executor    runs loads, and unloads that nobody waits for
    is_cached   False is ModelCacheSetting=Disabled: each model leaves memory and disk right after its invocation
    """

    def __init__(
        self,
        name: str,
        container: Container,
        store: Store,
        root: Path,
        figures: Figures,
        executor: Executor,
        *,
        disk_bytes: int,
        is_cached: bool,
        clocks: Clocks = Clocks(),
    ) -> None:
        self.name = name
        self.container = container
        self._figures = figures
        self._executor = executor
        self._is_cached = is_cached
        self._clocks = clocks
        self._store = store
        self._changed = threading.Condition()
        self._loaded: OrderedDict[str, _Loaded] = OrderedDict()  # by target, least recently used first
        self._unloading: set[str] = set()
        self._flights: Flights[str, None] = Flights(executor)
        self._disk = Disk(root, store, disk_bytes, self._is_on_book)
        self.n_outstanding = 0

    @property
    def disk_share(self) -> float:
        """Of its disk, what downloads have taken."""
        return self._disk.share

    @property
    def n_loaded(self) -> int:
        return len(self._loaded)

    def has(self, target: str) -> bool:
        """Whether it is loaded here, or about to be."""
        return target in self._loaded or target in self._flights

    def invoke(self, target: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        """The container's answer, whatever its status. Raises ServiceError."""
        deadline = time.monotonic() + self._clocks.invoke_s
        is_first_look = True
        for _ in range(3):  # a container that was started again knows nothing of what was loaded
            with self._use(target, deadline, is_first_look):
                is_first_look = False
                try:
                    reply = self.container.invoke(self._disk.opaque(target), body, headers, _left(deadline))
                except ContainerSlow as error:
                    raise timed_out(error) from error
                except ContainerGone as error:
                    self._forget_unless_loaded(target)
                    raise broken_off(error) from error
                is_known = reply.status != 404 or not self._is_lost(target)
            if not self._is_cached:
                self._executor.submit(self._leave, target)
            if is_known:
                return reply
            self._forget(target)
        raise ServiceUnavailable(f"{target} does not stay loaded on {self.name}")

    # -- using ---------------------------------------------------------------------------------------------------------

    @contextmanager
    def _use(self, target: str, deadline: float, is_first_look: bool) -> Iterator[None]:
        start = time.monotonic()
        is_hit = True
        while (entry := self._take(target)) is None:
            is_hit = False
            flight = self._flights.join(target, lambda: self._load(target))
            try:
                flight.result(timeout=max(0.0, deadline - time.monotonic()))
            except FutureTimeout:
                raise ModelNotReady(f"Model {target} is not ready for inference. Retry the request.") from None
        if is_first_look:
            self._figures.add(MODEL_CACHE_HIT, int(is_hit))
        if not is_hit:
            self._figures.add(MODEL_LOADING_WAIT_TIME, _us(start))
        try:
            yield
        finally:
            with self._changed:
                entry.n_using -= 1
                self._changed.notify_all()

    def _take(self, target: str) -> _Loaded | None:
        with self._changed:
            entry = self._loaded.get(target)
            if entry is not None:
                entry.n_using += 1
                self._loaded.move_to_end(target)
            return entry

    # -- loading, on the executor --------------------------------------------------------------------------------------

    def _load(self, target: str) -> None:
        until = time.monotonic() + self._clocks.load_s
        with self._changed:
            if target in self._loaded:
                return
            if not self._changed.wait_for(lambda: target not in self._unloading, self._clocks.load_s):
                raise ServiceUnavailable(f"{target} is still being unloaded on {self.name}")
        path = self._disk.find(target) or self._download(target)
        start = time.monotonic()
        while True:
            try:
                reply = self.container.load(self._disk.opaque(target), str(path), max(0.1, until - time.monotonic()))
            except ContainerSlow as error:
                raise ModelError(0, f"Your model was not loaded within {self._clocks.load_s:g} s") from error
            except ContainerGone as error:
                raise ServiceUnavailable(str(error)) from error
            if reply.status in (200, 409):  # 409: loaded already, by a platform that was here before
                break
            if reply.status != 507:
                raise ModelError(reply.status, reply.body.decode(errors="replace"))
            if not self._unload_oldest(until):
                raise ModelError(507, f"{target} does not fit into memory, and nothing is left to unload")
        self._figures.add(MODEL_LOADING_TIME, _us(start))
        with self._changed:
            self._loaded[target] = _Loaded()
            self._changed.notify_all()

    def _download(self, target: str) -> Path:
        start = time.monotonic()
        where = self._store.uri(target)
        try:
            path = self._disk.fetch(target)
        except (ArtifactMissing, ArtifactForbidden, ArtifactRefused) as error:
            raise ValidationError(
                f"Failed to download model data ({where}). Please ensure that there is an object located at the URL and "
                f"that the role passed to CreateModel has permissions to download the model. {error}"
            ) from error
        except ArchiveUnreadable as error:
            raise ValidationError(f"Failed to extract model data archive from {where}: {error}") from error
        except (ArtifactError, DiskFull) as error:
            raise ServiceUnavailable(str(error)) from error
        self._figures.add(MODEL_DOWNLOADING_TIME, _us(start))
        return path

    # -- unloading -----------------------------------------------------------------------------------------------------

    def _unload_oldest(self, until: float) -> bool:
        """Unload the least recently used model that nobody uses. False when there is none to be had."""
        with self._changed:
            patience_s = max(0.0, min(self._clocks.room_s, until - time.monotonic()))
            if self._unloading:  # another load is making room: what it frees may do for both
                self._changed.wait_for(lambda: not self._unloading, patience_s)
            self._changed.wait_for(lambda: self._oldest() is not None or not self._loaded, patience_s)
            victim = self._oldest()
            if victim is None:
                return False
            self._take_out(victim)
        self._unload(victim)
        return True

    def _oldest(self) -> str | None:
        return next((target for target, entry in self._loaded.items() if not entry.n_using), None)

    def _take_out(self, target: str) -> None:
        del self._loaded[target]
        self._unloading.add(target)

    def _unload(self, target: str) -> None:
        start = time.monotonic()
        try:
            reply = self.container.unload(self._disk.opaque(target))
            if reply.status not in (200, 404):
                log.warning("%s: unloading %s was answered %d", self.name, target, reply.status)
        except (ContainerGone, ContainerSlow) as error:
            log.warning("%s: unloading %s: %s", self.name, target, error)
        finally:
            with self._changed:
                self._unloading.discard(target)
                self._changed.notify_all()
        self._figures.add(MODEL_UNLOADING_TIME, _us(start))

    def _leave(self, target: str) -> None:
        """ModelCacheSetting=Disabled: out of memory and off the disk, unless somebody uses it again."""
        with self._changed:
            entry = self._loaded.get(target)
            if entry is None or entry.n_using:
                return
            self._take_out(target)
        self._unload(target)
        if not self._is_on_book(target):
            self._disk.delete(target)

    # -- the book ------------------------------------------------------------------------------------------------------

    def _is_on_book(self, target: str) -> bool:
        return self.has(target) or target in self._unloading

    def _is_lost(self, target: str) -> bool:
        """Whether the container says that it does not have the model, for a model may answer 404 of its own."""
        try:
            return self._disk.opaque(target) not in set(self.container.loaded())
        except (ContainerGone, ContainerSlow):
            return False

    def _forget_unless_loaded(self, target: str) -> None:
        if self._is_lost(target):
            self._forget(target)

    def _forget(self, target: str) -> None:
        with self._changed:
            self._loaded.pop(target, None)
            self._changed.notify_all()


def as_fault(error: Exception) -> ServiceError:
    """What went wrong, for the caller; a fault of ours when it is none of his."""
    return error if isinstance(error, ServiceError) else ServiceError(f"{type(error).__name__}: {error}")


class SingleModel:
    """An instance whose container has one model, or finds its models itself: calls go straight to it."""

    def __init__(self, name: str, container: Container, clocks: Clocks = Clocks()) -> None:
        self.name = name
        self.container = container
        self._clocks = clocks
        self.n_outstanding = 0

    def invoke(self, body: bytes, headers: Mapping[str, str], *, is_stream: bool = False) -> Reply:
        """The container's answer, whatever its status. Raises ServiceError."""
        stream_s = self._clocks.stream_s if is_stream else None
        try:
            return self.container.invoke_single(body, headers, self._clocks.invoke_s, stream_s=stream_s)
        except ContainerSlow as error:
            raise timed_out(error) from error
        except ContainerGone as error:
            raise broken_off(error) from error


def timed_out(error: ContainerSlow) -> ModelError:
    return ModelError(0, f"Your invocation timed out while waiting for a response: {error}")


def broken_off(error: ContainerGone) -> ModelError:
    return ModelError(0, f"The connection was closed by the container: {error}")


def _left(deadline: float) -> float:
    return max(0.1, deadline - time.monotonic())


def _us(start: float) -> int:
    return round((time.monotonic() - start) * 1e6)
