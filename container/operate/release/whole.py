"""Whether the live prefix is what its state says: every key with its own artifact, and nothing under way.

Rule: it is looked at, not remembered. A version that is not the one we got is no proof either way; then the bytes are.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from container.operate.release.live import Current, State, look, read_current, read_state
from container.operate.release.place import Place


@dataclass(frozen=True, slots=True)
class Wholeness:
    """by_hand: what somebody else did, by key. others: objects on keys that no release was ever approved for."""

    current: Current
    state: State
    by_hand: dict[str, str]
    others: tuple[str, ...]
    n_left: int

    @property
    def is_whole(self) -> bool:
        return self.current.is_settled and not self.by_hand

    @property
    def releases(self) -> dict[str, int]:
        """How many segments are live of each release, the most first."""
        return dict(Counter(entry.release for entry in self.state.entries.values()).most_common())


def wholeness(place: Place) -> Wholeness:
    current = read_current(place.shelf)
    state = read_state(place.shelf, current.state)
    there = {found.target: found.version for found in place.live.list()}
    under_way = set() if current.is_settled else set(state.moves)
    by_hand = look(place, state, [key for key in state.entries if key not in under_way], there).by_hand
    n_left = sum(there.get(key, "") == over for key, over in state.moves.items()) if under_way else 0
    others = tuple(sorted(key for key in there if key not in state.entries and key not in under_way))
    return Wholeness(current, state, by_hand, others, n_left)
