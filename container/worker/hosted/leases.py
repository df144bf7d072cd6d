"""Hosted mode: a model for every MMS worker, held from its load to the end of its connection.

The platform decides what is in memory. Here nothing is evicted: a load that finds no room says so (507), and the platform
unloads what it likes least. A model is keyed by the port MMS gave it, which is never used again, because names are: the old
`x` may still be on its way out when the next `x` is loaded.

    POST /models -> LOAD on a connection -> Lease.load -> borrow from the cache, for as long as the connection lives
    DELETE       -> the connection ends  -> Lease.leave -> drop, trim -> the door is told, and answers

Rule: what the door waits for is written down here before it can be asked for.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

from container.link import wire
from container.worker.hosted.renewal import Renewal
from handler.cache.entry import Prepared
from handler.cache.model_cache import Borrowed, ModelCache
from handler.dispatch import TARGET_HEADER, Leased, Named, Using
from handler.error_responses import plain_fault_of
from handler.errors import ModelNotLoaded, ServingError, TooManyModels, UnloadedMeanwhile
from handler.messages import Answer, Request
from handler.predictor import Scorer

log = logging.getLogger(__name__)

# A load waits this long for the examiner and the loaders: the platform's own limit, less time to answer.
LOAD_WAIT_S = 350.0
# For memory that is on its way back: requests in flight are answered first.
UNLOAD_WAIT_S = 300.0


MMS_SOCKET = ".mms.sock."


def mms_port(socket_name: str) -> int:
    """The port in the name of MMS's socket, `.mms.sock.9003`."""
    return int(socket_name.removeprefix(MMS_SOCKET))


@dataclass(slots=True)
class _Port:
    """What is known of one MMS model's port. `model_name` is empty until a load has come."""

    model_name: str = ""
    n_loading: int = 0  # loads without a reply
    refusal: ServingError | None = None  # of the last load
    has_ended: bool = False  # MMS has unloaded the model
    leases: set[Lease] = field(default_factory=set)  # one for each open connection


class Hosted:
    """The table of ports. Called from connection threads, the door's and the runtime's main thread.

    prepare        examines what a load names
    trim           gives freed memory back to the system before it returns
    max_models     models loaded at once; one more gets TooManyModels
    renewal        told which object a model comes from; None where nothing is renewed
    """

    def __init__(
        self,
        *,
        prepare: Callable[[wire.Load], Prepared],
        trim: Callable[[], None],
        max_models: int,
        renewal: Renewal | None = None,
    ) -> None:
        self._prepare = prepare
        self._renewal = renewal
        self._answer: Callable[[Request, Leased], Answer]
        self._cache: ModelCache
        self._trim = trim
        self._max_models = max_models
        self._lock = threading.Condition()
        self._ports: dict[int, _Port] = {}
        self._loads: dict[str, wire.Load] = {}  # by key, of models loaded or being loaded
        self._named: dict[str, Named] = {}  # by model name, of models loaded

    def open(self, cache: ModelCache, answer: Callable[[Request, Leased], Answer]) -> None:
        """Take what leans on `prepare` itself, before the first connection."""
        self._cache = cache
        self._answer = answer

    def prepare(self, key: str) -> Prepared:
        """The cache's way to a key's model."""
        return self._prepare(self._loads[key])

    def named(self, model_name: str) -> Named | None:
        """Where the cache has a model that is loaded under this name. What comes past MMS asks by name alone; the door lets
        nobody in while a name changes hands."""
        with self._lock:
            return self._named.get(model_name)

    # -- the runtime's main thread -------------------------------------------------------------------------------------

    def opened(self, port: int) -> None:
        with self._lock:
            self._ports.setdefault(port, _Port())

    def connected(self, port: int, hang_up: Callable[[], None]) -> Lease:
        """MMS has connected to this port. Its connection serves with the lease, and ends it with `leave`.

        hang_up   ends the connection, from any thread
        """
        with self._lock:
            place = self._ports[port]
            lease = Lease(self, place, port, hang_up)
            place.leases.add(lease)
        return lease

    def ended(self, port: int) -> None:
        """MMS has unloaded what was loaded there."""
        with self._lock:
            self._ports[port].has_ended = True

    def closed(self, port: int) -> None:
        """Nobody can connect there any more. A worker that MMS started again for an unloaded model still may have; it
        would stay for ever."""
        with self._lock:
            place = self._ports.pop(port)
            leases = list(place.leases)
        for lease in leases:
            lease.hang_up()

    # -- connections ---------------------------------------------------------------------------------------------------

    def enter(self, lease: Lease, load: wire.Load) -> Borrowed:
        """The model of a port, loaded for the first of its connections. Raises ServingError."""
        key = lease.key
        with self._lock:
            place = lease.place
            place.n_loading += 1
            place.model_name = load.model_name
            if place.has_ended:
                raise UnloadedMeanwhile(load.model_name)
            if key not in self._loads:
                if len(self._loads) >= self._max_models:
                    raise TooManyModels(load.model_name, self._max_models)
                self._loads[key] = load
        try:
            return self._cache.borrow(key, LOAD_WAIT_S)
        except BaseException:
            with self._lock:
                if not any(other.is_holding for other in place.leases):
                    self._loads.pop(key, None)
            raise

    def asked(self, lease: Lease) -> None:
        """A model's first call has come. From now on others may come past MMS."""
        with self._lock:
            self._named[lease.name] = Named(lease.key, lease.name)

    def renewed(self, lease: Lease) -> Borrowed | None:
        """The model as it is now, where it may have been renewed; the caller gives back the one it had."""
        return None if self._renewal is None else self._cache.borrow_present(lease.key)

    def told(self) -> None:
        """Have the door's questions look again."""
        with self._lock:
            self._lock.notify_all()

    def answer(self, request: Request, lease: Lease) -> Answer:
        if self._renewal is not None:
            self._renewal.learn(lease.key, request.headers.get(TARGET_HEADER))
        return self._answer(request, lease)

    def load_answered(self, lease: Lease, refusal: ServingError | None) -> None:
        """The reply of a load has been written, or never will be."""
        with self._lock:
            place = lease.place
            place.n_loading -= 1
            place.refusal = refusal
            self._lock.notify_all()

    def left(self, lease: Lease, borrowed: Borrowed | None) -> None:
        """A connection has ended; the model goes with the last that held it."""
        place = lease.place
        with self._lock:
            is_last = borrowed is not None and not any(o.is_holding for o in place.leases if o is not lease)
            if is_last and self._named.get(lease.name) == Named(lease.key, lease.name):
                del self._named[lease.name]
        if borrowed is not None:
            if is_last:
                self._cache.drop(lease.key)  # it stays whole until the next line
            borrowed.__exit__(None, None, None)
        if is_last:
            self._trim()
            if self._renewal is not None:
                self._renewal.forget(lease.key)
        with self._lock:
            if is_last:
                self._loads.pop(lease.key, None)
            place.leases.discard(lease)

    # -- the door's questions ------------------------------------------------------------------------------------------

    def until_unloaded(self, port: int) -> None:
        """Returns when the memory of what was loaded on this port is back."""
        with self._lock:
            place = self._ports.get(port)
            if place is None:
                return
            if not self._lock.wait_for(lambda: not any(o.is_holding for o in place.leases), UNLOAD_WAIT_S):
                log.error("%s: unloaded, but the memory is still in use", place.model_name)

    def why_refused(self, port: int) -> tuple[str, str] | None:
        """The type and the text of what ended the last load on a port; None when nothing is known to have."""
        with self._lock:
            place = self._ports.get(port)
            if place is None:
                return None
            # MMS may have read the reply before the thread that wrote it has come back to say so.
            self._lock.wait_for(lambda: not place.n_loading, LOAD_WAIT_S)
            refusal = place.refusal
        return None if refusal is None else (plain_fault_of(refusal).type, str(refusal))


@dataclass(frozen=True, slots=True)
class _Kept:
    """A lease's model, as one request sees it."""

    model: Scorer
    is_hit: bool
    wait_us: int
    version: str


def _kept(borrowed: Borrowed, is_hit: bool) -> _Kept:
    return _Kept(borrowed.model, is_hit, 0 if is_hit else borrowed.wait_us, borrowed.version)


class Lease:
    """One connection of MMS's, and the model it holds. Used on the connection's thread."""

    def __init__(self, hosted: Hosted, place: _Port, port: int, hang_up: Callable[[], None]) -> None:
        self._hosted = hosted
        self._port = port
        self.place = place
        self.hang_up = hang_up
        self._borrowed: Borrowed | None = None
        self._was_asked = False
        self._model_name = ""
        self._error: ServingError | None = None
        self._owes_reply = False

    @property
    def key(self) -> str:
        """The model's in the cache."""
        return f"{self._model_name}@{self._port}"

    @property
    def is_holding(self) -> bool:
        return self._borrowed is not None

    def load(self, load: wire.Load) -> tuple[int, str]:
        """The reply's code and text. MMS makes the code the status of `POST /models`, and the door asks for the text."""
        if self._borrowed is None:
            self._model_name = load.model_name
            self._owes_reply = True
            try:
                self._borrowed = self._hosted.enter(self, load)
            except ServingError as error:
                self._error = error
                status = plain_fault_of(error).status
                # A worker of MMS's may come back a second after its model was unloaded; nobody waits for that load.
                level = logging.INFO if isinstance(error, UnloadedMeanwhile) else logging.WARNING
                log.log(level, "model %s is not loaded, %d: %s", load.model_name, status, error)
                return status, str(error)
            self._error = None
            log.info("model %s is loaded from %s", load.model_name, load.model_path)
        return 200, f"{load.model_name} is loaded"

    def replied(self) -> None:
        """The reply to whatever came last has been written."""
        if self._owes_reply:
            self._owes_reply = False
            self._hosted.load_answered(self, self._error)

    @property
    def name(self) -> str:
        return self._model_name

    def use(self) -> AbstractContextManager[Using]:
        if self._borrowed is None:
            if self._error is None or isinstance(self._error, UnloadedMeanwhile):
                raise ModelNotLoaded(self._model_name)
            raise self._error
        current = self._hosted.renewed(self)
        if current is not None:
            if current.model is not self._borrowed.model:
                self._borrowed, current = current, self._borrowed
            current.__exit__(None, None, None)
        # The platform loads a model for the call that comes next, so that one was no hit. It stays borrowed afterwards.
        is_first, self._was_asked = not self._was_asked, True
        if is_first:
            self._hosted.asked(self)
        is_hit = self._borrowed.is_hit or not is_first
        return nullcontext(_kept(self._borrowed, is_hit))

    def answer(self, request: Request) -> Answer:
        return self._hosted.answer(request, self)

    def leave(self) -> None:
        """The connection has ended. Its model's memory is back when this returns, if it was the last to hold it."""
        self.replied()
        self._hosted.left(self, self._borrowed)
        self._borrowed = None
        self._hosted.told()
