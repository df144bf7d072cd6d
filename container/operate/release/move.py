"""A change of what is live, such that it may be killed at any moment.

    state written -> current.json claims it -> history -> keys written, each by itself -> current.json says settled

Rule: what is to lie on which key is decided before the first one is written, and everybody finds it at `current.json`:
whoever comes after a change that broke off finishes that change, and does not begin another.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

from container.operate.progress import each
from container.operate.release.live import (
    Change,
    Current,
    Entry,
    State,
    move_current,
    new_state,
    now,
    read_current,
    read_state,
    versions_there,
    write_history,
    write_seen,
    write_state,
)
from container.operate.release.place import N_AT_ONCE, Place
from container.operate.release.shelf import artifact_key, digest_of
from container.operate.troubles import NotNow
from handler.errors import ArtifactChanged, ArtifactMissing
from handler.stores.writing import NOTHING

UNDONE = "undo"


@dataclass(frozen=True, slots=True)
class Moved:
    """What a change did. stuck: keys that somebody else changed while it was under way; they are as they left them."""

    change: Change
    stuck: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """A change that somebody wants.

    entries   what is to lie there
    over      keys to be written or removed, with what lies there now: a version, or nothing
    before    the state to go back to from it
    prior     the state that it takes the place of
    """

    action: str
    release: str
    entries: dict[str, Entry]
    over: dict[str, str]
    before: str
    prior: str


def move(place: Place, current: Current, plan: Plan, who: str, note: str) -> Moved:
    """Make it so. Raises NotNow when somebody else was faster, and then nothing was done."""
    revision = current.revision + 1
    state = new_state(revision, plan.before, plan.prior, plan.entries, plan.over)
    n_written = sum(key in plan.entries for key in plan.over)
    change = Change(
        *(revision, plan.action, plan.release, who, now(), note, current.release),
        *(n_written, len(plan.over) - n_written, state.name),
    )
    write_state(place.shelf, state)
    _write_last(place, current)
    verdicts = current.verdicts | {plan.release: plan.action}
    claimed = Current("", revision, state.name, False, change, change, verdicts)
    try:
        claimed = move_current(place.shelf, current, claimed)
    except ArtifactChanged as error:
        raise NotNow(
            f"somebody else changed what is live at {place.location} at the same moment; "
            f"nothing was done, see mme release list --of {place.location}"
        ) from error
    return _carry_out(place, claimed, state)


def remark(place: Place, current: Current, action: str, release: str, who: str, note: str) -> Change:
    """Note a change that moves nothing. Raises NotNow when somebody else was faster."""
    revision = current.revision + 1
    change = Change(revision, action, release, who, now(), note, current.release, 0, 0, current.state)
    _write_last(place, current)
    # What is live is still what the change before it made so.
    noted = replace(current, revision=revision, last=change, verdicts=current.verdicts | {release: action})
    try:
        move_current(place.shelf, current, noted)
    except ArtifactChanged as error:
        raise NotNow("somebody else changed something at the same moment; nothing was done") from error
    write_history(place.shelf, change)
    return change


def finish(place: Place) -> Moved | None:
    """Finish what was begun and broke off. None when nothing was."""
    current = read_current(place.shelf)
    if current.is_settled:
        return None
    return _carry_out(place, current, read_state(place.shelf, current.state))


def undo(place: Place, who: str, note: str) -> Moved | None:
    """Take back what was begun and broke off. None when nothing was.

    What the change had written gives way to what lay there; what somebody else has put there meanwhile stays."""
    current = read_current(place.shelf)
    if current.is_settled:
        return None
    state = read_state(place.shelf, current.state)
    prior = read_state(place.shelf, state.prior)
    there = versions_there(place.live, state.moves, state.entries)
    over = {}
    for key, was in state.moves.items():
        entry, version = state.entries.get(key), there.get(key, NOTHING)
        if version != was and (entry is None or _is(place, key, entry)):
            over[key] = version
    assert current.change is not None
    plan = Plan(UNDONE, current.change.instead_of, prior.entries, over, prior.before, prior.prior)
    return move(place, current, plan, who, note or f"undone: {current.change.action} of {current.change.release}")


def _is(place: Place, key: str, entry: Entry) -> bool:
    """Whether this lies there."""
    with suppress(ArtifactMissing):
        return digest_of(place.live.fetch(key).data) == entry.digest
    return False


def _write_last(place: Place, current: Current) -> None:
    """Whoever made the last change may have been killed before it was in the history."""
    if current.last is not None:
        write_history(place.shelf, current.last)


def _carry_out(place: Place, current: Current, state: State) -> Moved:
    assert current.change is not None
    change = current.change
    write_history(place.shelf, change)
    entries = dict(state.entries)
    stuck: list[str] = []
    for key, version in each(
        change.action, _mover(place, state), state.moves.items(), len(state.moves), n_at_once=N_AT_ONCE
    ):
        if version is None:
            stuck.append(key)
        elif key in entries:
            entries[key] = replace(entries[key], version=version)
    write_seen(place.shelf, replace(state, entries=entries))
    with suppress(ArtifactChanged):  # somebody else has finished it as well, and may have gone on
        move_current(place.shelf, current, replace(current, is_settled=True))
    return Moved(change, tuple(sorted(stuck)))


def _mover(place: Place, state: State) -> Callable[[tuple[str, str]], tuple[str, str | None]]:
    """Makes one move, again and again with the same result: the key with its version now, or with None when something lies
    there that this change did not expect."""

    def write(key: str, entry: Entry, over: str) -> str | None:
        wanted = artifact_key(entry.digest)
        with suppress(ArtifactChanged):
            return place.live.copy(place.shelf, wanted, key, over)
        fetched = None
        with suppress(ArtifactMissing):
            fetched = place.live.fetch(key)
        if fetched is not None and digest_of(fetched.data) == entry.digest:
            return fetched.version  # whoever was killed had come that far
        return None

    def move_one(planned: tuple[str, str]) -> tuple[str, str | None]:
        key, over = planned
        entry = state.entries.get(key)
        if entry is not None:
            return key, write(key, entry, over)
        try:
            place.live.remove(key, over)
        except ArtifactChanged:
            return key, None
        return key, NOTHING

    return move_one
