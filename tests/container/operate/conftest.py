"""Commands for tests to start, and a cluster of two machines that are processes here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pytest

from tests.rig.command import Command
from tests.rig.endpoint import MME


@pytest.fixture(scope="module")
def run() -> Iterator[Callable[..., Command]]:
    """Starts commands; ends those a failed test has left."""
    started: list[Command] = []

    def start(*arguments: str, environment: Mapping[str, str] | None = None, program: Sequence[str] = MME) -> Command:
        started.append(Command(*arguments, environment=environment, program=program))
        return started[-1]

    yield start
    for command in started:
        command.close()


@pytest.fixture(scope="session")
def two_machines() -> Iterator[Any]:
    """Needs the `ray` extra: `./build.sh ray`."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster as Machines

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_AUTH_MODE", "disabled")  # else a machine that has no token yet waits for one for ever
        machines = Machines(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        machines.add_node(num_cpus=1)
        patch.setenv("RAY_ADDRESS", machines.address)
        yield machines
        machines.shutdown()
