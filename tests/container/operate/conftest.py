"""Commands for tests to start."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import pytest

from tests.rig.command import Command


@pytest.fixture(scope="module")
def run() -> Iterator[Callable[..., Command]]:
    """Starts commands; ends those a failed test has left."""
    started: list[Command] = []

    def start(*arguments: str, environment: Mapping[str, str] | None = None) -> Command:
        started.append(Command(*arguments, environment=environment))
        return started[-1]

    yield start
    for command in started:
        command.close()
