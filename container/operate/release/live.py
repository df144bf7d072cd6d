"""What is live: which artifact of which release lies on which key, and the change that made it so.

    current.json --names--> states/7-NONCE.json    a state, which never changes, and the change that led to it
                            states/7-NONCE.seen    the versions its keys got, as the store told them; lost, they are looked up

Rule: `current.json` is the one thing here that moves, and it moves by a conditional write. Of two people who change what is
live, one is told.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Annotated, Any

from msgspec import Meta

from container.operate.documents import read_as
from container.operate.release.place import Place
from container.operate.release.shelf import digest_of
from container.operate.troubles import NotNow, Refused
from handler.errors import ArtifactChanged, ArtifactMissing
from handler.stores.writing import NOTHING, WritingStore

CURRENT = "current.json"
HISTORY = "history/"
STATES = "states/"
SEEN = ".seen"
BY_HAND = "by hand"  # stands for a release where somebody else has put what lies there
FORMAT = 1
FEW = 16  # keys looked at one by one; for more, the prefix is listed


@dataclass(frozen=True, slots=True)
class Entry:
    """What lies on a key. version: as the store told it; empty when it has not."""

    digest: str
    release: str
    version: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Change:
    """One line of the history. state: what came of it; of a change that moved nothing, what was there before."""

    revision: int
    action: str
    release: str
    who: str
    at: str
    note: str
    instead_of: str
    n_written: int
    n_removed: int
    state: str


@dataclass(frozen=True, slots=True)
class State:
    """What lies on which key.

    name     under which it is kept; empty for what was before the first change
    before   the state to go back to; empty when there is none
    prior    the state that this one took the place of: where to go back to when it is not to be finished
    moves    keys to be written or removed for it, and what lay there: a version, or nothing
    """

    name: str = ""
    before: str = ""
    prior: str = ""
    entries: dict[str, Entry] = field(default_factory=dict, repr=False)
    moves: dict[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Current:
    """What `current.json` says.

    version      of that object, which the next change is written over
    is_settled   every move of its state was made
    change       the last that moved something; `last`: of any kind
    verdicts     the last thing done to each release: approved, rejected, rolled back to
    """

    version: str = NOTHING
    revision: int = 0
    state: str = ""
    is_settled: bool = True
    change: Change | None = None
    last: Change | None = None
    verdicts: dict[str, str] = field(default_factory=dict)

    @property
    def release(self) -> str:
        return self.change.release if self.change else ""


@dataclass(frozen=True, slots=True)
class _Format:
    format: int


@dataclass(frozen=True, slots=True)
class _Written:
    """A state as it is kept. entries: digest, which of the releases, version."""

    before: str
    prior: str
    releases: tuple[str, ...]
    entries: dict[str, tuple[str, Annotated[int, Meta(ge=0)], str]]
    moves: dict[str, str]


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def read_current(shelf: WritingStore) -> Current:
    try:
        fetched = shelf.fetch(CURRENT)
    except ArtifactMissing:
        return Current()
    format = read_as(_Format, fetched.data, fetched.uri).format
    if format != FORMAT:
        raise Refused(f"{fetched.uri} is of format {format}, which this release of mme does not read")
    return replace(read_as(Current, fetched.data, fetched.uri), version=fetched.version)


def move_current(shelf: WritingStore, over: Current, to: Current) -> Current:
    """`to`, in the place of `over`. Raises ArtifactChanged when something else has come into its place."""
    facts: dict[str, Any] = asdict(to) | {"format": FORMAT}
    # Of two who write the same, one is to be told, too.
    facts |= {"version": secrets.token_hex(8)}
    return replace(to, version=shelf.put(CURRENT, json.dumps(facts).encode(), over.version))


def new_state(revision: int, before: str, prior: str, entries: dict[str, Entry], moves: dict[str, str]) -> State:
    return State(f"{STATES}{revision:08d}-{secrets.token_hex(4)}.json", before, prior, entries, moves)


def write_state(shelf: WritingStore, state: State) -> None:
    releases = sorted({entry.release for entry in state.entries.values()})
    number = {release: at for at, release in enumerate(releases)}
    entries = {key: [one.digest, number[one.release], one.version] for key, one in state.entries.items()}
    facts = {
        "before": state.before,
        "prior": state.prior,
        "releases": releases,
        "entries": entries,
        "moves": state.moves,
    }
    shelf.put(state.name, json.dumps(facts, separators=(",", ":")).encode(), NOTHING)


def write_seen(shelf: WritingStore, state: State) -> None:
    """Keep the versions that the keys just written have."""
    seen = {key: state.entries[key].version for key in state.moves if key in state.entries}
    with suppress(ArtifactChanged):  # who finished it before us saw the same
        shelf.put(state.name + SEEN, json.dumps(seen, separators=(",", ":")).encode(), NOTHING)


def read_state(shelf: WritingStore, name: str) -> State:
    if not name:
        return State()
    fetched = shelf.fetch(name)
    written = read_as(_Written, fetched.data, fetched.uri)
    try:
        entries = {
            key: Entry(digest, written.releases[at], version) for key, (digest, at, version) in written.entries.items()
        }
    except IndexError:
        raise Refused(f"{fetched.uri} is not as it was written: it names fewer releases than it is of") from None
    with suppress(ArtifactMissing):
        seen = shelf.fetch(name + SEEN)
        for key, version in read_as(dict[str, str], seen.data, seen.uri).items():
            if key in entries:
                entries[key] = replace(entries[key], version=version)
    return State(name, written.before, written.prior, entries, written.moves)


def write_history(shelf: WritingStore, change: Change) -> None:
    with suppress(ArtifactChanged):
        shelf.put(f"{HISTORY}{change.revision:08d}.json", json.dumps(asdict(change)).encode(), NOTHING)


def read_history(shelf: WritingStore, current: Current, n_newest: int) -> list[Change]:
    """The newest first. What was killed between two of its writes is in `current` only."""
    changes = {one.revision: one for one in (current.change, current.last) if one}
    for revision in range(current.revision, max(0, current.revision - n_newest), -1):
        if revision not in changes:
            with suppress(ArtifactMissing):
                fetched = shelf.fetch(f"{HISTORY}{revision:08d}.json")
                changes[revision] = read_as(Change, fetched.data, fetched.uri)
    return [changes[revision] for revision in sorted(changes, reverse=True)]


def versions_there(live: WritingStore, keys: Iterable[str], entries: dict[str, Entry]) -> dict[str, str]:
    """Versions of what lies on these keys now; a key that is not in it has nothing."""
    wanted = set(keys)
    if len(wanted) > FEW:
        return {found.target: found.version for found in live.list() if found.target in wanted}
    there = {}
    for key in wanted:
        known = entries[key].version if key in entries else ""
        with suppress(ArtifactMissing):
            fetched = live.fetch_if_changed(key, known) if known else live.fetch(key)
            there[key] = known if fetched is None else fetched.version
    return there


@dataclass(frozen=True, slots=True)
class Looked:
    """What keys were found to hold.

    there     version by key, of those that hold something
    by_hand   what somebody else did, in words, by key: put, changed or removed
    """

    there: dict[str, str]
    by_hand: dict[str, str]


def look(place: Place, state: State, keys: Iterable[str], listed: dict[str, str] | None = None) -> Looked:
    """Hold keys against a state. What has a version we do not know is read; the same bytes are no change.

    listed   versions of all keys, when they have been listed already
    """
    wanted = list(keys)
    there = versions_there(place.live, wanted, state.entries) if listed is None else listed
    by_hand = {}
    for key in wanted:
        entry, version = state.entries.get(key), there.get(key)
        if entry is None:
            if version is not None:
                by_hand[key] = "somebody else put it there"
        elif version is None:
            by_hand[key] = "somebody else removed it"
        elif version != entry.version and not _holds(place.live, key, entry.digest):
            by_hand[key] = "somebody else changed it"
    return Looked({key: there[key] for key in wanted if key in there}, by_hand)


def _holds(live: WritingStore, key: str, digest: str) -> bool:
    try:
        return digest_of(live.fetch(key).data) == digest
    except ArtifactMissing:
        return False


def settled(place: Place) -> tuple[Current, State]:
    """What is live, when nothing is under way. Raises NotNow."""
    current = read_current(place.shelf)
    if not current.is_settled:
        assert current.change is not None
        change = current.change
        raise NotNow(
            f"{change.action} of {change.release} by {change.who} at {change.at} is not finished; "
            f"mme release finish --of {place.location} does that, with --undo it takes back what was done"
        )
    return current, read_state(place.shelf, current.state)
