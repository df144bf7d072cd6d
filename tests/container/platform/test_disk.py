"""An instance's disk takes what fits, and writes nothing of what does not."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path

import pytest

from container.platform.disk import ArchiveUnreadable, Disk, DiskFull
from tests.rig import boosters
from tests.rig.fakes import MemoryStore


def bomb(n_bytes: int) -> bytes:
    """A tar.gz of one file of so many zeros, of which only the first block is there."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        member = tarfile.TarInfo("xgboost-model")
        member.size = n_bytes
        tar.addfile(member, io.BytesIO(bytes(n_bytes)))
    return gzip.compress(file.getvalue())


def make(root: Path, archive: bytes) -> Disk:
    store = MemoryStore()
    store.put("a", archive)
    return Disk(root, store, 1 << 20, lambda _: False)


def test_an_archive_larger_than_the_disk_is_refused_before_it_is_written(tmp_path: Path) -> None:
    disk = make(tmp_path, bomb(50 << 20))
    with pytest.raises(DiskFull, match="a unpacks to"):
        disk.fetch("a")
    assert list(tmp_path.rglob("*")) == []
    assert disk.n_bytes == 0


def test_what_fits_is_there_and_what_is_no_archive_is_not(tmp_path: Path) -> None:
    disk = make(tmp_path, boosters.archive({"xgboost-model": b"x" * 1000}))
    assert (disk.fetch("a") / "xgboost-model").read_bytes() == b"x" * 1000
    assert disk.n_bytes == 1000
    with pytest.raises(ArchiveUnreadable):
        make(tmp_path, b"no archive").fetch("a")
