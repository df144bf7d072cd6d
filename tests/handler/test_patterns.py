"""Which targets an operator's patterns name."""

from __future__ import annotations

import pytest

from handler.patterns import Patterns
from tests.rig.fakes import MemoryStore

TARGETS = ["eu/a.tar.gz", "eu/x/b.tar.gz", "us/Houston_TX.tar.gz", "us/[odd].tar.gz", "zz"]


@pytest.fixture
def store() -> MemoryStore:
    store = MemoryStore()
    for target in TARGETS:
        store.put(target, b"")
    return store


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", []),
        (" , ", []),
        ("all", TARGETS),
        ("*", TARGETS),
        ("eu/*", TARGETS[:2]),
        ("eu/x/*, eu/*", TARGETS[:2]),
        ("us/Houston_TX.tar.gz", TARGETS[2:3]),
        ("us/houston*", []),
        ("us/H?uston*,zz", [TARGETS[2], "zz"]),
        ("eu", []),
        ("us/[[]odd]*", [TARGETS[3]]),
        ("nothing/*", []),
    ],
)
def test_patterns_find_whole_targets_each_once(store: MemoryStore, text: str, found: list[str]) -> None:
    patterns = Patterns.parse(text)
    assert sorted(patterns.targets(store)) == sorted(found)
    assert [target for target in TARGETS if patterns.match(target)] == found
    assert bool(patterns) == bool(text.strip(" ,"))
