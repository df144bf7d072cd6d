"""One platform for all tests of a module: containers are cheap fakes, and the clock goes when a test says so."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from container.platform.clock import ManualClock
from tests.rig.platform import Account, platform


@pytest.fixture(scope="module")
def aws() -> Iterator[Account]:
    with platform(clock=ManualClock()) as played:
        account = Account(played)
        yield account
        account.close()
