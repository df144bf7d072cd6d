"""How much memory a copy of the component reserves.

Rule: it is a reservation, not a cap: what is asked for must find room beside AWS's own on one machine, and what is not asked
for is used all the same. So too little costs nothing but company, and too much is refused: ask for less, step by step.

Measured by others: of 16 GiB, 1,024 MB were accepted and 4,096 refused (AWS's words: "not enough hardware resources").
"""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1 << 20
# Of the endpoint itself with nothing loaded: 247 MB measured (README, Numbers), and what its JVM may grow by.
BASE_MIB = 512
# A tree model packed in memory takes a third of its artifact; one that XGBoost holds 1.47 x its UBJ bytes.
MEMORY_OF_ARTIFACT = 1.5
SHARE_OF_MACHINE = 0.25  # as far as was accepted, and a little more; the steps below find what is
LEAST_MIB = 128  # source: botocore's MinMemoryRequiredInMb
NO_ROOM = "not enough hardware resources"


@dataclass(frozen=True, slots=True)
class Models:
    """What lies below the live prefix."""

    n: int
    n_bytes: int


def wanted_mib(machine_bytes: int, models: Models | None) -> int:
    """The first reservation to try, whole 128 MiB. models: None where nobody could look."""
    needed = BASE_MIB + (0 if models is None else int(models.n_bytes * MEMORY_OF_ARTIFACT / MIB))
    most = max(LEAST_MIB, int(machine_bytes * SHARE_OF_MACHINE / MIB))
    return max(LEAST_MIB, min(needed, most) // 128 * 128)


def steps_mib(first: int) -> tuple[int, ...]:
    """The first, and what to ask for instead when there is no room: a quarter less each time, no fewer than 128 MiB."""
    found = [first]
    while found[-1] > LEAST_MIB:
        found.append(max(LEAST_MIB, int(found[-1] * 0.75) // 64 * 64))
    return tuple(found)


def next_mib(first: int, refused: int) -> int | None:
    """What to ask for after `refused` was; None when there is nothing less."""
    return next((one for one in steps_mib(first) if one < refused), None)
