"""Locations: what an operator writes for "where the models are", `s3://bucket/prefix/` or a directory.

Rule: a location is understood completely or not at all, before anything is served from it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from handler.archives.limits import ARTIFACT_MAX_BYTES
from handler.errors import StartRefused, TargetInvalid
from handler.stores.directory import DirectoryStore
from handler.stores.store import Store
from handler.targets import parse_target

if TYPE_CHECKING:
    from handler.stores.s3 import S3Settings

# S3's own naming rules, plus "_" and upper case, which buckets of the early years may have.
BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,253}[A-Za-z0-9]")
# An access point, which boto3 takes in the place of a bucket: of a region, of several (.mrap), or of object lambda.
ACCESS_POINT = re.compile(
    r"arn:aws[a-z0-9-]*:s3(?:-object-lambda)?:[a-z0-9-]*:[0-9]{12}:accesspoint[/:][A-Za-z0-9][A-Za-z0-9.-]{1,253}[A-Za-z0-9]"
)
SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


class LocationInvalid(StartRefused):
    """A location that is neither an S3 prefix nor a directory we can list."""

    def __init__(self, location: str, why: str) -> None:
        super().__init__(f"location {location!r}: {why}")
        self.location = location
        self.why = why


@dataclass(frozen=True, slots=True)
class S3Location:
    """`bucket` may be the ARN of an access point. `prefix` is empty or ends with a slash, so that prefix + target is the
    key."""

    bucket: str
    prefix: str

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}"


def parse_location(location: str) -> S3Location | Path:
    """The bucket and prefix, or the directory's absolute path, that `location` names.

    raises   LocationInvalid: another scheme, no bucket, a prefix no key could have, or no directory
    """
    if location.startswith("s3://"):
        rest = location[len("s3://") :]
        point = ACCESS_POINT.match(rest)
        bucket = point[0] if point else rest.partition("/")[0]
        prefix = rest[len(bucket) :]
        if prefix[:1] not in ("", "/") or not (point or BUCKET.fullmatch(bucket)):
            raise LocationInvalid(location, f"{_shown(rest, bucket)!r} is no bucket name; write s3://bucket/prefix/")
        prefix = prefix.removeprefix("/")
        prefix = prefix.removesuffix("/")
        try:
            return S3Location(bucket, parse_target(prefix) + "/" if prefix else "")
        except TargetInvalid as error:
            raise LocationInvalid(location, f"prefix {prefix!r}: {error.why}") from error
    if scheme := SCHEME.match(location):
        raise LocationInvalid(location, f"{scheme[0]} is not supported; write s3://bucket/prefix/ or a directory")
    if not location or "\0" in location:
        raise LocationInvalid(location, "write s3://bucket/prefix/ or a directory")
    root = Path(location).absolute()
    if not root.is_dir():
        raise LocationInvalid(location, "is not a directory" if root.exists() else "there is no such directory")
    return root


def beside(location: str, suffix: str) -> str:
    """The location of that name beside another: `s3://acme/prod/` has `s3://acme/prod.warm/`. Raises LocationInvalid."""
    if location.startswith("s3://"):
        where = parse_location(location)
        assert isinstance(where, S3Location)
        if not where.prefix:
            raise LocationInvalid(location, "is a whole bucket, and nothing is beside it")
    return location.rstrip("/") + suffix + "/"


def _shown(rest: str, bucket: str) -> str:
    return rest.partition("/")[0] if not bucket.startswith("arn:") else bucket


def open_store(
    location: str,
    *,
    max_artifact_bytes: int = ARTIFACT_MAX_BYTES,
    s3: S3Settings | None = None,
) -> Store:
    """The store at `location`. An S3 store speaks to S3 on its first use, not here.

    s3       how to speak to S3; None is `S3Settings()`; ignored for a directory
    raises   LocationInvalid, see `parse_location`
    """
    where = parse_location(location)
    if isinstance(where, Path):
        return DirectoryStore(where, max_artifact_bytes=max_artifact_bytes)
    from handler.stores.s3 import S3Settings, S3Store  # boto3 costs 0.2 s and 40 MB, which a directory need not pay

    return S3Store(where.bucket, where.prefix, max_artifact_bytes=max_artifact_bytes, settings=s3 or S3Settings())
