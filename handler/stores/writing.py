"""A store that can be written to: an S3 prefix or a directory, for commands that publish, train and score.

Rule: an object appears whole or not at all, and whoever names what it is to be written over is told when something else was
there: of two who write over the same version, one is told.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from handler.archives.limits import ARTIFACT_MAX_BYTES
from handler.stores.directory_writing import WritingDirectory
from handler.stores.location import parse_location
from handler.stores.store import ANYTHING, NOTHING, Content, Store

if TYPE_CHECKING:
    from handler.stores.s3 import S3Settings

__all__ = ["ANYTHING", "NOTHING", "WritingStore", "open_writing_store"]


class WritingStore(Store, Protocol):
    """A `Store` that also takes. Safe to call from many threads at once.

    over     what may be there: the version that `Fetched` and `StoredObject` carry, NOTHING or ANYTHING
    raises   ArtifactChanged      something else is there; nothing was written
             ArtifactForbidden    the store will not let us write it
             ArtifactUnavailable  the store failed; it may have been written all the same

    A call that was answered too late is made again, so what is there by then may be our own: bytes that are those we
    wanted there count as written.
    """

    def put(self, target: str, data: Content, over: str = ANYTHING) -> str:
        """Write an object. The version it has now.

        data   a file is read from its start and need not fit into memory; a view is of memory that begins where a page of it
               does, and is of something that nobody will read soon
        """
        ...

    def copy(self, source: WritingStore, source_target: str, target: str, over: str = ANYTHING) -> str:
        """Write what another store of the same kind has, without carrying it here where that can be. The new version.

        raises   also ArtifactMissing, of the source
        """
        ...

    def remove(self, target: str, over: str = ANYTHING) -> None:
        """Take an object away; one that is not there is nothing to do."""
        ...


def open_writing_store(
    location: str, *, max_artifact_bytes: int = ARTIFACT_MAX_BYTES, s3: S3Settings | None = None, makes: bool = False
) -> WritingStore:
    """As `open_store`. makes: a directory that is not there is made. Raises LocationInvalid."""
    if makes and "://" not in location:
        Path(location).mkdir(parents=True, exist_ok=True)
    where = parse_location(location)
    if isinstance(where, Path):
        return WritingDirectory(where, max_artifact_bytes=max_artifact_bytes)
    from handler.stores.s3 import S3Settings  # boto3 costs 0.2 s and 40 MB, which a directory need not pay
    from handler.stores.s3_writing import S3WritingStore

    return S3WritingStore(
        where.bucket, where.prefix, max_artifact_bytes=max_artifact_bytes, settings=s3 or S3Settings()
    )
