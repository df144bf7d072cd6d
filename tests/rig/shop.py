"""A place with releases for tests: a live prefix and its shelf, in a directory or on a small S3 that ends when told.

What lies on a key is a few bytes that say whose they are, so a test sees at once which model a key has; only tests that ask a
model need real ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from container.operate.release import shelf
from container.operate.release.live import now, settled
from container.operate.release.manifest import Features, Judged, Manifest, Segment, content_of
from container.operate.release.place import Place
from container.operate.release.whole import Wholeness, wholeness
from handler.errors import ArtifactMissing


@dataclass
class Shop:
    place: Place
    n_made: int = 0

    def candidate(
        self,
        models: Mapping[str, str],
        *,
        judged: Mapping[str, Judged] | None = None,
        features: Mapping[str, Features] | None = None,
        refused: Mapping[str, str] | None = None,
    ) -> Manifest:
        """A release with these bytes on these keys, on the shelf."""
        segments = {}
        for key, text in models.items():
            digest = shelf.put_artifact(self.place.shelf, text.encode())
            segments[key] = Segment(
                digest,
                len(text),
                "reg:squarederror",
                (features or {}).get(key, Features(3)),
                judged=(judged or {}).get(key),
            )
        self.n_made += 1
        content = content_of(segments, refused or {})
        id = f"20261129-{self.n_made:06d}-{content}"
        manifest = Manifest(id, now(), "ann", ("here",), "", "examiner", segments, dict(refused or {}))
        shelf.put_manifest(self.place.shelf, manifest)
        return manifest

    def live(self) -> dict[str, str]:
        """What lies on the live keys."""
        found = {}
        for one in self.place.live.list():
            found[one.target] = self.place.live.fetch(one.target).data.decode()
        return found

    def by_hand(self, key: str, text: str | None) -> None:
        if text is None:
            self.place.live.remove(key)
        else:
            self.place.live.put(key, text.encode())

    def digest(self, key: str) -> str:
        return settled(self.place)[1].entries[key].digest

    def whole(self) -> Wholeness:
        return wholeness(self.place)

    def is_on_shelf(self, text: str) -> bool:
        try:
            self.place.shelf.fetch(shelf.artifact_key(shelf.digest_of(text.encode())))
        except ArtifactMissing:
            return False
        return True
