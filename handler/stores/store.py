"""What every store promises, and what it hands over."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, Protocol

# What may stand where a version may when something is written, as in HTTP's conditions. No store gives such a version.
NOTHING = ""
ANYTHING = "*"
# What may be written: of a file all that is in it.
Content = bytes | memoryview | IO[bytes]


@dataclass(frozen=True, slots=True)
class Fetched:
    """One artifact, whole. `version` changes when the artifact does; only its own store can read it."""

    data: bytes = field(repr=False)
    version: str
    uri: str


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One line of a listing: what a caller would write as TargetModel, and what `fetch` would find there.

    written_at   seconds since 1970, by the store's clock
    """

    target: str
    size: int
    version: str
    written_at: float = field(default=0.0, compare=False)


class Store(Protocol):
    """Artifacts below one prefix. Safe to call from many threads at once. Targets have been through `parse_target`.

    raises   ArtifactMissing      there is no such artifact
             ArtifactForbidden    the store will not let us read it, and will not until someone changes that
             ArtifactUnavailable  the store failed, or the artifact came damaged; the next call may succeed
             ArtifactRefused      it is larger than we take, or no file at all
    """

    @property
    def listed_per_request(self) -> int:
        """How many artifacts `list` learns of at the price of one request."""
        ...

    def connect(self) -> None:
        """Do now what the first call would otherwise wait for. Needed by nobody, good at start.

        raises   ArtifactUnavailable when the store cannot be used as it is set up
        """
        ...

    def uri(self, target: str) -> str:
        """The artifact's full name for people and logs."""
        ...

    def fetch(self, target: str) -> Fetched:
        """The artifact as it is now."""
        ...

    def fetch_if_changed(self, target: str, version: str) -> Fetched | None:
        """The artifact when it is no longer `version`, else None, which costs no download."""
        ...

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        """Artifacts whose target starts with `prefix`, in the order of their UTF-8 bytes, fetched page by page.

        What is no target (S3's "folder" objects) is left out. The errors' `uri` is the listed prefix.
        """
        ...

    def close(self) -> None:
        """Give back connections. Nothing may be called afterwards."""
        ...
