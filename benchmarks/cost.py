"""What a month of N models costs: all on one endpoint, and on an endpoint for each. Arithmetic only.

Rule: money comes from a file of prices that its reader may edit, sizes from a measurement; nothing is built in.
"""

from __future__ import annotations

import math
import tomllib
from dataclasses import dataclass
from pathlib import Path

GIB = 2**30
PRICES = Path(__file__).parent / "rig" / "prices.toml"


class PricesInvalid(Exception):
    """A file of prices that cannot be used: what is wrong with it."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"{path}: {why}")


@dataclass(frozen=True, slots=True)
class Instance:
    """One kind of machine. `memory_gib` is all of it."""

    name: str
    memory_gib: float
    per_hour: float


@dataclass(frozen=True, slots=True)
class Prices:
    """A file of prices; benchmarks/rig/prices.toml says what each figure means."""

    as_of: str
    source: str
    currency: str
    hours_per_month: float
    models: tuple[int, ...]
    reserve: float
    instances_at_least: int
    shared: tuple[Instance, ...]
    single: Instance
    single_instances: int


@dataclass(frozen=True, slots=True)
class Footprint:
    """Memory of an endpoint that serves many models: `fixed_bytes` of its own and `model_bytes` for each."""

    fixed_bytes: float
    model_bytes: float


def read(path: Path = PRICES) -> Prices:
    """Raises PricesInvalid."""
    try:
        told = tomllib.loads(path.read_text())
        single = told["single"]
        prices = Prices(
            as_of=str(told["as_of"]),
            source=str(told["source"]),
            currency=str(told["currency"]),
            hours_per_month=float(told["hours_per_month"]),
            models=tuple(int(number) for number in told["models"]),
            reserve=float(told["reserve"]),
            instances_at_least=int(told["instances_at_least"]),
            shared=tuple(_instance(one) for one in told["instance"]),
            single=_instance(single),
            single_instances=int(single["instances"]),
        )
    except KeyError as error:
        raise PricesInvalid(path, f"{error.args[0]} is missing") from error
    except (OSError, TypeError, ValueError) as error:  # tomllib's own error is a ValueError
        raise PricesInvalid(path, str(error)) from error
    if not 0 <= prices.reserve < 1:
        raise PricesInvalid(path, f"reserve is a share from 0 to below 1, not {prices.reserve:g}")
    return prices


def _instance(told: dict[str, object]) -> Instance:
    return Instance(str(told["name"]), float(str(told["memory_gib"])), float(str(told["per_hour"])))


def n_instances(prices: Prices, instance: Instance, n_models: int, footprint: Footprint) -> int:
    """How many it takes to hold all models in memory, each on one of them.

    raises   ValueError when not even the endpoint itself fits
    """
    room = instance.memory_gib * GIB * (1 - prices.reserve) - footprint.fixed_bytes
    if room < footprint.model_bytes:
        raise ValueError(f"{instance.name} has no room for one model")
    each_holds = room // footprint.model_bytes
    return max(prices.instances_at_least, math.ceil(n_models / each_holds))


def shared_month(prices: Prices, instance: Instance, n_models: int, footprint: Footprint) -> float:
    """All models on one endpoint."""
    return n_instances(prices, instance, n_models, footprint) * instance.per_hour * prices.hours_per_month


def single_month(prices: Prices, n_models: int) -> float:
    """An endpoint for each model."""
    return n_models * prices.single_instances * prices.single.per_hour * prices.hours_per_month
