"""A Ray cluster: which one, its machines, and a worker on each of them.

Rule: whoever joins a cluster leaves it again, and keeps its signals meanwhile.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from container import environments
from container.operate.troubles import Misused

POLL_S = 1.0  # between two looks at how far the workers are


@dataclass(frozen=True, slots=True)
class Machine:
    """One that has a core at least."""

    node_id: str
    n_cores: int


@dataclass(frozen=True, slots=True)
class Cluster:
    """address: of a running cluster, ray://HOST:PORT; None is the one that this machine is part of (RAY_ADDRESS), or one of
    this machine alone, for this run."""

    address: str | None = None

    @classmethod
    def parse(cls, text: str) -> Cluster:
        """Raises Misused."""
        if text == "ray":
            return cls()
        if text.startswith("ray://") and len(text) > len("ray://"):
            return cls(text)
        raise Misused(f"--on {text}: write ray, or ray://HOST:PORT of a running cluster")

    @contextmanager
    def joined(self) -> Iterator[Any]:
        """Ray itself, with this process in the cluster. Raises Misused."""
        try:
            import ray
        except ImportError as error:
            raise Misused("--on ray needs Ray: pip install 'multi-model-endpoint[ray]'") from error
        environments.keep_ray_quiet()
        before = signal.getsignal(signal.SIGTERM)
        try:
            ray.init(self.address, include_dashboard=None if self.address else False, log_to_driver=False)
        except (ConnectionError, ValueError, RuntimeError, TimeoutError) as error:
            raise Misused(f"--on {self.address or 'ray'}: {error}") from error
        finally:
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, before)  # `ray.init` makes it sys.exit(15)
        try:
            yield ray
        finally:
            ray.shutdown()


def machines_of(ray: Any) -> list[Machine]:
    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= 1]
    return [Machine(node["NodeID"], int(node["Resources"]["CPU"])) for node in nodes]


def worker_on(ray: Any, machine: Machine, kind: type, *given: Any) -> Any:
    """An actor that has all cores of a machine. Ray calls it on two threads, so that it can be stopped while it works."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    where = NodeAffinitySchedulingStrategy(machine.node_id, soft=False)
    made = ray.remote(kind).options(num_cpus=machine.n_cores, max_concurrency=2, scheduling_strategy=where)
    return made.remote(*given)
