"""From artifacts that exist to a candidate release: each examined, written anew and put on the shelf, and then the manifest.

Rule: an artifact is opened by the process that may die, several at once, and what goes on the shelf is what came out of it.
Memory holds the artifacts under way, and of the others their facts.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from container.operate.artifacts.archive import pack_examined
from container.operate.progress import each
from container.operate.release import shelf
from container.operate.release.golden import golden_of
from container.operate.release.manifest import Features, Judged, Manifest, Segment, content_of
from container.operate.release.place import Place
from container.operate.release.sources import Found, Source
from container.operate.release.trouble import NoneSound
from handler.errors import ArtifactBroken, ArtifactForbidden, ArtifactMissing, ArtifactRefused
from handler.predictor import Facts, FoldsDisagree, facts_of_ensemble

if TYPE_CHECKING:
    from container.examine.quarantine import Examined, Quarantine

N_KNOWN_RELEASES = 5  # whose sources need not be looked into again


@dataclass(frozen=True, slots=True)
class Published:
    """is_new: False when the newest release had the very same in it, and nothing was written."""

    manifest: Manifest
    n_uploaded: int
    n_uploaded_bytes: int
    is_new: bool


@dataclass(frozen=True, slots=True)
class _Came:
    """What came of one source."""

    key: str
    segment: Segment | None
    refused: str = ""
    n_uploaded_bytes: int = 0


def publish(
    place: Place,
    found: Found,
    quarantine: Quarantine,
    *,
    n_at_once: int,
    made_by: str,
    made_from: Iterable[str],
    note: str,
    judged: dict[str, Judged] | None = None,
    dry_run: bool = False,
) -> Published:
    """judged: by key. dry_run: all but the writing. Raises NoneSound, ArtifactError of the shelf."""
    examiner = quarantine.fingerprint()
    publisher = _Publisher(place, quarantine, _known(place, examiner), writes=not dry_run)
    segments: dict[str, Segment] = {}
    refused = dict(found.refused)
    n_uploaded = n_uploaded_bytes = 0
    for came in each("examined", publisher.publish_one, found.sources, len(found.sources), n_at_once):
        if came.segment is None:
            refused[came.key] = came.refused
            continue
        n_uploaded += came.n_uploaded_bytes > 0
        n_uploaded_bytes += came.n_uploaded_bytes
        segments[came.key] = replace(came.segment, judged=(judged or {}).get(came.key))
    if not segments:
        raise NoneSound(f"none of {len(refused)} artifacts can be published; the first: " + _first(refused))
    content = content_of(segments, refused)
    ids = shelf.release_ids(place.shelf)
    for id in ids:
        if id.endswith(content):
            same = shelf.manifest(place.shelf, id)
            if same.content == content:
                return Published(same, n_uploaded, n_uploaded_bytes, False)
    made_at = datetime.now(UTC)
    manifest = Manifest(
        *(shelf.new_id(made_at, content, ids), f"{made_at:%Y-%m-%dT%H:%M:%SZ}", made_by, tuple(made_from)),
        *(note, examiner, segments, refused),
    )
    if not dry_run:
        shelf.put_manifest(place.shelf, manifest)
    return Published(manifest, n_uploaded, n_uploaded_bytes, True)


def _first(refused: dict[str, str]) -> str:
    return next((f"{key}: {reason}" for key, reason in sorted(refused.items())), "there are none")


def _known(place: Place, examiner: str) -> dict[str, Segment]:
    """Segments of the newest releases by their sources' digests, where the same examiner would say the same again."""
    known: dict[str, Segment] = {}
    for id in shelf.release_ids(place.shelf)[:N_KNOWN_RELEASES]:
        manifest = shelf.manifest(place.shelf, id)
        if manifest.examiner == examiner:
            for segment in manifest.segments.values():
                known.setdefault(segment.source_digest, segment)
    return known


class _Publisher:
    """What the threads that publish share."""

    def __init__(self, place: Place, quarantine: Quarantine, known: dict[str, Segment], *, writes: bool) -> None:
        self._place = place
        self._quarantine = quarantine
        self._known = known
        self._writes = writes
        self._lock = threading.Lock()
        self._there = {digest for digest, _ in shelf.artifacts(place.shelf)}

    def publish_one(self, source: Source) -> _Came:
        try:
            data = source.read()
        except (ArtifactForbidden, ArtifactMissing, ArtifactRefused) as error:
            return _Came(source.key, None, error.why)
        try:
            digest = shelf.digest_of(data)
            known = self._known.get(digest)
            if known is not None and known.digest in self._there:
                return _Came(source.key, replace(known, source=source.uri))
            examined = self._quarantine.examine(data, source.uri, wants_origins=True)
            packed = self._written(examined, source)
            segment = segment_of(examined, packed, source.uri, digest)
        except FoldsDisagree as error:
            return _Came(source.key, None, str(error))
        except (ArtifactBroken, ArtifactRefused) as error:
            return _Came(source.key, None, error.why)
        return _Came(source.key, segment, n_uploaded_bytes=self._put(segment, packed))

    def _written(self, examined: Examined, source: Source) -> bytes:
        """What goes on the shelf, read once more. Raises ArtifactRefused when it would answer otherwise than what came."""
        packed = pack_examined(examined)
        if not are_alike(examined.facts, self._quarantine.examine(packed, source.key).facts):
            raise ArtifactRefused(source.uri, "written anew it reads back differently")
        return packed

    def _put(self, segment: Segment, packed: bytes) -> int:
        """Bytes that go up; 0 when it is there."""
        with self._lock:
            is_there = segment.digest in self._there
            self._there.add(segment.digest)
        if is_there:
            return 0
        if self._writes:
            shelf.put_artifact(self._place.shelf, packed)
        return len(packed)


def are_alike(before: tuple[Facts, ...], after: tuple[Facts, ...]) -> bool:
    """Whether two readings say the same of how it predicts."""

    def said(facts: Facts) -> Facts:
        return replace(facts, corrections=(), resident_bytes=0)

    return tuple(map(said, before)) == tuple(map(said, after))


def segment_of(examined: Examined, packed: bytes, uri: str, source_digest: str) -> Segment:
    """A sound artifact as a release has it, `packed` going on the shelf. examined: with its origins. Raises FoldsDisagree."""
    facts = facts_of_ensemble(examined.facts)
    digest = shelf.digest_of(packed)
    corrections = dict.fromkeys(text for origin in examined.origins for text in origin.stated.corrections)
    return Segment(
        digest,
        len(packed),
        facts.objective,
        Features(facts.n_features, facts.feature_names, facts.feature_types),
        uri,
        source_digest,
        tuple(corrections),
        golden_of(examined, digest),
    )
