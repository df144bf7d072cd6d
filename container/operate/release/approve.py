"""Approving: a release's artifacts go onto their live keys, and what lay there can be brought back.

Rule: what somebody else has put on a key is not written over unasked, and when it is, it lies on the shelf first.
"""

from __future__ import annotations

from dataclasses import dataclass

from container.operate.progress import each
from container.operate.release import shelf
from container.operate.release.choice import Choice
from container.operate.release.diff import Diff, Gate, compare
from container.operate.release.live import BY_HAND, Current, Entry, State, look, new_state, settled, write_state
from container.operate.release.manifest import Manifest
from container.operate.release.move import Moved, Plan, move, remark
from container.operate.release.place import N_AT_ONCE, Place
from container.operate.troubles import Refused
from handler.stores.writing import NOTHING

APPROVED, REJECTED = "approve", "reject"
N_SAID = 5


@dataclass(frozen=True, slots=True)
class Approval:
    """moved: None when there was nothing to do, or it was only asked what there is."""

    diff: Diff
    moved: Moved | None
    adopted: tuple[str, ...] = ()


def approve(
    place: Place,
    manifest: Manifest,
    gate: Gate,
    choice: Choice,
    *,
    who: str,
    note: str = "",
    force: bool = False,
    dry_run: bool = False,
) -> Approval:
    """Make it live. Raises Refused, NotNow, ArtifactError of the stores."""
    current, state = settled(place)
    diff = compare(manifest, state, shelf.Manifests(place.shelf, manifest), gate, choice)
    keys = [row.key for row in diff.passing]
    if not manifest.segments:
        raise Refused(f"release {manifest.id} has no segments")
    looked = look(place, state, keys)
    if looked.by_hand and not force:
        raise Refused(by_hand_text(looked.by_hand, "nothing was approved"))
    if not keys or dry_run:
        return Approval(diff, None)
    check_shelf(place, {manifest.segments[key].digest for key in keys}, manifest.id)
    adopted = adopt(place, current, state, looked.there, looked.by_hand)
    over = {key: looked.there.get(key, NOTHING) for key in keys}
    entries = dict(adopted.entries)
    entries |= {key: Entry(manifest.segments[key].digest, manifest.id) for key in keys}
    plan = Plan(APPROVED, manifest.id, entries, over, adopted.name, adopted.name)
    return Approval(diff, move(place, current, plan, who, note), tuple(sorted(looked.by_hand)))


def reject(place: Place, manifest: Manifest, who: str, note: str = "") -> None:
    """Note that it is not to go live. Raises Refused when it is."""
    current, state = settled(place)
    n_live = sum(entry.release == manifest.id for entry in state.entries.values())
    if n_live:
        raise Refused(f"{n_live} segments of {manifest.id} are live; mme release rollback takes them back")
    remark(place, current, REJECTED, manifest.id, who, note)


def by_hand_text(by_hand: dict[str, str], outcome: str) -> str:
    named = "; ".join(f"{key}: {what}" for key, what in sorted(by_hand.items())[:N_SAID])
    more = f"; and {len(by_hand) - N_SAID} more" if len(by_hand) > N_SAID else ""
    return f"{named}{more}. {outcome}; --force writes over it, and keeps what lies there on the shelf"


def check_shelf(place: Place, digests: set[str], id: str) -> None:
    """Asked before anything is claimed: without an artifact a change would stay unfinished for ever. Raises Refused."""
    if len(digests) <= 16:
        missing = {one for one in digests if not any(place.shelf.list(shelf.artifact_key(one)))}
    else:
        missing = digests - {digest for digest, _ in shelf.artifacts(place.shelf)}
    if missing:
        raise Refused(f"{len(missing)} artifacts of {id} are not on the shelf any more; mme publish puts them back")


def adopt(place: Place, current: Current, state: State, there: dict[str, str], by_hand: dict[str, str]) -> State:
    """The state to go back to: what was live, and on the keys that somebody else has changed what they put there."""
    if not by_hand:
        return state

    def keep(key: str) -> tuple[str, Entry]:
        fetched = place.live.fetch(key)
        return key, Entry(shelf.put_artifact(place.shelf, fetched.data), BY_HAND, fetched.version)

    entries = {key: entry for key, entry in state.entries.items() if key not in by_hand}
    keys = [key for key in by_hand if key in there]
    entries |= dict(each("kept", keep, keys, len(keys), N_AT_ONCE))
    adopted = new_state(current.revision, state.name, state.name, entries, {})
    write_state(place.shelf, adopted)
    return adopted
