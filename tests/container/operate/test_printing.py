"""Facts as commands print them."""

from __future__ import annotations

from container.operate.printing import fact


def test_a_word_stands_apart_from_what_is_beside_it_however_long_it_is() -> None:
    assert fact("next", "mme") == "next      mme"
    assert fact("approved", "a", "b") == "approved  a  b"
    assert fact("not needed", "0 releases") == "not needed 0 releases"
    assert fact("dry run") == "dry run"
