"""The instances of one variant, and the copies on them: brought to what the components ask for, step by step.

Rule: `tend` decides and never waits; what it starts tells it to look again when it has come. It runs on the clock's thread.
Sources: AWS's scale-to-zero post for the times; instances at zero only when every component is.
"""

from __future__ import annotations

import datetime
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, Protocol

from container.platform.clock import Clock
from container.platform.components.component import Component, Copy, CopySpec, Served
from container.platform.components.pool import NOT_ENOUGH, Need, Place, capacity, choose
from container.platform.endpoints.containers import StartFailed
from container.platform.stories import Story, Tale

log = logging.getLogger(__name__)


class Host(Protocol):
    """An instance."""

    @property
    def id(self) -> str: ...


class Variant(Protocol):
    """What runs below: endpoints' own. `start_one` and `stop_one` block."""

    @property
    def config(self) -> Mapping[str, Any]: ...

    @property
    def is_serving(self) -> bool:
        """Whether its endpoint is in service, or updating."""

    def hosts(self) -> Sequence[Host]:
        """Those that are there."""

    def start_one(self) -> Host:
        """Raises StartFailed."""

    def stop_one(self, host: Host) -> None: ...


# A healthy container on an instance; blocks. Raises StartFailed.
StartCopy = Callable[[CopySpec, Host], Served]


@dataclass(frozen=True)
class Times:
    """In platform seconds.

    instance_s   until a new instance is there: 1.75 minutes in AWS's post
    copy_s       on top of what our container really takes, which is a second or two
    release_s    that an instance stays empty before it goes: ten minutes in the post
    """

    instance_s: float = 105.0
    copy_s: float = 0.0
    release_s: float = 600.0


class Yard:
    """`components` are those of this variant, in the order they were made.

    on_gone   called with a component whose deletion is done
    """

    def __init__(
        self,
        clock: Clock,
        executor: Executor,
        variant: Variant,
        start_copy: StartCopy,
        times: Times,
        on_gone: Callable[[Component], None],
    ) -> None:
        self._clock = clock
        self._executor = executor
        self._variant = variant
        self._start_copy = start_copy
        self._times = times
        self._on_gone = on_gone
        self._n_coming = 0
        self._going: set[str] = set()
        self._empty_since: dict[str, datetime.datetime] = {}
        self.components: list[Component] = []
        self.is_closed = False

    def look_again(self) -> None:
        self._clock.call_later(0.0, self.tend)

    def tend(self) -> None:
        if self.is_closed or not self._variant.is_serving:
            return
        for component in list(self.components):
            self._mourn(component)
            self._shrink(component)
        for component in self.components:
            self._grow(component)
        for component in list(self.components):
            self._conclude(component)
        self._release()

    # Copies

    def _mourn(self, component: Component) -> None:
        """Copies go with their instance, which an update of the endpoint has put another for; they come again there."""
        there = {host.id for host in self._variant.hosts()}
        lost = [copy for copy in component.current if copy.instance_id not in there]
        for copy in lost:
            self._leave(component, copy)
        if lost and component.status == "InService":
            component.change("Updating", self._clock.now())

    def _shrink(self, component: Component) -> None:
        """The youngest go first; those of a former specification when the new ones are ready."""
        wanted = 0 if component.status in ("Deleting", "Failed") else component.desired
        for copy in component.current[wanted:]:
            self._leave(component, copy)
        if wanted == 0 or sum(copy.is_ready for copy in component.current) >= wanted:
            for copy in component.former:
                self._leave(component, copy)

    def _grow(self, component: Component) -> None:
        if component.status not in ("Creating", "Updating"):
            return
        while len(component.current) < component.desired:
            place = choose(component.need, self._places(), component.strategy)
            if place is not None:
                self._begin_copy(component, place)
            else:
                self._make_room(component)
                return

    def _make_room(self, component: Component) -> None:
        """What fits nowhere gets an instance, waits for what comes or goes, takes a former copy's place, or fails."""
        n_more = self._n_missing_hosts(component, component.desired - len(component.current))
        for _ in range(n_more):
            self._begin_host()
        if n_more or self._n_coming or any(copy.is_leaving for one in self.components for copy in one.copies):
            return
        if component.former:
            self._leave(component, component.former[-1])
        else:
            self._fail(component, NOT_ENOUGH)

    def _n_missing_hosts(self, component: Component, n_copies: int) -> int:
        """How many more instances would be needed for so many copies, and may be had."""
        fresh = capacity(self._variant.config["InstanceType"])
        if not component.need.fits(fresh):
            return 0
        new = [Place(f"new {number}", fresh) for number in range(self._n_coming)]
        n_more = 0
        for _ in range(n_copies):
            place = choose(component.need, new, component.strategy)
            if place is None:
                if self._n_hosts + n_more >= self._most:
                    break
                n_more += 1
                place = Place(f"more {n_more}", fresh)
                new.append(place)
            new[new.index(place)] = Place(place.id, place.has, place.taken + component.need)
        return n_more

    def _begin_copy(self, component: Component, place: Place) -> None:
        copy = Copy(place.id, component.generation)
        component.copies.append(copy)
        host = next(one for one in self._variant.hosts() if one.id == place.id)
        Story(self._clock, self._copy_comes(component, copy, host))

    def _copy_comes(self, component: Component, copy: Copy, host: Host) -> Tale:
        if self._times.copy_s:
            yield self._times.copy_s
        try:
            copy.served = yield self._executor.submit(self._start_copy, component.runs, host)
        except StartFailed as error:
            component.copies.remove(copy)
            if not copy.is_leaving and copy.generation == component.generation:
                self._fail(component, str(error))
        else:
            if copy.is_leaving or self.is_closed:
                yield from self._copy_goes(component, copy)
                return
        self.tend()

    def _leave(self, component: Component, copy: Copy) -> None:
        copy.is_leaving = True
        if copy.served is not None:
            Story(self._clock, self._copy_goes(component, copy))

    def _copy_goes(self, component: Component, copy: Copy) -> Tale:
        assert copy.served is not None
        yield self._executor.submit(copy.served.stop)
        component.copies.remove(copy)
        self.tend()

    def _fail(self, component: Component, reason: str) -> None:
        """A new one is Failed; one that had been in service goes on with what it has."""
        status = component.status
        component.change("Failed" if status == "Creating" else "InService", self._clock.now(), reason)
        log.warning("inference component %s: %s", component.name, reason)
        self.look_again()

    def _conclude(self, component: Component) -> None:
        if component.status == "Deleting" and not component.copies:
            self.components.remove(component)
            self._on_gone(component)
        elif component.status in ("Creating", "Updating"):
            is_whole = len(component.current) == component.desired and all(copy.is_ready for copy in component.current)
            if is_whole and len(component.copies) == component.desired:
                component.change("InService", self._clock.now())

    # Instances

    @property
    def _managed(self) -> Mapping[str, Any]:
        managed: Mapping[str, Any] = self._variant.config.get("ManagedInstanceScaling", {})
        return managed if managed.get("Status") == "ENABLED" else {}

    @property
    def _n_hosts(self) -> int:
        return len(self._variant.hosts()) - len(self._going) + self._n_coming

    @property
    def _most(self) -> int:
        return int(self._managed.get("MaxInstanceCount", self._n_hosts))

    def _places(self) -> list[Place]:
        has = capacity(self._variant.config["InstanceType"])
        return [
            Place(host.id, has, self._taken(host.id)) for host in self._variant.hosts() if host.id not in self._going
        ]

    def _taken(self, instance_id: str) -> Need:
        """A copy that leaves holds its place until it is gone."""
        total = Need()
        for component in self.components:
            for copy in component.copies:
                if copy.instance_id == instance_id:
                    total += component.need
        return total

    def _begin_host(self) -> None:
        self._n_coming += 1
        Story(self._clock, self._host_comes())

    def _host_comes(self) -> Tale:
        try:
            if self._times.instance_s:
                yield self._times.instance_s
            yield self._executor.submit(self._variant.start_one)
        except StartFailed as error:
            for component in self._waiting():
                self._fail(component, str(error))
        finally:
            self._n_coming -= 1
        self.tend()

    def _waiting(self) -> list[Component]:
        return [
            one for one in self.components if one.status in ("Creating", "Updating") and len(one.current) < one.desired
        ]

    def _release(self) -> None:
        """Empty instances go, the youngest first, down to the minimum."""
        now = self._clock.now()
        used = {copy.instance_id for component in self.components for copy in component.copies}
        empty = [host for host in self._variant.hosts() if host.id not in used and host.id not in self._going]
        self._empty_since = {host.id: self._empty_since.get(host.id, now) for host in empty}
        if "MaxInstanceCount" not in self._managed or self._waiting():
            return
        least = self._managed.get("MinInstanceCount", 1)
        release_s = self._times.release_s
        for host in reversed(empty):
            if self._n_hosts <= least:
                return
            left_s = release_s - (now - self._empty_since[host.id]).total_seconds()
            if left_s > 1e-3:
                self._clock.call_later(left_s, self.tend)
            else:
                self._going.add(host.id)
                Story(self._clock, self._host_goes(host))

    def _host_goes(self, host: Host) -> Tale:
        try:
            yield self._executor.submit(self._variant.stop_one, host)
        finally:
            self._going.discard(host.id)
        self.tend()

    def close(self) -> None:
        """Blocks until every container is stopped. The components are remembered as they are."""
        self.is_closed = True
        for component in self.components:
            for copy in component.copies:
                if copy.served is not None:
                    copy.served.stop()
