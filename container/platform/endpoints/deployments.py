"""How an endpoint comes to be, is updated and scaled: stories on the platform's clock.

    all at once   green beside blue, all traffic, a bake of TerminationWait, blue goes
    canary        green beside blue, a part of the traffic, a bake, all of it, a bake of TerminationWait, blue goes
    linear        the same, part by part
    rolling       a batch of green, a bake, a batch of blue goes, and again

Rule: an update that fails ends as it began, InService with the old config and without a word of why; the log has it.

Source: SageMaker guide, "Deployment guardrails" and its events; that a failed update is silent is measured by others
(hashicorp/terraform-provider-aws#48997).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator
from concurrent.futures import Executor, Future
from contextlib import ExitStack
from typing import Any, Protocol

from container.platform.clock import Clock
from container.platform.endpoints import sides
from container.platform.endpoints.containers import StartFailed
from container.platform.endpoints.policies import ROLLING, Policy
from container.platform.endpoints.sides import Endpoint, Pending, Side
from container.platform.endpoints.variants import Variant
from container.platform.stories import Tale

log = logging.getLogger("mme.platform")

# What SageMaker says of faults of its own.
INTERNAL = "Request to service failed. If failure persists after retry, contact customer support."
WATCH_EVERY_S = 10.0  # how often alarms are looked at; not said by the guide
Part = Generator["float | Future[Any]", Any, None]


class Alarms(Protocol):
    def state(self, name: str) -> str | None:
        """OK, ALARM or INSUFFICIENT_DATA; None when there is no such alarm."""


class RolledBack(Exception):
    """An update does not go on, and why."""


class Deployments:
    """Tells the stories.

    changed   called whenever an endpoint's state is another
    """

    def __init__(self, clock: Clock, executor: Executor, alarms: Alarms, changed: Callable[[Endpoint], None]) -> None:
        self._clock = clock
        self._executor = executor
        self._changed = changed
        self.alarms = alarms

    # -- the stories ---------------------------------------------------------------------------------------------------

    def create(self, endpoint: Endpoint) -> Tale:
        try:
            for variant in endpoint.blue.variants.values():
                yield from self._start(endpoint, variant, variant.n_first)
        except StartFailed as error:
            yield from self._stop_all(endpoint.blue)
            endpoint.failure = str(error)
            self._become(endpoint, sides.FAILED)
        else:
            self._become(endpoint, sides.IN_SERVICE)

    def update(self, endpoint: Endpoint, green: Side, policy: Policy) -> Tale:
        endpoint.green, endpoint.green_share = green, 0.0
        endpoint.pending = Pending(self._clock.now())
        self._become(endpoint, sides.UPDATING)
        course = _Course(self._clock, policy, self.alarms)
        blue = endpoint.blue
        try:
            if policy.kind == ROLLING:
                yield from self._roll(endpoint, course)
            else:
                yield from self._shift(endpoint, course)
        except (StartFailed, RolledBack) as error:
            log.warning("the update of %s to %s rolls back: %s", endpoint.name, green.config_name, error)
            yield from self._go_back(endpoint, policy)
            return
        endpoint.blue, endpoint.green, endpoint.green_share, endpoint.pending = green, None, 0.0, None
        yield from self._retire(blue)
        self._become(endpoint, sides.IN_SERVICE)

    def scale(self, endpoint: Endpoint, counts: dict[str, int], weights: dict[str, float]) -> Tale:
        """UpdateEndpointWeightsAndCapacities, and what autoscaling does."""
        before = {name: variant.desired for name, variant in endpoint.blue.variants.items()}
        for name, weight in weights.items():
            endpoint.blue.variants[name].desired_weight = weight
        self._become(endpoint, sides.UPDATING)
        try:
            for name, count in counts.items():
                variant = endpoint.blue.variants[name]
                variant.desired = count
                message = (
                    f"Scaling {'out' if count > len(variant.instances) else 'in'} desired instance count to {count}."
                )
                yield from self._start(endpoint, variant, count - len(variant.instances), ("Updating", message))
                yield from self._stop(endpoint, variant, len(variant.instances) - count)
        except StartFailed as error:
            log.warning("%s does not get the instances it wants: %s", endpoint.name, error)
            self._become(endpoint, sides.ROLLING_BACK)
            for name, count in before.items():
                endpoint.blue.variants[name].desired = count
                extra = len(endpoint.blue.variants[name].instances) - count
                yield from self._stop(endpoint, endpoint.blue.variants[name], extra)
        else:
            for name, weight in weights.items():
                endpoint.blue.variants[name].weight = weight
        self._become(endpoint, sides.IN_SERVICE)

    def delete(self, endpoint: Endpoint, gone: Callable[[], None]) -> Tale:
        self._become(endpoint, sides.DELETING)
        for side in endpoint.sides():
            yield from self._stop_all(side)
        gone()

    # -- blue/green ----------------------------------------------------------------------------------------------------

    def _shift(self, endpoint: Endpoint, course: _Course) -> Part:
        green, policy = endpoint.green, course.policy
        assert green is not None
        started_s = time.monotonic()
        for variant in green.variants.values():
            yield from self._start(endpoint, variant, variant.n_first)
        course.add(time.monotonic() - started_s)
        n_instances = max(1.0, green.n_instances / len(green.variants))  # a size is of one variant
        shares = policy.shares(n_instances)
        for number, share in enumerate(shares, 1):
            is_last = number == len(shares)
            size = "full" if is_last else "canary" if policy.kind == "CANARY" else "linear"
            capacity = f"{size} capacity of {max(1, round(share * n_instances))} instance(s)"
            with self._noting(endpoint, green, "ActivatingTraffic", f"Activating traffic on {capacity}."):
                endpoint.green_share = share
            seconds = policy.termination_wait_s if is_last else policy.wait_s
            name = "TerminationWaitInSeconds" if is_last else "WaitIntervalInSeconds"
            message = f"Baking for {seconds:g} seconds ({name}) with traffic enabled on {capacity}."
            with self._noting(endpoint, green, "Baking", message):
                yield from course.bake(seconds)

    # -- rolling -------------------------------------------------------------------------------------------------------

    def _roll(self, endpoint: Endpoint, course: _Course) -> Part:
        green = endpoint.green
        assert green is not None
        (variant,) = green.variants.values()
        (old,) = endpoint.blue.variants.values()
        n_instances = variant.desired
        for batch in course.policy.batches(n_instances):
            started_s = time.monotonic()
            yield from self._start(endpoint, variant, batch)
            course.add(time.monotonic() - started_s)
            n_green = len(variant.instances)
            endpoint.green_share = n_green / n_instances
            message = f"Baking for {course.policy.wait_s:g} seconds (WaitIntervalInSeconds) with traffic enabled on " \
                      f"batch capacity of {n_green} instance(s)."  # fmt: skip
            with self._noting(endpoint, green, "Baking", message):
                yield from course.bake(course.policy.wait_s)
            left = max(0, n_instances - n_green)
            yield from self._stop(endpoint, old, len(old.instances) - left)

    def _go_back(self, endpoint: Endpoint, policy: Policy) -> Part:
        """All traffic on blue, green gone, and nothing said."""
        green = endpoint.green
        assert green is not None
        endpoint.green_share = 0.0 if endpoint.blue.n_instances else 1.0
        self._become(endpoint, sides.ROLLING_BACK)
        try:
            for variant in endpoint.blue.variants.values():
                missing = variant.desired - len(variant.instances)
                for batch in policy.batches(missing, policy.rollback) if missing > 0 else ():
                    yield from self._start(endpoint, variant, batch)
        except StartFailed as error:
            endpoint.failure = str(error)
            self._become(endpoint, "UpdateRollbackFailed")
            return
        endpoint.green, endpoint.green_share, endpoint.pending = None, 0.0, None
        yield from self._retire(green)
        self._become(endpoint, sides.IN_SERVICE)

    # -- instances -----------------------------------------------------------------------------------------------------

    def _start(self, endpoint: Endpoint, variant: Variant, n: int, note: tuple[str, str] | None = None) -> Part:
        """All side by side; the first failure is raised when all have come to an end."""
        if n <= 0:
            return
        status, message = note or ("Creating", f"Launching {n} instance(s).")
        with endpoint.noted(variant.name, status, message, self._clock.now()):
            self._changed(endpoint)
            starts = [self._executor.submit(variant.start_one) for _ in range(n)]
            failures = []
            for start in starts:
                try:
                    yield start
                except StartFailed as error:
                    failures.append(error)
                except Exception:
                    log.exception("an instance of %s cannot be started", endpoint.name)
                    failures.append(StartFailed(INTERNAL))
        if failures:
            raise failures[0]

    def _stop(self, endpoint: Endpoint, variant: Variant, n: int) -> Part:
        if n <= 0:
            return
        with endpoint.noted(variant.name, "Deleting", f"Terminating {n} instance(s).", self._clock.now()):
            for stop in [self._executor.submit(variant.stop_one) for _ in range(n)]:  # noqa: UP028  a list has no `send`
                yield stop

    def _retire(self, side: Side) -> Part:
        """Its calls may end."""
        retirements = [self._executor.submit(variant.retire) for variant in side.variants.values()]
        for retirement in retirements:  # noqa: UP028
            yield retirement

    def _stop_all(self, side: Side) -> Part:
        stops = [self._executor.submit(variant.close) for variant in side.variants.values()]
        for stop in stops:  # noqa: UP028
            yield stop

    # -- telling -------------------------------------------------------------------------------------------------------

    def _noting(self, endpoint: Endpoint, side: Side, status: str, message: str) -> ExitStack:
        with ExitStack() as notes:
            for name in side.variants:
                notes.enter_context(endpoint.noted(name, status, message, self._clock.now()))
            self._changed(endpoint)
            return notes.pop_all()

    def _become(self, endpoint: Endpoint, status: str) -> None:
        endpoint.status = status
        endpoint.modified_at = self._clock.now()
        self._changed(endpoint)


class _Course:
    """How long an update has taken, and whether it may go on. Starts count by the real clock: they are real."""

    def __init__(self, clock: Clock, policy: Policy, alarms: Alarms) -> None:
        self._clock = clock
        self.policy = policy
        self._alarms = alarms
        self._taken_s = 0.0

    def add(self, seconds: float) -> None:
        """Raises RolledBack when that was too long."""
        self._taken_s += seconds
        if self._taken_s > self.policy.timeout_s:
            raise RolledBack(f"it takes longer than MaximumExecutionTimeoutInSeconds ({self.policy.timeout_s:g})")

    def bake(self, seconds: float) -> Part:
        """Wait, and look at the alarms again and again. Raises RolledBack."""
        self._look()
        left_s = seconds
        while left_s > 0:
            step_s = min(left_s, WATCH_EVERY_S)
            yield step_s
            left_s -= step_s
            self.add(step_s)
            self._look()

    def _look(self) -> None:
        for name in self.policy.alarms:
            if self._alarms.state(name) == "ALARM":
                raise RolledBack(f"alarm {name} is in ALARM")
