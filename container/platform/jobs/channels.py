"""What of S3 a host finds in a directory: a prefix's objects or a manifest's, all of them or this host's share.

Rule: a file's place below the directory follows from its key alone, so every host and every attempt finds it there.

Sources: S3DataSource and ProcessingS3Input in botocore's model. Which objects a host gets of ShardedByS3Key is told nowhere,
only that they are about 1/n of their number.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from container.platform.jobs.objects import Address, DataFault, Objects

PREFIX, MANIFEST = "S3Prefix", "ManifestFile"
SHARDED = "ShardedByS3Key"


@dataclass(frozen=True, slots=True)
class Input:
    """path: the directory below /opt/ml, relative to it."""

    name: str
    path: str
    uri: str
    data_type: str = PREFIX
    is_sharded: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """One object and where it lies below the input's directory."""

    address: Address
    path: str


def find(objects: Objects, source: Input) -> list[Found]:
    """All of an input's objects, by key. Raises DataFault."""
    address = Address.of(source.uri)
    if source.data_type == MANIFEST:
        return _of_manifest(objects, address)
    found = [Found(Address(address.bucket, key), place(key, address.key)) for key in objects.keys(address)]
    return [one for one in found if not one.address.key.endswith("/")]


def nothing_found(uri: str, region: str, role: str) -> str:
    """In AWS's words."""
    bucket = Address.of(uri).bucket
    return (
        f'No S3 objects found under S3 URL "{uri}" given in input data source. Please ensure that the bucket exists in the '
        f'selected region ({region}), that objects exist under that S3 prefix, and that the role "{role}" has '
        f'"s3:ListBucket" permissions on bucket "{bucket}".'
    )


def share(found: list[Found], number: int, of: int) -> list[Found]:
    """Host `number`'s of so many, from 0."""
    return found[number::of]


def place(key: str, prefix: str) -> str:
    """`p/a/b.csv` of the prefix `p` or `p/` is `a/b.csv`; of `p/a/b.csv` it is `b.csv`, and of `p/a/b` too."""
    if prefix.endswith("/") or not prefix or key.startswith(f"{prefix}/"):
        return key[len(prefix) :].lstrip("/")
    return key[len(prefix.rpartition("/")[0]) :].lstrip("/")


def download(objects: Objects, found: list[Found], directory: Path) -> None:
    """Raises DataFault."""
    directory.mkdir(parents=True, exist_ok=True)
    for one in found:
        if ".." in PurePosixPath(one.path).parts:
            raise DataFault(f"{one.address} would lie outside of its channel")
        objects.download(one.address, directory / one.path)


def _of_manifest(objects: Objects, address: Address) -> list[Found]:
    try:
        entries = json.loads(objects.read(address))
        prefix, names = entries[0]["prefix"], entries[1:]
        is_one = isinstance(prefix, str) and all(isinstance(name, str) for name in names)
    except (ValueError, LookupError, TypeError, RecursionError):
        is_one = False
    if not is_one or not prefix.startswith("s3://"):
        raise DataFault(f'{address} is no manifest: wanted [{{"prefix": "s3://bucket/prefix/"}}, "name", ...]')
    base = Address.of(prefix)
    return [Found(Address(base.bucket, base.key + name), name.lstrip("/")) for name in names]
