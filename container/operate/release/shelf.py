"""The shelf: artifacts by digest, each once, and the manifests that name them.

Rule: what lies here is never changed, and a manifest is put down last, when all it names is here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import datetime, timedelta

from container.operate.release.manifest import ID, Manifest
from container.operate.tables.spill import scratch_file
from container.operate.troubles import Refused
from handler.errors import ArtifactChanged, ArtifactMissing
from handler.stores.store import Store, StoredObject
from handler.stores.writing import NOTHING, WritingStore

ARTIFACTS = "artifacts/"
RELEASES = "releases/"
PROFILES, RUNS = "profiles/", "runs/"  # of `mme train`
SUFFIX = ".tar.gz"
_STAMP = "%Y%m%d-%H%M%S"
_STAMP_CHARS = len("20261129-213503")


def artifact_key(digest: str) -> str:
    return f"{ARTIFACTS}{digest}{SUFFIX}"


def digest_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def artifacts(shelf: WritingStore) -> Iterator[tuple[str, StoredObject]]:
    """Digest and object of each."""
    for found in shelf.list(ARTIFACTS):
        yield found.target[len(ARTIFACTS) :].removesuffix(SUFFIX), found


def put_artifact(shelf: WritingStore, data: bytes) -> str:
    """The digest under which it lies there, now or before."""
    digest = digest_of(data)
    shelf.put(artifact_key(digest), data, NOTHING)
    return digest


def release_ids(shelf: WritingStore) -> list[str]:
    """The newest first."""
    names = (found.target[len(RELEASES) :].removesuffix(".json") for found in shelf.list(RELEASES))
    return sorted(filter(ID.fullmatch, names), reverse=True)


def new_id(made_at: datetime, content: str, ids: Sequence[str]) -> str:
    """A release's: when it was made and what is in it. It sorts behind those that are there, the newest of them first: made
    in one second, or by clocks that differ, they would be in the order of their contents, and approving takes the last."""
    stamp = f"{made_at:{_STAMP}}"
    newest = ids[0][:_STAMP_CHARS] if ids else ""
    if stamp <= newest:
        with suppress(ValueError, OverflowError):  # an id that somebody made up, and is no time
            stamp = f"{datetime.strptime(newest, _STAMP) + timedelta(seconds=1):{_STAMP}}"
    return f"{stamp}-{content}"


def put_manifest(shelf: WritingStore, manifest: Manifest) -> None:
    """By way of the disk: the text of thousands of segments takes more than they do. Raises NotNow where that is full."""
    with scratch_file() as text:
        manifest.write_to(text)
        shelf.put(f"{RELEASES}{manifest.id}.json", text, NOTHING)


def manifest(shelf: Store, id: str) -> Manifest:
    """Raises Refused when there is no such release."""
    if not ID.fullmatch(id):
        raise Refused(f"{id!r} names no release; mme release list shows them")
    try:
        fetched = shelf.fetch(f"{RELEASES}{id}.json")
    except ArtifactMissing as error:
        raise Refused(f"there is no release {id}; mme release list shows them") from error
    return Manifest.from_json(fetched.data, fetched.uri)


def newest(shelf: WritingStore) -> Manifest:
    """The newest release. Raises Refused when there is none."""
    ids = release_ids(shelf)
    if not ids:
        raise Refused(f"there is no release at {shelf.uri('')}; mme publish makes one")
    return manifest(shelf, ids[0])


class Manifests:
    """Manifests by id, each read once; None for one that is gone."""

    def __init__(self, shelf: WritingStore, *known: Manifest) -> None:
        self._shelf = shelf
        self._read: dict[str, Manifest | None] = {one.id: one for one in known}

    def get(self, id: str) -> Manifest | None:
        if id not in self._read:
            self._read[id] = None
            with suppress(Refused):
                self._read[id] = manifest(self._shelf, id)
        return self._read[id]


def remove(shelf: WritingStore, found: StoredObject) -> bool:
    """Whether it is gone now; not when somebody has just put it there anew."""
    try:
        shelf.remove(found.target, found.version)
    except ArtifactChanged:
        return False
    return True
