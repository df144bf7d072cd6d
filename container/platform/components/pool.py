"""What copies reserve of an instance, and on which instance the next one goes.

Rule: a reservation is counted, never enforced: a container may use more, as on SageMaker.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from container.platform.instance_types import INSTANCE_TYPES

Strategy = Literal["SPREAD", "BINPACK"]

NOT_ENOUGH = (
    "There is not enough hardware resources on the instances for this endpoint "
    "to create a copy of the inference component."
)
# Of an instance's memory, what components may reserve. Others measured on 16 GiB: 1,024 MiB is taken, 4,096 MiB refused;
# an eighth lies between, so that what fits here fits there.
MEMORY_SHARE = 1 / 8
MIB = 1 << 20


@dataclass(frozen=True)
class Need:
    """Of one copy, or of all on an instance, or what there is of it."""

    memory_mib: float = 0
    cores: float = 0
    accelerators: float = 0

    @classmethod
    def of(cls, requirements: Mapping[str, Any]) -> Need:
        """ComputeResourceRequirements."""
        return cls(
            requirements["MinMemoryRequiredInMb"],
            requirements.get("NumberOfCpuCoresRequired", 0),
            requirements.get("NumberOfAcceleratorDevicesRequired", 0),
        )

    def __add__(self, other: Need) -> Need:
        return Need(
            self.memory_mib + other.memory_mib, self.cores + other.cores, self.accelerators + other.accelerators
        )

    def fits(self, there: Need) -> bool:
        return (
            self.memory_mib <= there.memory_mib
            and self.cores <= there.cores
            and self.accelerators <= there.accelerators
        )


@dataclass(frozen=True)
class Place:
    """An instance, and what is reserved on it already."""

    id: str
    has: Need
    taken: Need = Need()


def capacity(instance_type: str) -> Need:
    """Raises KeyError for a type that the table does not have."""
    one = INSTANCE_TYPES[instance_type]
    return Need(one.memory_bytes / MIB * MEMORY_SHARE, one.vcpus, one.n_accelerators)


def choose(need: Need, places: Sequence[Place], strategy: Strategy = "SPREAD") -> Place | None:
    """SPREAD takes the emptiest, BINPACK the fullest that still has room; None when none has."""
    fitting = [place for place in places if (place.taken + need).fits(place.has)]
    if not fitting:
        return None
    by_memory = sorted(fitting, key=lambda place: place.taken.memory_mib / place.has.memory_mib)
    return by_memory[0] if strategy == "SPREAD" else by_memory[-1]
