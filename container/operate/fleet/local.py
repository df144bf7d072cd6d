"""A whole fleet on one machine: replicas, each with memory of its own, a balancer before them, and their page.

Rule: processes are started and ended on the main thread alone. A replica that ends is started again; whatever way the fleet
ends, no process and no file stays behind.
"""

from __future__ import annotations

import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from container.operate.exits import CommandFailed
from container.operate.fleet.asked import Asker
from container.operate.fleet.balancer import Balancer, configuration
from container.operate.fleet.page import FleetFacts, FleetPage
from container.operate.fleet.replicas import CHECK_S, PASSES, Address, Fleet
from container.operate.printing import say
from container.operate.serving import READY, ChildFailed, PortTaken, ServeChild, ports_for_children
from container.operate.stopping import ENDING, hearing

READY_S = 120.0  # for the slowest start there is: a warm list over a busy machine
LOOK_S = 0.2
AGAIN_S = 1.0  # between a replica's end and its next start
# Until a balancer has seen that a replica is back.
SEEN_S = CHECK_S * PASSES + 0.5


@dataclass(frozen=True, slots=True)
class Wanted:
    """What fleet there is to be.

    serve    flags for each replica's `mme serve`
    """

    models: str
    n_replicas: int
    kind: str
    program: str
    port: int
    page_port: int
    load_percent: int | None
    serve: Sequence[str] = ()


@dataclass(slots=True)
class _Replica:
    name: str
    address: Address
    child: ServeChild | None = None
    starts: int = 0
    start_at: float = field(default=0.0)

    @property
    def admin(self) -> str:
        return f"http://{self.address.host}:{self.address.admin_port}"


class LocalFleet:
    """Runs until it is told to stop. SIGHUP restarts the replicas one after another."""

    def __init__(self, wanted: Wanted, environment: Mapping[str, str]) -> None:
        self._wanted = wanted
        self._environment = dict(environment)
        self._is_over = False
        self._is_restart_wanted = False
        ports = ports_for_children(2 * wanted.n_replicas, {wanted.port, wanted.page_port})
        self._replicas = [
            _Replica(f"replica-{number}", Address("127.0.0.1", ports[2 * number - 2], ports[2 * number - 1]))
            for number in range(1, wanted.n_replicas + 1)
        ]

    @property
    def fleet(self) -> Fleet:
        return Fleet(
            Address("127.0.0.1", self._wanted.port),
            tuple(one.address for one in self._replicas),
            load_percent=self._wanted.load_percent,
        )

    def run(self) -> None:
        """Raises CommandFailed."""
        configuration(self._wanted.kind, self.fleet)  # what cannot be is said before anything is started
        with ExitStack() as closing:
            closing.enter_context(hearing(self._on_signal, (*ENDING, signal.SIGHUP)))
            closing.callback(self._end_all)
            for one in self._replicas:
                self._start(one)
            if not self._await_replicas():
                return
            # After them: a balancer that finds nobody at its start says 503 until it looks again.
            scratch = Path(tempfile.mkdtemp(prefix="mme-fleet-"))
            closing.callback(shutil.rmtree, scratch, ignore_errors=True)
            balancer = closing.enter_context(Balancer(self._wanted.kind, self._wanted.program, self.fleet, scratch))
            if not balancer.wait_ready(READY_S, lambda: self._is_over):
                return
            asker = Asker({one.name: one.admin for one in self._replicas})
            closing.callback(asker.close)
            page = self._open_page(asker)
            closing.callback(page.close)
            url = f"http://127.0.0.1:{self._wanted.port}"
            say(READY, url, self._wanted.models, f"{len(self._replicas)} replicas behind {self._wanted.kind}")
            for one in self._replicas:
                say("replica", one.name, str(one.address), one.admin)
            say("page", f"http://127.0.0.1:{page.port}/")
            say("next", f"mme invoke --url {url} --target KEY 1.0,2.0,3.0")
            self._look_after(balancer)

    def _open_page(self, asker: Asker) -> FleetPage:
        title = f"{self._wanted.models}, {len(self._replicas)} replicas behind {self._wanted.kind}"
        facts = FleetFacts(title, asker, lambda: {one.name: one.starts for one in self._replicas})
        try:
            page = FleetPage(facts, self._wanted.page_port)
        except OSError as error:
            raise PortTaken(self._wanted.page_port, error.strerror or str(error), "--page-port") from error
        page.start()
        return page

    def _on_signal(self, number: int) -> None:
        if number == signal.SIGHUP:
            self._is_restart_wanted = True
        else:
            self._is_over = True

    # -- replicas ------------------------------------------------------------------------------------------------------

    def _start(self, one: _Replica) -> None:
        arguments = [
            *("--models", self._wanted.models),
            *("--host", one.address.host, "--port", str(one.address.port)),
            *("--admin-port", str(one.address.admin_port)),
            *("--replica", one.name),
            *("--log-level", "warning"),
            *self._wanted.serve,
        ]
        one.child = ServeChild(arguments, self._environment)
        one.starts += 1

    def _await_replicas(self) -> bool:
        """False when told to stop meanwhile. Raises CommandFailed when one does not start."""
        deadline = time.monotonic() + READY_S
        for one in self._replicas:
            while not self._is_over:
                assert one.child is not None
                if one.child.is_ready:
                    break
                if one.child.has_ended or time.monotonic() > deadline:
                    raise ChildFailed(f"{one.name} does not start")
                self._rest()
        return not self._is_over

    def _look_after(self, balancer: Balancer) -> None:
        while not self._is_over:
            if not balancer.is_running:
                raise CommandFailed(f"the balancer has ended: {balancer.said()}")
            for one in self._replicas:
                self._revive(one)
            if self._is_restart_wanted:
                self._is_restart_wanted = False
                self._restart_all()
            self._rest()

    def _revive(self, one: _Replica) -> None:
        if one.child is not None and one.child.has_ended:
            _tell(f"{one.name} has ended with status {one.child.wait()}; starting it again")
            self._end(one)
            one.start_at = time.monotonic() + AGAIN_S
        if one.child is None and time.monotonic() >= one.start_at:
            self._start(one)

    def _restart_all(self) -> None:
        """One after another; the next one when all are there and the balancer has seen that this one is back."""
        for number, one in enumerate(self._replicas, 1):
            if not self._await_all():
                return
            _tell(f"restarting {one.name}, {number} of {len(self._replicas)}")
            self._end(one)
            self._start(one)
            if not self._await_all(one):
                return
            seen_at = time.monotonic() + SEEN_S
            while time.monotonic() < seen_at and not self._is_over:
                self._rest()
        if not self._is_over:
            say("restarted", f"{len(self._replicas)} replicas, one after another")

    def _await_all(self, restarted: _Replica | None = None) -> bool:
        """Those that end meanwhile are started again. False when told to stop, and when one does not come back."""
        deadline = time.monotonic() + READY_S
        while not self._is_over:
            away = [one for one in self._replicas if one.child is None or not one.child.is_ready]
            if not away:
                return True
            lost = next((one for one in away if one is restarted), away[0])
            has_failed = lost is restarted and lost.child is not None and lost.child.has_ended
            if has_failed or time.monotonic() > deadline:
                _tell(f"{lost.name} does not come back; the others are left as they are")
                return False
            for one in away:
                self._revive(one)
            self._rest()
        return False

    def _end(self, one: _Replica) -> None:
        if one.child is not None:
            one.child.__exit__(None, None, None)
            one.child = None

    def _end_all(self) -> None:
        for one in self._replicas:  # side by side; each is waited for below
            if one.child is not None:
                one.child.ask_to_end()
        for one in self._replicas:
            self._end(one)

    def _rest(self) -> None:
        time.sleep(LOOK_S)  # to its end, whatever signal comes


def _tell(text: str) -> None:
    print(f"mme fleet: {text}", file=sys.stderr, flush=True)
