"""What of the shelf nobody can need any more.

Rule: what a kept release names stays, and so does what lay on a live key in the changes one may still go back to. Old is only
what has lain there for a day: a release that is being published now is named by no manifest yet.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from container.operate.progress import each
from container.operate.release import shelf
from container.operate.release.live import SEEN, STATES, Current, State, read_history, read_state, settled
from container.operate.release.place import N_AT_ONCE, Place
from handler.errors import ArtifactMissing
from handler.stores.store import StoredObject

GRACE_S = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Garbage:
    """What is to go, in the order in which it may: what names others first. training: what `mme train` noted for releases
    that go, and of runs that nobody has gone on with."""

    releases: tuple[StoredObject, ...]
    states: tuple[StoredObject, ...]
    artifacts: tuple[StoredObject, ...]
    training: tuple[StoredObject, ...]
    n_kept_releases: int
    n_kept_artifacts: int

    @property
    def n_bytes(self) -> int:
        return sum(found.size for found in (*self.releases, *self.states, *self.artifacts, *self.training))


def find(place: Place, n_keep: int, clock: Callable[[], float] = time.time, grace_s: float = GRACE_S) -> Garbage:
    """n_keep: releases and changes, the newest. Raises NotNow, ArtifactError."""
    current, state = settled(place)
    states = _kept_states(place, current, state, n_keep)
    entries = [entry for one in states for entry in one.entries.values()]
    digests = {entry.digest for entry in entries}
    ids = shelf.release_ids(place.shelf)
    kept = {*ids[:n_keep], *(entry.release for entry in entries)}
    for id in ids:
        if id in kept:
            digests |= {segment.digest for segment in shelf.manifest(place.shelf, id).segments.values()}
    old = clock() - grace_s
    names = {one.name for one in states}
    artifacts = list(shelf.artifacts(place.shelf))
    return Garbage(
        tuple(
            found
            for found in place.shelf.list(shelf.RELEASES)
            if found.written_at < old and found.target[len(shelf.RELEASES) :].removesuffix(".json") not in kept
        ),
        tuple(
            found
            for found in place.shelf.list(STATES)
            if found.written_at < old and found.target.removesuffix(SEEN) not in names
        ),
        tuple(found for digest, found in artifacts if found.written_at < old and digest not in digests),
        tuple(
            found
            for found in (*place.shelf.list(shelf.RUNS), *place.shelf.list(shelf.PROFILES))
            if found.written_at < old and found.target.removeprefix(shelf.PROFILES).removesuffix(".npz") not in kept
        ),
        len(kept & set(ids)),
        sum(digest in digests for digest, _ in artifacts),
    )


def collect(place: Place, garbage: Garbage) -> int:
    """Take it away: how many objects are gone."""
    n_gone = 0
    for group in (garbage.releases, garbage.states, garbage.artifacts, garbage.training):
        removed = each("removed", lambda one: shelf.remove(place.shelf, one), group, len(group), N_AT_ONCE)
        n_gone += sum(removed)
    return n_gone


def _kept_states(place: Place, current: Current, state: State, n_keep: int) -> list[State]:
    """What one may go back to: step by step, or by a release's name."""
    kept = {state.name: state}
    names = [change.state for change in read_history(place.shelf, current, n_keep)]
    while state.before and len(kept) < n_keep + 1:
        names.append(state.before)
        try:
            state = read_state(place.shelf, state.before)
        except ArtifactMissing:
            break
        kept[state.name] = state
    for name in names:
        if name and name not in kept:
            try:
                kept[name] = read_state(place.shelf, name)
            except ArtifactMissing:
                continue
    return list(kept.values())
