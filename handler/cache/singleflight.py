"""One run per key, however many callers ask for it at once; different keys run side by side.

Rule: a run is forgotten before its outcome is told, so no later caller can be handed the old one: an error is
never remembered. A caller who looked for the finished thing just before that moment may therefore start a second run;
`work` looks again before it does anything expensive.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from concurrent.futures import CancelledError, Executor, Future
from typing import Any, Generic, TypeVar

from handler.errors import Unavailable

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Flight(Future[V]):
    """The shared outcome of one run. Waiting is `result(timeout_s)`; giving up the wait leaves the run alone."""

    def __init__(self) -> None:
        super().__init__()
        # A running future cannot be cancelled: one waiter must not take the outcome from the others.
        self.set_running_or_notify_cancel()

    def result(self, timeout: float | None = None) -> V:
        """What the run returned.

        raises  TimeoutError when the run is still under way after `timeout` seconds; it goes on, and `done()` is False
                else the run's own error, as a copy for this waiter, caused by the original. Raising one instance from
                many threads would have each of them extend the same traceback, without end if it is kept.
        """
        error = self.exception(timeout)
        if error is None:
            return super().result()
        try:
            raise copy_of(error) from error
        finally:
            del self, error  # a traceback holds this frame, which would hold the error that holds the traceback


class Flights(Generic[K, V]):
    """Runs under way on `executor`, by key. `len()` is how many.

    Work that waits for another flight of the same executor can fill all its threads with waiting.
    """

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._lock = threading.Lock()
        self._flights: dict[K, Flight[V]] = {}

    def __len__(self) -> int:
        return len(self._flights)

    def __contains__(self, key: K) -> bool:
        return key in self._flights

    def join(self, key: K, work: Callable[[], V], executor: Executor | None = None) -> Flight[V]:
        """The flight of `key`: the one under way, or a new one that runs `work` on `executor`, else on that of all.

        Never raises: an executor that takes no more work fails the flight, with Unavailable, for all who joined it.
        """
        with self._lock:
            flight = self._flights.get(key)
            if flight is not None:
                return flight
            flight = self._flights[key] = Flight()
        # Submitted outside the lock, so an executor that runs the work at once, in this thread, finds the lock free.
        # The run is told the key and not the flight: an error's frames lead to all that the executor holds of the run,
        # and from there to the flight would close a circle of references around whatever the work had in its hands.
        try:
            run = (executor or self._executor).submit(self._run, key, work)
        except RuntimeError as error:  # what concurrent.futures says after shutdown, and when no thread can be started
            self._land(key).set_exception(_stopping(error))
        else:
            run.add_done_callback(lambda done: self._cancelled(key) if done.cancelled() else None)
        return flight

    def _run(self, key: K, work: Callable[[], V]) -> None:
        try:
            value = work()
        except BaseException as error:  # noqa: BLE001 - waiters must hear of anything at all, or they wait for ever
            self._land(key).set_exception(error)
        else:
            self._land(key).set_result(value)

    def _cancelled(self, key: K) -> None:
        """The executor was shut down with the run still in its queue: nobody else will ever end this flight."""
        self._land(key).set_exception(_stopping(CancelledError()))

    def _land(self, key: K) -> Flight[V]:
        """The flight of `key`, forgotten.

        A ThreadPoolExecutor that fails to start a thread has queued the run all the same. When another thread gets to
        it, its flight has long failed; a newer flight of the key takes the outcome, as good as its own, or nobody does.
        """
        with self._lock:
            return self._flights.pop(key, None) or Flight()


class Here(Executor):
    """Runs what it is given at once, on the thread that gives it."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        done: Future[Any] = Future()
        done.set_result(fn(*args, **kwargs))
        return done


def _stopping(cause: BaseException) -> Unavailable:
    error = Unavailable("the loader takes no more work")
    error.__cause__ = cause
    return error


def copy_of(error: BaseException) -> BaseException:
    """The same class with the same values, and a traceback of its own.

    copy.copy() would call the class with `args`, which need not be what its `__init__` takes (ArtifactForbidden's are
    not). So only the built-in class below it is initialised: it keeps fields of its own, such as OSError's file name.
    """
    kind = type(error)
    reduced = error.__reduce__()
    args = reduced[1] if reduced[0] is kind else error.args
    built_in = next(base for base in kind.__mro__ if base.__module__ == "builtins")
    try:
        copy: BaseException = kind.__new__(kind, *args)
        built_in.__init__(copy, *args)  # type: ignore[misc] # a class from its own __mro__
    except TypeError:  # a class whose __new__ takes something else again
        return RuntimeError(f"{kind.__qualname__}: {error}")
    copy.__dict__.update(error.__dict__)
    return copy
