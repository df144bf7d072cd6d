"""The booster files inside an artifact (an archive, or a booster by itself) or inside an unpacked bundle.

Rule: nothing is written, followed or executed, and every size is bounded before it is spent. Which file is the
booster is decided by content first and name second, because SageMaker's own images write `xgboost-model` without an
extension and people add README, metadata.json and feature lists beside it.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from handler.archives import mar, tarball
from handler.archives.limits import Limits
from handler.errors import ArtifactBroken, ArtifactMissing, ArtifactRefused, ArtifactUnavailable
from handler.importer import foreign, formats

# The names under which boosters are published; see also XGBoost guide "Introduction to Model IO".
MODEL_NAME = re.compile(
    r"(xgboost-model(-\d+)?|model)|.+\.(ubj|json|bin|bst|pkl|pickle|model|xgb|deprecated|joblib)", re.IGNORECASE
)
# What AWS's image writes for k-fold cross validation and averages when it serves.
FOLD_NAME = re.compile(r"xgboost-model-(0|[1-9]\d{0,3})")
MAR_SUFFIX = ".mar"
MAX_NAMED = 3  # files that a refusal names
ZIP_MAGIC = b"PK\x03\x04"
MAGIC_OF_FOREIGN_ARCHIVES = {
    b"PK\x03\x04": "a zip archive",
    b"PK\x05\x06": "a zip archive",
    b"BZh": "a bzip2 archive",
    b"\xfd7zXZ\x00": "an xz archive",
    b"\x28\xb5\x2f\xfd": "a zstd archive",
    b"\x78\x9c": "a zlib stream, as joblib writes",
    b"\x78\x01": "a zlib stream, as joblib writes",
    b"\x78\xda": "a zlib stream, as joblib writes",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
}


@dataclass(frozen=True, slots=True)
class Member:
    """One booster file of an artifact; `name` is its path inside."""

    name: str
    data: bytes


def read_artifact(blob: bytes, uri: str, limits: Limits) -> tuple[Member, ...]:
    """The booster files of an artifact: one, or the folds of an ensemble in their order.

    blob     a gzip-compressed or plain tar, a booster file (gzip-compressed or not), or under a name that ends in .mar one of
             Multi Model Server's own archives
    raises   ArtifactBroken when it is damaged or holds no booster; ArtifactRefused when it passes a limit, holds links,
             devices or inference code, or leaves open which file is the booster
    """
    if not blob:
        raise ArtifactBroken(uri, "it is empty")
    if len(blob) > limits.artifact_max_bytes:
        raise ArtifactRefused(uri, f"it has {len(blob)} bytes, the limit is {limits.artifact_max_bytes}")
    try:
        if uri.endswith(MAR_SUFFIX) and blob.startswith(ZIP_MAGIC):
            return _choose(_archive_files(mar.entries(blob, limits), uri, limits), uri, limits)
        data: bytes | bytearray = blob
        if not formats.is_binary_booster(blob):
            _refuse_foreign_archive(blob, uri)
            if blob[:2] == b"\x1f\x8b":
                data = tarball.inflate(blob, limits.unpacked_max_bytes, limits.max_ratio)
        if tarball.looks_like_tar(data):
            return _choose(_archive_files(tarball.entries(data, limits.max_members), uri, limits), uri, limits)
    except tarball.NotReadable as error:
        raise ArtifactBroken(uri, str(error)) from error
    except tarball.OverLimit as error:
        raise ArtifactRefused(uri, f"it {error}") from error
    if not formats.is_binary_booster(memoryview(data)):
        _refuse_foreign_archive(data, uri)
    name = PurePosixPath(uri.rpartition("/")[2] or "model").name
    member = Member(name, bytes(data))
    if formats.sniff(member.data) is None:
        what = foreign.named(member.data) if member.data else None
        if what is not None:
            raise ArtifactRefused(uri, f"it is {what}")
        raise ArtifactBroken(uri, "it is neither an archive nor a booster file")
    return (member,)


def read_bundle(directory: str | Path, limits: Limits) -> tuple[Member, ...]:
    """The booster files of an unpacked bundle: the rules of `read_artifact`, applied to a directory.

    raises   ArtifactMissing when there is no such directory, ArtifactUnavailable when it cannot be read, and as above
    """
    uri = str(directory)
    try:
        root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ArtifactMissing(uri) from error
    except OSError as error:
        raise ArtifactUnavailable(uri, error.strerror or type(error).__name__) from error
    try:
        return _choose(_bundle_files(root, uri, limits), uri, limits)
    except OSError as error:
        raise ArtifactUnavailable(uri, error.strerror or type(error).__name__) from error
    finally:
        os.close(root)


def _refuse_foreign_archive(data: bytes | bytearray, uri: str) -> None:
    for magic, what in MAGIC_OF_FOREIGN_ARCHIVES.items():
        if data.startswith(magic):
            raise ArtifactRefused(uri, f"it is {what}; publish a .tar.gz")


def _archive_files(
    entries: Iterable[tarball.Entry], uri: str, limits: Limits
) -> Iterator[tuple[PurePosixPath, memoryview]]:
    seen: set[PurePosixPath] = set()
    for entry in entries:
        path = _sane_path(entry.name, uri, limits)
        if entry.kind not in ("file", "directory"):
            raise ArtifactRefused(uri, f"member {entry.name!r} is {entry.kind}")
        if entry.kind == "directory" or _is_litter(path):
            continue
        if path in seen:
            raise ArtifactRefused(uri, f"member {entry.name!r} is there twice")
        seen.add(path)
        yield path, entry.data


def _sane_path(name: str, uri: str, limits: Limits) -> PurePosixPath:
    raw = name.encode("utf-8", "surrogateescape")
    if len(raw) > limits.name_max_bytes:
        raise ArtifactRefused(uri, f"a member's name has {len(raw)} bytes, the limit is {limits.name_max_bytes}")
    path = PurePosixPath(name)
    if not raw or path.is_absolute() or ".." in path.parts or "\0" in name or "\\" in name:
        raise ArtifactRefused(uri, f"member name {name!r} leads out of the archive")
    if len(path.parts) > limits.max_depth:
        raise ArtifactRefused(
            uri, f"member {name!r} lies {len(path.parts)} levels deep, the limit is {limits.max_depth}"
        )
    return path


def _is_litter(path: PurePosixPath) -> bool:
    """Dot files, as AWS's image skips them; `._x` and `__MACOSX/` come from archives made on a Mac."""
    return path.name.startswith(".") or "__MACOSX" in path.parts


def _bundle_files(root: int, uri: str, limits: Limits) -> Iterator[tuple[PurePosixPath, memoryview]]:
    """Walk by directory descriptors, so that a link swapped in while we look is not followed either."""
    n_members = n_bytes = 0
    pending: list[tuple[PurePosixPath, int]] = [(PurePosixPath("."), os.dup(root))]
    try:
        while pending:
            here, folder = pending.pop()
            try:
                # listdir consumes the descriptor's position only; os.scandir(fd) would keep it open until collected
                names = sorted(os.listdir(folder))
                n_members += len(names)
                if n_members > limits.max_members:
                    raise ArtifactRefused(uri, f"it has more than {limits.max_members} members")
                for name in names:
                    path = _sane_path(str(here / name), uri, limits)
                    mode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
                    if stat.S_ISDIR(mode):
                        pending.append(
                            (
                                path,
                                os.open(
                                    name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder
                                ),
                            )
                        )
                    elif not stat.S_ISREG(mode):
                        raise ArtifactRefused(uri, f"member {str(path)!r} is {_mode_in_words(mode)}")
                    elif not _is_litter(path):
                        data = _read_regular(name, folder, limits.unpacked_max_bytes - n_bytes, uri, limits)
                        n_bytes += len(data)
                        yield path, memoryview(data)
            finally:
                os.close(folder)
    finally:
        for _, folder in pending:
            os.close(folder)


def _read_regular(name: str, folder: int, max_bytes: int, uri: str, limits: Limits) -> bytes:
    # O_NONBLOCK: were it swapped for a fifo between stat and open, the open must not hang.
    file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    with os.fdopen(file, "rb") as stream:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            raise ArtifactRefused(uri, f"member {name!r} is {_mode_in_words(status.st_mode)}")
        # One byte more, to notice that it grows; not the whole bound, for which `read` would allocate at once.
        data = stream.read(status.st_size + 1) if status.st_size <= max_bytes else None
    if data is None or len(data) > max_bytes:
        raise ArtifactRefused(uri, f"it holds more than {limits.unpacked_max_bytes} bytes")
    return data


def _mode_in_words(mode: int) -> str:
    if stat.S_ISLNK(mode):
        return "a symbolic link"
    if stat.S_ISFIFO(mode):
        return "a fifo"
    return "a socket" if stat.S_ISSOCK(mode) else "a device"


def _choose(files: Iterable[tuple[PurePosixPath, memoryview]], uri: str, limits: Limits) -> tuple[Member, ...]:
    boosters: list[tuple[PurePosixPath, memoryview]] = []
    hopefuls: list[tuple[PurePosixPath, memoryview]] = []
    others: list[str] = []
    n_files = 0
    for path, data in files:
        n_files += 1
        if path.parts[0] == "code" and len(path.parts) > 1:
            if path.suffix == ".py" and not limits.ignore_code:
                raise ArtifactRefused(
                    uri, f"it brings its own inference code ({path}), which this endpoint does not run"
                )
            continue
        found = formats.sniff(data)
        if found is not None and found.is_certain:
            boosters.append((path, data))
        elif MODEL_NAME.fullmatch(path.name) and (found is not None or path.suffix != ".json"):
            hopefuls.append((path, data))
        elif len(others) < MAX_NAMED:
            others.append(f"{path} ({foreign.named(data) or 'nothing we know'})")
    # AWS's image reads the top level of the model directory and nothing below it.
    chosen = [file for file in boosters if len(file[0].parts) == 1] or boosters or hopefuls
    if not chosen:
        raise ArtifactBroken(uri, _none_of(n_files, others))
    if len(chosen) > 1:
        chosen = _folds(chosen, uri)
    return tuple(Member(str(path), bytes(data)) for path, data in chosen)


def _none_of(n_files: int, others: list[str]) -> str:
    if not n_files:
        return "it holds no file"
    if not others:
        return f"none of its {n_files} files is a booster"
    more = f", and {n_files - len(others)} more" if n_files > len(others) else ""
    which = "its one file is no booster" if n_files == 1 else f"none of its {n_files} files is a booster"
    return f"{which}: {', '.join(others)}{more}"


def _folds(files: list[tuple[PurePosixPath, memoryview]], uri: str) -> list[tuple[PurePosixPath, memoryview]]:
    """The files of a k-fold ensemble in their order, which AWS's image averages; anything else is ambiguous."""
    by_number = {
        int(m[1]): file for file in files if len(file[0].parts) == 1 and (m := FOLD_NAME.fullmatch(file[0].name))
    }
    if len(by_number) == len(files) and sorted(by_number) == list(range(len(files))):
        return [by_number[number] for number in range(len(files))]
    names = ", ".join(sorted(str(path) for path, _ in files)[:5])
    raise ArtifactRefused(
        uri, f"{len(files)} of its files are boosters ({names}) and they are no k-fold ensemble; leave one"
    )
