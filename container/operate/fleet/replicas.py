"""What a balancer has to know of a fleet: where its replicas are, where it listens, how far a hot model may spill.

Rule: the words here are the ones every balancer's configuration is written from, so that they all say the same.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from container.operate.troubles import Misused

TARGET_HEADER = "X-Amzn-SageMaker-Target-Model"
ATTRIBUTES_HEADER = "X-Amzn-SageMaker-Custom-Attributes"

# Of the mean number of calls under way, what one replica may have before a model's calls go on to the next, in percent.
# Where this is for hot models' calls alone:
HOT_LOAD_PERCENT = 150
# Where it is for all: of four replicas that have memory for a quarter of 4,000 models each, under Zipf's law, 150 takes 2.7
# points of the hit ratio and 300 takes 0.4.
ALL_LOAD_PERCENT = 300
# Between two looks at /readyz; a replica that fails two is out, one that passes one is back.
CHECK_S = 1
FAILS, PASSES = 2, 1
# In which a replica that has come back gets its whole share again.
SLOW_START_S = 10
# InvokeEndpoint ends after 60 s; whoever waits that long gets our own words for it.
ANSWER_S = 65
# A replica closes a connection that has been idle for 300 s at the earliest (launch/plugin/Connection.java): the balancer
# lets go of it before, so that no call meets the close.
IDLE_S = 240
TRIES = 3
# A call is sent to another replica when the first is gone or says 503. Its body has to be kept for that.
KEPT_BYTES = 64 * 1024

_HOST = r"[A-Za-z0-9][A-Za-z0-9.-]*|\[[0-9A-Fa-f:.]+\]"
_ADDRESS = re.compile(rf"({_HOST}):(\d{{1,5}})(?:/(\d{{1,5}}))?")


@dataclass(frozen=True, slots=True)
class Address:
    """`admin_port` is where /readyz answers; None is the serving port's /ping."""

    host: str
    port: int
    admin_port: int | None = None

    @property
    def check_port(self) -> int:
        return self.port if self.admin_port is None else self.admin_port

    @property
    def check_path(self) -> str:
        return "/ping" if self.admin_port is None else "/readyz"

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Fleet:
    """What a balancer is told.

    replicas      each replica's address, in an order that stays: a replica's place is its identity on the ring
    name          instead of them, a name that resolves to all of them
    n_places      how many there may be behind the name
    resolver      who resolves it, for a balancer that does not ask the system
    load_percent  see HOT_LOAD_PERCENT; 0 for no bound, None for what suits the balancer
    """

    listen: Address
    replicas: tuple[Address, ...] = ()
    name: Address | None = None
    n_places: int = 20
    resolver: str | None = None
    load_percent: int | None = None

    def __post_init__(self) -> None:
        if bool(self.replicas) == (self.name is not None):
            raise Misused("give each replica's address with --replica, or a name for all of them with --dns")
        if len({str(one) for one in self.replicas}) < len(self.replicas):
            raise Misused("two replicas have the same address")
        if self.load_percent and not 100 < self.load_percent <= 1000:
            raise Misused(
                f"{self.load_percent} is no bound: more than 100 percent of the mean, up to 1000, or 0 for none"
            )

    @property
    def checked(self) -> Address:
        """One of them, for what all have in common."""
        return self.replicas[0] if self.name is None else self.name


def parse_address(text: str, what: str = "replica") -> Address:
    """`10.0.0.7:8080` or, with an admin port, `10.0.0.7:8080/8081`. Raises Misused."""
    match = _ADDRESS.fullmatch(text.strip())
    if match is None:
        raise Misused(f"{text!r} is no {what}: write HOST:PORT, or HOST:PORT/ADMINPORT")
    ports = [int(port) for port in match.groups()[1:] if port is not None]
    if not all(0 < port < 65536 for port in ports):
        raise Misused(f"{text!r} names a port that there is none of")
    return Address(match[1], *ports)


def parse_replicas(texts: Sequence[str]) -> tuple[Address, ...]:
    return tuple(parse_address(part) for text in texts for part in text.split(",") if part.strip())


def is_number(one: Address) -> bool:
    """Whether it is an address that nobody has to look up."""
    return one.host.startswith("[") or one.host.replace(".", "").isdecimal()
