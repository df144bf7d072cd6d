"""Data files of a run: a directory, a file, an S3 prefix or object, several of them, or SageMaker's ManifestFile.

Rule: files are found once, at the start, with the version each has then. A file that is another by the time it is read is
an error of that file, so a run's answers are of the data that it was started with.

Source of manifests: SageMaker API, S3DataSource: `[{"prefix": "s3://bucket/p/"}, "a.csv", "b/c.csv"]`.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from container.operate.tables.spill import FULL
from container.operate.troubles import Misused
from handler.errors import ArtifactError, StartRefused, TargetInvalid
from handler.stores import S3Location, Store, open_store, parse_location
from handler.targets import parse_target

if TYPE_CHECKING:
    from handler.stores.s3 import S3Settings

SUFFIXES = {
    ".parquet": "parquet", ".pq": "parquet",
    ".csv": "csv", ".csv.gz": "csv",
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".jsonl.gz": "jsonl",
}  # fmt: skip
MANIFEST_MAX_BYTES = 64 << 20
# Of a data file in S3, which may be far larger than an artifact; Store only checks it when it fetches.
_ANY_SIZE = 1 << 50
DOWNLOAD_TRIES = 3
CHUNK_BYTES = 1 << 20
_CHANGED = "it has been changed or removed since the run began"


class FileUnusable(Exception):
    """One data file cannot be read as it should, and why; the others can. is_passing: it may be had later, so the work is
    not whole without it."""

    def __init__(self, why: str, *, is_passing: bool = False) -> None:
        super().__init__(why)
        self.why = why
        self.is_passing = is_passing


@dataclass(frozen=True, slots=True, order=True)
class DataFile:
    """name: below its location, with slashes. version: changes when the file does. location: where its store is.
    content: its digest, where the version is of this host alone."""

    name: str
    size: int
    version: str
    location: str
    format: str
    content: str = ""

    @property
    def stem(self) -> str:
        return self.name.removesuffix(suffix_of(self.name))

    @property
    def uri(self) -> str:
        return f"{self.location.rstrip('/')}/{self.name}"


def suffix_of(name: str) -> str:
    """The longest known suffix of a name, or nothing."""
    return max((suffix for suffix in SUFFIXES if name.lower().endswith(suffix)), key=len, default="")


def find(
    locations: Sequence[str], data_format: str | None, endpoint_url: str | None, *, flag: str = "--data"
) -> tuple[DataFile, ...]:
    """All files, each once, by name. data_format: of those whose names do not say. flag: that named them. Raises Misused."""
    found: list[DataFile] = []
    for location in locations:
        try:
            found += _of_location(location, data_format, endpoint_url)
        except (StartRefused, ArtifactError, TargetInvalid, OSError) as error:
            raise Misused(f"{flag} {location}: {error}") from error
    if not found:
        raise Misused(f"{flag} {' '.join(locations)}: there are no files")
    seen: set[str] = set()
    for one in found:
        where = one.uri if "://" in one.location else os.path.realpath(one.uri)
        if where in seen:
            raise Misused(f"{flag}: {one.uri} is there twice")
        seen.add(where)
    # Not by version, which of equal files is another one on each host of a job.
    return tuple(sorted(found, key=lambda one: (one.name, one.location)))


def find_parts(locations: Sequence[str], data_format: str | None, endpoint_url: str | None) -> tuple[DataFile, ...]:
    """The same where each file has a part of the answers, called like it. Raises Misused when two would have one."""
    found = find(locations, data_format, endpoint_url)
    seen: dict[str, DataFile] = {}
    for one in found:
        other = seen.setdefault(one.stem, one)
        if other is not one:
            raise Misused(f"{other.uri} and {one.uri} would have the same part {one.stem}")
    return found


def _of_location(location: str, data_format: str | None, endpoint_url: str | None) -> Iterator[DataFile]:
    folder, name = _split(location)
    if name is None:
        yield from _listed(folder, "", data_format, endpoint_url)
    elif name.endswith((".manifest", ".json")):
        yield from _of_manifest(folder, name, data_format, endpoint_url)
    else:
        yield from _named(folder, (name,), data_format, endpoint_url)


def _split(location: str) -> tuple[str, str | None]:
    """A folder, and the file in it when the location is one."""
    if location.startswith("s3://"):
        folder, _, name = location.rpartition("/")
        is_file = bool(suffix_of(name)) or name.endswith((".manifest", ".json"))
        return (folder + "/", name) if is_file and len(folder) > len("s3://") else (location, None)
    if os.path.isdir(location):
        return location, None
    path = Path(location)
    if not path.exists():
        raise FileNotFoundError("there is no such file or directory")
    return str(path.parent), path.name


def _listed(folder: str, prefix: str, data_format: str | None, endpoint_url: str | None) -> Iterator[DataFile]:
    """What lies below. Names that begin with _ or . are not data, as everywhere (_SUCCESS, .part)."""
    for one in _store(folder, endpoint_url).list(prefix):
        if not one.target.rpartition("/")[2].startswith(("_", ".")):
            yield _data_file(one.target, one.size, one.version, folder, data_format)


def _named(folder: str, names: Sequence[str], data_format: str | None, endpoint_url: str | None) -> Iterator[DataFile]:
    store = _store(folder, endpoint_url)
    for name in names:
        found = next((one for one in store.list(parse_target(name)) if one.target == name), None)
        if found is None:
            raise FileNotFoundError(f"{store.uri(name)} does not exist")
        yield _data_file(found.target, found.size, found.version, folder, data_format)


def _of_manifest(folder: str, name: str, data_format: str | None, endpoint_url: str | None) -> Iterator[DataFile]:
    uri = f"{folder.rstrip('/')}/{name}"
    text = open_store(folder, max_artifact_bytes=MANIFEST_MAX_BYTES, s3=s3_of(folder, endpoint_url)).fetch(name).data
    try:
        entries = json.loads(text)
        prefix, names = entries[0]["prefix"], entries[1:]
        is_one = isinstance(prefix, str) and all(isinstance(one, str) for one in names)
    except (ValueError, LookupError, TypeError, RecursionError):
        is_one = False
    if not is_one:
        raise Misused(f'{uri} is no manifest: wanted [{{"prefix": "s3://bucket/prefix/"}}, "name", ...]')
    if not names:
        raise Misused(f"{uri} names no files")
    # The prefix and a name make a key by being written one after the other; a prefix need not end with a slash.
    base, _, begin = prefix.rpartition("/")
    yield from _named(f"{base}/", [begin + one for one in names], data_format, endpoint_url)


def _data_file(name: str, size: int, version: str, folder: str, data_format: str | None) -> DataFile:
    format = data_format or SUFFIXES.get(suffix_of(name))
    if format is None:
        raise Misused(f"{name}: its name says no format; use --data-format ({', '.join(sorted(SUFFIXES))} say one)")
    return DataFile(name, size, version, folder, format)


def _store(folder: str, endpoint_url: str | None) -> Store:
    return open_store(folder, max_artifact_bytes=_ANY_SIZE, s3=s3_of(folder, endpoint_url))


def s3_of(location: str, endpoint_url: str | None) -> S3Settings | None:
    """How to reach a location, if it is in S3."""
    if "://" not in location:
        return None  # boto3 costs 0.2 s, which a directory need not pay
    from handler.stores.s3 import S3Settings

    return S3Settings(endpoint_url=endpoint_url)


@contextlib.contextmanager
def on_disk(file: DataFile, scratch: Path, endpoint_url: str | None) -> Iterator[Path]:
    """Its bytes as a file here; one from S3 is gone again afterwards. Raises FileUnusable."""
    where = parse_location(file.location)
    if isinstance(where, Path):
        path = where / file.name
        _check(file, endpoint_url)
        yield path
        _check(file, endpoint_url)
        return
    with tempfile.NamedTemporaryFile(dir=scratch, prefix="data-") as copy:
        _download(where, file, Path(copy.name), endpoint_url)
        yield Path(copy.name)


def _check(file: DataFile, endpoint_url: str | None) -> None:
    """That it is still the file that was found."""
    try:
        found = next(
            (one for one in _store(file.location, endpoint_url).list(file.name) if one.target == file.name), None
        )
    except ArtifactError as error:
        raise FileUnusable(str(error), is_passing=True) from error
    if found is None or found.version != file.version:
        raise FileUnusable(_CHANGED)


def _download(where: S3Location, file: DataFile, path: Path, endpoint_url: str | None) -> None:
    """The version that was found, and no other. boto3 tries until an answer begins; what breaks off later begins anew."""
    from botocore.exceptions import BotoCoreError, ClientError
    from urllib3.exceptions import HTTPError

    from handler import aws

    client = aws.client("s3", aws.Patience(read_s=30.0, attempts=5), endpoint_url=endpoint_url)
    key = where.prefix + file.name
    why = ""
    for _ in range(DOWNLOAD_TRIES):
        try:
            answer = client.get_object(Bucket=where.bucket, Key=key, IfMatch=file.version)
            with path.open("wb") as copy:
                for chunk in answer["Body"].iter_chunks(CHUNK_BYTES):
                    copy.write(chunk)
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code", "")
            if code in ("PreconditionFailed", "412", "NoSuchKey", "404"):
                raise FileUnusable(_CHANGED) from error
            raise FileUnusable(f"S3 does not give it ({code})", is_passing=True) from error
        except (BotoCoreError, HTTPError, OSError) as error:
            if isinstance(error, OSError) and error.errno in FULL:  # of this machine, and no fault of S3
                raise
            why = type(error).__name__
        else:
            if path.stat().st_size == file.size:
                return
            why = "half of it came"
    raise FileUnusable(f"S3 does not give it ({why})", is_passing=True)
