"""What `mme publish` is given: files, directories, S3 objects and prefixes, and the key that each artifact gets.

Rule: one key, one artifact. Where two would have the same, neither is taken.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from container.operate.troubles import Misused, Refused
from handler.archives.limits import Limits
from handler.errors import ArtifactMissing, ArtifactRefused, ArtifactUnavailable, TargetInvalid
from handler.stores.writing import WritingStore, open_writing_store
from handler.targets import parse_target

_SUFFIX = re.compile(
    r"\.(tar\.gz|tgz|tar|ubj|json|bin|bst|pkl|pickle|model|xgb|deprecated|joblib|mar)(\.gz)?\Z", re.IGNORECASE
)
KEY_SUFFIX = ".tar.gz"


@dataclass(frozen=True, slots=True)
class Source:
    """One artifact to be published. read: its bytes; raises ArtifactError."""

    key: str
    uri: str
    read: Callable[[], bytes] = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Found:
    """refused: by key or name, why it is no source."""

    sources: tuple[Source, ...]
    refused: dict[str, str]


def find(paths: Sequence[str], as_key: str | None, limits: Limits, endpoint_url: str | None) -> Found:
    """Everything that the paths name. Raises Misused, Refused where a path names nothing."""
    refused: dict[str, str] = {}
    found: list[Source] = []
    for path in paths:
        found += _s3_sources(path, limits, endpoint_url) if path.startswith("s3://") else _files(path, limits, refused)
    if as_key is not None:
        if len(found) != 1:
            raise Misused(f"--as names one artifact, and there are {len(found)}")
        found = [Source(_checked(as_key), found[0].uri, found[0].read)]
    by_key: dict[str, list[Source]] = {}
    for source in found:
        by_key.setdefault(source.key, []).append(source)
    for key, several in by_key.items():
        if len(several) > 1:
            refused[key] = f"{len(several)} artifacts for one key: {', '.join(source.uri for source in several)}"
    return Found(tuple(several[0] for several in by_key.values() if len(several) == 1), refused)


def key_of(name: str) -> str:
    """`us/Houston.ubj` goes live as `us/Houston.tar.gz`. Raises TargetInvalid."""
    suffix = _SUFFIX.search(name)
    return parse_target((name[: suffix.start()] if suffix else name) + KEY_SUFFIX)


def _checked(key: str) -> str:
    try:
        parse_target(key)
    except TargetInvalid as error:
        raise Misused(f"--as {key}: {error.why}") from error
    if not key.endswith(KEY_SUFFIX):
        raise Misused(f"--as {key}: what goes live is a {KEY_SUFFIX}, and named so")
    return key


def _files(path: str, limits: Limits, refused: dict[str, str]) -> Iterator[Source]:
    root = Path(path)
    if root.is_dir():
        for file in sorted(root.rglob("*")):
            if file.is_file():
                name = file.relative_to(root).as_posix()
                try:
                    yield Source(key_of(name), str(file), _reader(file, limits))
                except TargetInvalid as error:
                    refused[str(file)] = error.why
    elif root.exists():
        try:
            yield Source(key_of(root.name), str(root), _reader(root, limits))
        except TargetInvalid as error:
            refused[path] = error.why
    else:
        raise Refused(f"there is no {path}")


def _reader(file: Path, limits: Limits) -> Callable[[], bytes]:
    def read() -> bytes:
        try:
            if file.stat().st_size > limits.artifact_max_bytes:
                raise ArtifactRefused(str(file), f"it has more than {limits.artifact_max_bytes} bytes")
            return file.read_bytes()
        except OSError as error:
            raise ArtifactUnavailable(str(file), error.strerror or type(error).__name__) from error

    return read


def _s3_sources(path: str, limits: Limits, endpoint_url: str | None) -> Iterator[Source]:
    from handler.stores.s3 import S3Settings

    s3 = S3Settings(endpoint_url=endpoint_url)

    def opened(location: str) -> WritingStore:
        return open_writing_store(location, max_artifact_bytes=limits.artifact_max_bytes, s3=s3)

    if not path.endswith("/"):
        folder, _, name = path.rpartition("/")
        store = opened(folder + "/")
        if any(one.target == name for one in store.list(name)):
            yield Source(key_of(name), path, lambda: store.fetch(name).data)
            return
        store.close()
    store = opened(path)
    n_found = 0
    try:
        for one in store.list():
            n_found += 1
            yield Source(key_of(one.target), store.uri(one.target), _fetcher(store, one.target))
    except ArtifactMissing as error:
        raise Refused(str(error)) from error
    if not n_found:
        raise Refused(f"there is nothing at {path}")


def _fetcher(store: WritingStore, target: str) -> Callable[[], bytes]:
    return lambda: store.fetch(target).data
