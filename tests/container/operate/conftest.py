"""Commands for tests to start."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

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
