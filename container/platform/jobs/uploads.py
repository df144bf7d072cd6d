"""Directories of a host taken to S3: once at the end, as they change, or as one tar.

Rule: only files, under their own path; a symbolic link is not followed, and nothing is ever removed from S3.

Sources: SageMaker guide, build-your-own-processing-container (no symlinks), model-checkpoints,
your-algorithms-training-algo-output (hosts' directories make one tar).
"""

from __future__ import annotations

import gzip
import os
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryFile

from container.platform.jobs.objects import Address, Objects

Stamp = tuple[int, int, int]


class Mirror:
    """One directory's files, put below an address whenever they have changed since the last call."""

    def __init__(self, objects: Objects, directory: Path, address: Address) -> None:
        self._objects = objects
        self._directory = directory
        self._address = address
        self._seen: dict[str, Stamp] = {}

    def note(self) -> None:
        """What is there now came from S3."""
        self._seen = dict(self._stamps())

    def go(self) -> int:
        """How many were put. Raises DataFault."""
        n_put = 0
        for name, stamp in list(self._stamps()):
            if self._seen.get(name) == stamp:
                continue
            try:
                self._objects.upload(self._directory / name, self._address.below(name))
            except FileNotFoundError:  # renamed or removed meanwhile: the next call sees what came of it
                continue
            self._seen[name] = stamp
            n_put += 1
        return n_put

    def _stamps(self) -> Iterator[tuple[str, Stamp]]:
        for name, path in files(self._directory):
            try:
                seen = path.stat()
            except FileNotFoundError:
                continue
            yield name, (seen.st_mtime_ns, seen.st_size, seen.st_ino)


def files(directory: Path) -> list[tuple[str, Path]]:
    """Each with its path below the directory, by name."""
    found = []
    for folder, _, names in os.walk(directory):
        for name in names:
            path = Path(folder, name)
            if path.is_file() and not path.is_symlink():
                found.append((path.relative_to(directory).as_posix(), path))
    return sorted(found)


def put_files(objects: Objects, directories: Sequence[Path], address: Address) -> None:
    """Each file as an object of its own. Raises DataFault."""
    for directory in directories:
        for name, path in files(directory):
            objects.upload(path, address.below(name))


def put_tar(objects: Objects, directories: Sequence[Path], address: Address) -> None:
    """One tar.gz of all hosts' files; one with nothing in it is an archive all the same. Raises DataFault."""
    with TemporaryFile() as packed:
        with gzip.GzipFile(fileobj=packed, mode="wb", mtime=0) as stream, tarfile.open(fileobj=stream, mode="w") as tar:
            names: set[str] = set()
            for directory in directories:
                for name, path in files(directory):
                    if name not in names:
                        tar.add(path, name)
                    names.add(name)
        packed.seek(0)
        objects.write(address, packed)
