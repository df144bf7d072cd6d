"""Troubles that the real platform has now and then, switched on by name, so that a client can be seen to bear them.

Rule: a trap is off unless it was named, and a name that is none is refused.
"""

from __future__ import annotations

from collections.abc import Iterable

# Name -> what happens. README.md has each one's source.
TRAPS = {
    "zero-refused": "MinInstanceCount 0 is refused, as in eu-west-3",
    "no-capacity": "no instance can be had: InsufficientInstanceCapacity",
    "role-missing-rights": "the execution role is held against what it needs",
    "slow-start": "a container takes ten platform minutes longer to start",
    "spot-interruption": "a spot job is interrupted once",
    "double-events": "each event is sent twice",
    "throttling": "the first attempt of each control call is refused: ThrottlingException",
    "creating-forever": "what is created stays in Creating",
}


class TrapUnknown(ValueError):
    def __init__(self, name: str) -> None:
        super().__init__(f"there is no trap {name!r}; there are {', '.join(TRAPS)}")


class Traps:
    """Which are on. Raises TrapUnknown."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._on = frozenset(names)
        for name in sorted(self._on - TRAPS.keys()):
            raise TrapUnknown(name)

    def is_on(self, name: str) -> bool:
        if name not in TRAPS:
            raise TrapUnknown(name)
        return name in self._on

    @property
    def names(self) -> list[str]:
        return sorted(self._on)
