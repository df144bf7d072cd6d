"""What commands that start endpoints of their own share."""

from __future__ import annotations

import pytest

from container.operate.exits import CommandFailed
from container.operate.serving import ports_for_children
from container.platform.ports import FIRST, LAST


def test_each_child_has_a_port_of_its_own() -> None:
    assert len(set(ports_for_children(20, besides={FIRST}))) == 20


def test_no_port_that_is_free_ends_the_command_in_words() -> None:
    with pytest.raises(CommandFailed, match="no port"):
        ports_for_children(1, besides=range(FIRST, LAST))
