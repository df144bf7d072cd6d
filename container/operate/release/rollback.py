"""Taking back: what was live before, on all keys or some.

Rule: rolling back goes to what did lie there, segment by segment, and not to what some manifest says should have.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from container.operate.release.approve import adopt, by_hand_text, check_shelf
from container.operate.release.choice import Choice
from container.operate.release.live import BY_HAND, Current, Entry, State, look, read_history, read_state, settled
from container.operate.release.move import Moved, Plan, move
from container.operate.release.place import Place
from container.operate.troubles import Refused
from handler.errors import ArtifactMissing
from handler.stores.writing import NOTHING

ROLLBACK = "rollback"
N_LOOKED_THROUGH = 200  # changes, for the one in which a release was last live


def rollback(
    place: Place,
    choice: Choice,
    *,
    to: str | None = None,
    who: str,
    note: str = "",
    force: bool = False,
    dry_run: bool = False,
) -> tuple[str, dict[str, str], Moved | None]:
    """To what was live before the last change, or when release `to` was last made live.

    returns  the release gone back to; what is to move; and what came of it, if it was to
    raises   Refused, NotNow, ArtifactError of the stores
    """
    current, state = settled(place)
    then, release = _earlier(place, current, state, to)
    wanted = {key: then.entries.get(key) for key in {*state.entries, *then.entries} if choice.has(key)}
    return release, *_go(place, current, state, wanted, release, then.before, choice, who, note, force, dry_run)


def take_back(place: Place, release: str, *, who: str, note: str = "") -> Moved | None:
    """Whatever of this release is live gives way to what lay there before it, other releases' segments staying. None when
    nothing of it is live."""
    current, state = settled(place)
    mine = [key for key, entry in state.entries.items() if entry.release == release]
    rejected = {id for id, verdict in current.verdicts.items() if verdict == "reject"} | {release}
    wanted: dict[str, Entry | None] = dict.fromkeys(mine)
    looking = set(mine)
    for earlier in _chain(place, state):
        for key in list(looking):
            entry = earlier.entries.get(key)
            if entry is None or entry.release not in rejected:
                wanted[key] = entry
                looking.discard(key)
        if not looking:
            break
    before = [entry.release for entry in wanted.values() if entry is not None and entry.release != BY_HAND]
    back_to = max(before, default=release)
    _, moved = _go(place, current, state, wanted, back_to, state.before, Choice(), who, note, False, False)
    return moved


def _go(
    place: Place,
    current: Current,
    state: State,
    wanted: dict[str, Entry | None],
    release: str,
    before: str,
    choice: Choice,
    who: str,
    note: str,
    force: bool,
    dry_run: bool,
) -> tuple[dict[str, str], Moved | None]:
    keys = [key for key, entry in wanted.items() if entry != state.entries.get(key)]
    looked = look(place, state, keys)
    if looked.by_hand and not force:
        raise Refused(by_hand_text(looked.by_hand, "nothing was taken back"))
    what = {key: "removed" if wanted[key] is None else "written" for key in sorted(keys)}
    if not keys or dry_run:
        return what, None
    check_shelf(place, {entry.digest for key in keys if (entry := wanted[key]) is not None}, release)
    entries = {key: entry for key, entry in state.entries.items() if key not in wanted}
    entries |= {key: entry for key, entry in wanted.items() if entry is not None}
    entries |= {key: replace(entries[key], version="") for key in keys if key in entries}
    over = {key: looked.there.get(key, NOTHING) for key in keys}
    # Of all segments, going back once more goes further back; of some, or over what somebody else put there, to that.
    adopted = adopt(place, current, state, looked.there, looked.by_hand)
    is_undone = choice.is_all and not looked.by_hand
    plan = Plan(ROLLBACK, release, entries, over, before if is_undone else adopted.name, adopted.name)
    return what, move(place, current, plan, who, note)


def _earlier(place: Place, current: Current, state: State, to: str | None) -> tuple[State, str]:
    if current.change is None:
        raise Refused(f"nothing was ever approved at {place.location}")
    if to is None:
        if state.before:
            return read_state(place.shelf, state.before), _release_of(place, current, state.before)
        return State(), ""
    for change in read_history(place.shelf, current, N_LOOKED_THROUGH):
        if change.release == to and change.action != "reject":
            try:
                return read_state(place.shelf, change.state), to
            except ArtifactMissing:
                break
    raise Refused(f"{to} was not live in the last {N_LOOKED_THROUGH} changes; mme release approve makes it so")


def _release_of(place: Place, current: Current, state: str) -> str:
    """The release that a state made live; with what was adopted, the one before."""
    releases = {change.state: change.release for change in read_history(place.shelf, current, N_LOOKED_THROUGH)
                if change.action != "reject"}  # fmt: skip
    while state and state not in releases:
        state = read_state(place.shelf, state).before
    return releases.get(state, BY_HAND)


def _chain(place: Place, state: State) -> Iterator[State]:
    """What was live before, and before that."""
    while state.before:
        try:
            state = read_state(place.shelf, state.before)
        except ArtifactMissing:  # gone with mme release gc
            return
        yield state
