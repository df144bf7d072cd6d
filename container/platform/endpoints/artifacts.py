"""Model data below s3://, read from the platform's own S3 with no credentials of this machine's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from container.environments import PLATFORM_KEY
from container.platform.hosting import disk
from handler import aws
from handler.archives.limits import ARTIFACT_MAX_BYTES
from handler.errors import ArtifactError, ArtifactForbidden
from handler.stores.location import LocationInvalid, S3Location, parse_location
from handler.stores.s3 import S3Settings, S3Store
from handler.stores.store import Fetched

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

LOADERS = 8
PATIENCE = aws.Patience(read_s=30.0)


class DataMissing(Exception):
    """A single model's data are not there, or are no tar.gz."""


class OwnStore(S3Store):
    """Artifacts below a prefix of the S3 at `address`.

    may_read   whether the role that the model runs as may read a URL
    """

    def __init__(
        self, where: S3Location, address: str, region: str, may_read: Callable[[str], bool] = lambda _: True
    ) -> None:
        super().__init__(
            where.bucket,
            where.prefix,
            max_artifact_bytes=ARTIFACT_MAX_BYTES,
            settings=S3Settings(endpoint_url=address, region=region, max_connections=LOADERS),
        )
        self._address = address
        self._region = region
        self._may_read = may_read

    def fetch(self, target: str) -> Fetched:
        if not self._may_read(self.uri(target)):
            raise ArtifactForbidden(self.uri(target), "AccessDenied", "the execution role may not read it")
        return super().fetch(target)

    def _make_client(self) -> S3Client:
        client: S3Client = own_client("s3", self._address, self._region)
        return client


def own_client(service: Any, address: str, region: str, patience: aws.Patience = PATIENCE) -> Any:
    """boto3's client for a service behind the platform's own address."""
    return aws.local_client(service, address, patience, key=PLATFORM_KEY, region=region)


def own_store(url: str, address: str, region: str, may_read: Callable[[str], bool]) -> OwnStore:
    """Raises LocationInvalid."""
    where = parse_location(url)
    if not isinstance(where, S3Location):
        raise LocationInvalid(url, "write s3://bucket/prefix/")
    return OwnStore(where, address, region, may_read)


def unpack(url: str, into: Path, address: str, region: str) -> None:
    """A single model's tar.gz. Raises DataMissing."""
    parts = urlsplit(url)
    store, key = OwnStore(S3Location(parts.netloc, ""), address, region), parts.path.lstrip("/")
    try:
        data = store.fetch(key).data
        into.mkdir(parents=True)
        disk.unpack(data, into, key)
    except (ArtifactError, disk.ArchiveUnreadable, disk.DiskFull, OSError) as error:
        raise DataMissing(f"Could not access model data at {url}: {error}") from error
    finally:
        store.close()
