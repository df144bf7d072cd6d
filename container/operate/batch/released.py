"""A release's models as a store: what `mme score --release` scores with, live or not.

Rule: a target's version is its artifact's digest, and what does not have that digest is damaged. The live prefix is not
looked at.
"""

from __future__ import annotations

from collections.abc import Iterator

from container.operate.release.manifest import Manifest
from container.operate.release.shelf import artifact_key, digest_of
from handler.errors import ArtifactMissing, ArtifactUnavailable
from handler.stores.store import Fetched, Store, StoredObject


class ReleasedStore:
    """Artifacts of a release's targets. shelf: closed with this."""

    def __init__(self, shelf: Store, manifest: Manifest) -> None:
        self._shelf = shelf
        self._segments = manifest.segments
        self.listed_per_request = max(1, len(manifest.segments))  # the manifest is here already

    def connect(self) -> None:
        self._shelf.connect()

    def uri(self, target: str) -> str:
        segment = self._segments.get(target)
        return self._shelf.uri(artifact_key(segment.digest) if segment else target)

    def fetch(self, target: str) -> Fetched:
        segment = self._segments.get(target)
        if segment is None:
            raise ArtifactMissing(self.uri(target))
        fetched = self._shelf.fetch(artifact_key(segment.digest))
        if digest_of(fetched.data) != segment.digest:
            raise ArtifactUnavailable(fetched.uri, "OtherDigest")
        return Fetched(fetched.data, segment.digest, fetched.uri)

    def fetch_if_changed(self, target: str, version: str) -> Fetched | None:
        segment = self._segments.get(target)
        return None if segment is not None and segment.digest == version else self.fetch(target)

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        for target, segment in sorted(self._segments.items(), key=lambda item: item[0].encode()):
            if target.startswith(prefix):
                yield StoredObject(target, segment.n_bytes, segment.digest)

    def close(self) -> None:
        self._shelf.close()
