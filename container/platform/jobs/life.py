"""A job's states, from its creation to its end, on a thread of its own.

Rule: each state is told once, in order. Whoever wants something of a job (to stop, to be interrupted, out of time) says so
and the job's own thread acts on it.

Sources: DescribeTrainingJob in botocore's model (statuses), SageMaker guide, your-algorithms-training-algo-dockerfile
(`docker stop -t 120`).
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from container.platform.clock import Clock, Timer
from container.platform.jobs.host import Host
from container.platform.jobs.objects import DataFault

log = logging.getLogger("mme.platform.jobs")

WINDOW_S = 120.0  # between the signal that asks a program to end and SIGKILL
IN_PROGRESS, COMPLETED, FAILED, STOPPING, STOPPED = "InProgress", "Completed", "Failed", "Stopping", "Stopped"
OVER = (COMPLETED, FAILED, STOPPED)
INTERNAL = "InternalServerError: We encountered an internal error. Please try again."

# What is wanted of a job.
STOP, RUNTIME, WAIT, INTERRUPT, CLOSE = "stop", "max runtime", "max wait", "interruption", "close"


@dataclass(frozen=True, slots=True)
class Transition:
    status: str
    at: datetime
    message: str
    ended_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class State:
    """A job as it is at one moment. Times are the platform's."""

    status: str
    secondary: str
    created_at: datetime
    modified_at: datetime
    transitions: tuple[Transition, ...]
    started_at: datetime | None = None
    ended_at: datetime | None = None
    busy_s: float = 0.0  # of its hosts, in all attempts
    failure: str = ""
    exit_message: str = ""
    metrics: tuple[tuple[str, float, datetime], ...] = ()  # the last value of each, and when

    @property
    def is_over(self) -> bool:
        return self.status in OVER


class Closed(Exception):
    """The platform ends, and the job with it, without a word."""


class Life:
    """on_change: told of each new state, from whichever thread made it."""

    def __init__(self, name: str, clock: Clock, on_change: Callable[[State], None]) -> None:
        self.name = name
        self._clock = clock
        self._on_change = on_change
        self._changed = threading.Condition()
        self._wanted: set[str] = set()
        self._timers: list[Timer] = []
        now = clock.now()
        first = Transition("Starting", now, "Starting the job")
        self._state = State(IN_PROGRESS, "Starting", now, now, (first,))
        self._thread = threading.Thread(target=self._live, name=f"job {name}", daemon=True)

    @property
    def state(self) -> State:
        with self._changed:
            return self._state

    def begin(self) -> None:
        self._on_change(self.state)
        self._thread.start()

    def stop(self) -> None:
        """Does nothing to a job that is over."""
        with self._changed:
            is_new = not self._state.is_over and STOP not in self._wanted
            if is_new:
                self._moved(status=STOPPING, secondary="Stopping", message="Stopping the job")
        if is_new:
            self._on_change(self.state)
            self.want(STOP)

    def want(self, what: str) -> None:
        with self._changed:
            self._wanted.add(what)
            self._changed.notify_all()

    def want_close(self) -> None:
        """End it now."""
        self.want(CLOSE)

    def close(self) -> None:
        """End it now, and wait for that."""
        self.want_close()
        if self._thread.ident is not None:
            self._thread.join()

    def wait_over(self, seconds: float) -> bool:
        """In real seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: self._state.is_over, seconds)

    def hosts(self) -> Sequence[Host]:
        """Those of now."""
        return ()

    # -- on the job's own thread ---------------------------------------------------------------------------------------

    def _work(self) -> None:
        """All of it, up to `_end`. Raises DataFault, Closed."""
        raise NotImplementedError

    def _clean(self) -> None:
        """Whatever way it ended."""

    def _live(self) -> None:
        try:
            self._work()
        except Closed:
            log.info("job %s: ended with the platform", self.name)
        except DataFault as fault:
            self._end(FAILED, f"ClientError: {fault}")
        except Exception:
            log.exception("job %s", self.name)
            self._end(FAILED, INTERNAL)
        finally:
            for timer in self._timers:
                timer.cancel()
            self._clean()

    def _after(self, seconds: float, what: str) -> Timer:
        timer = self._clock.call_later(seconds, lambda: self.want(what))
        self._timers.append(timer)
        return timer

    def _asked(self, reasons: Iterable[str] = (STOP, WAIT)) -> str | None:
        """The first of these that is wanted by now. Raises Closed."""
        with self._changed:
            found = next((one for one in (CLOSE, *reasons) if one in self._wanted), None)
        if found == CLOSE:
            raise Closed
        return found

    def _until(self, is_so: Callable[[], Any], reasons: Iterable[str] = (STOP, WAIT)) -> str | None:
        """Waits until it is so, or one of these is wanted, which is the answer then. Raises Closed."""
        reasons = tuple(reasons)
        with self._changed:
            self._changed.wait_for(lambda: is_so() or self._wanted.intersection((CLOSE, *reasons)))
            if is_so() and CLOSE not in self._wanted:
                return None
        return self._asked(reasons)

    def _pause(self, seconds: float) -> str | None:
        """So long by the platform's clock, or until something else is wanted."""
        if seconds <= 0:
            return self._asked()
        if math.isinf(seconds):
            return self._until(lambda: False)
        over = threading.Event()

        def ring() -> None:
            over.set()
            with self._changed:
                self._changed.notify_all()

        timer = self._clock.call_later(seconds, ring)
        try:
            return self._until(over.is_set)
        finally:
            timer.cancel()

    def _stage(self, secondary: str, message: str, **fields: Any) -> None:
        """The next state; a job that is being stopped stays so."""
        with self._changed:
            if STOP in self._wanted or self._state.status == STOPPING:
                self._state = replace(self._state, **fields, modified_at=self._clock.now())
                return
            self._moved(secondary=secondary, message=message, **fields)
        self._on_change(self.state)

    def _end(self, status: str, failure: str = "", *, secondary: str = "", **fields: Any) -> None:
        with self._changed:
            now = self._clock.now()
            said = {COMPLETED: "completed", FAILED: "failed", STOPPED: "stopped"}[status]
            self._moved(
                status=status, secondary=secondary or status, message=f"Job {said}", failure=failure[:1024], **fields
            )
            last = replace(self._state.transitions[-1], ended_at=now)
            self._state = replace(self._state, ended_at=now, transitions=(*self._state.transitions[:-1], last))
            self._changed.notify_all()
        self._on_change(self.state)

    def _moved(self, *, secondary: str, message: str, **fields: Any) -> None:
        """With the lock held."""
        now = self._clock.now()
        *before, last = self._state.transitions
        transitions = (*before, replace(last, ended_at=now), Transition(secondary, now, message))
        self._state = replace(self._state, secondary=secondary, modified_at=now, transitions=transitions, **fields)
