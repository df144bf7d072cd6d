from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path

import pytest

from container.platform.hosting.disk import ArchiveUnreadable, Disk, DiskFull
from handler.stores import open_store

REPORTS = Path(__file__).resolve().parents[3] / "fixtures" / "bugs" / "f10"
DISK_BYTES = 1 << 20


def shelf(tmp_path: Path, models: Path) -> Disk:
    return Disk(tmp_path / "disk", open_store(str(models)), DISK_BYTES, lambda target: False)


def archive(size: int = 100) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        info = tarfile.TarInfo("xgboost-model")
        info.size = size
        tar.addfile(info, io.BytesIO(bytes(size)))
    return packed.getvalue()


@pytest.mark.parametrize("name", ["flipped.tar.gz", "no-trailer.tar.gz", "garbage-after.tar.gz"])
def test_what_gzip_itself_refuses_is_not_unpacked(name: str, tmp_path: Path) -> None:
    disk = shelf(tmp_path, REPORTS)
    with pytest.raises(ArchiveUnreadable, match="gzip"):
        disk.fetch(name)
    assert disk.find(name) is None
    assert not list((tmp_path / "disk").rglob("xgboost-model"))


@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: whole[:-9],
        lambda whole: gzip.compress(gzip.decompress(whole)[:700]),
        lambda whole: gzip.compress(gzip.decompress(whole)[:512]),
        lambda whole: gzip.decompress(whole),
        lambda whole: whole + b"\x1f\x8b",
        lambda whole: b"",
    ],
)
def test_an_archive_that_is_cut_or_no_gzip_is_not_unpacked(damage: object, tmp_path: Path) -> None:
    (tmp_path / "a.tar.gz").write_bytes(damage(archive()))  # type: ignore[operator]
    with pytest.raises(ArchiveUnreadable):
        shelf(tmp_path, tmp_path).fetch("a.tar.gz")


def test_a_sound_archive_is_unpacked_and_one_larger_than_the_disk_finds_no_room(tmp_path: Path) -> None:
    (tmp_path / "a.tar.gz").write_bytes(archive())
    (tmp_path / "large.tar.gz").write_bytes(archive(2 * DISK_BYTES))
    disk = shelf(tmp_path, tmp_path)
    assert (disk.fetch("a.tar.gz") / "xgboost-model").read_bytes() == bytes(100)
    with pytest.raises(DiskFull):
        disk.fetch("large.tar.gz")
