"""What only a directory can do to us: links, pipes, files that change under the reader."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from handler.errors import ArtifactForbidden, ArtifactMissing, ArtifactRefused, ArtifactUnavailable
from handler.stores.directory import DirectoryStore

SMALL_READ = 4


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "models"
    (root / "eu").mkdir(parents=True)
    (root / "eu/a").write_bytes(b"0123456789")
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "models-old").mkdir()
    (tmp_path / "models-old/a").write_bytes(b"old")
    return root


@pytest.fixture
def store(root: Path) -> DirectoryStore:
    return DirectoryStore(root, max_artifact_bytes=1000)


def listed(store: DirectoryStore) -> list[str]:
    return [stored.target for stored in store.list()]


@pytest.mark.parametrize("to", ["eu/a", "./eu/../eu/a", "{root}/eu/a"])
def test_a_link_to_a_file_inside_is_followed(root: Path, store: DirectoryStore, to: str) -> None:
    (root / "link").symlink_to(to.format(root=root))
    assert store.fetch("link").data == b"0123456789"
    assert listed(store) == ["eu/a", "link"]


def test_a_linked_folder_inside_is_followed_but_not_listed(root: Path, store: DirectoryStore) -> None:
    (root / "current").symlink_to("eu", target_is_directory=True)
    (root / "eu/up").symlink_to("..", target_is_directory=True)
    assert store.fetch("current/a").data == b"0123456789"
    assert store.fetch("eu/up/eu/up/current/a").data == b"0123456789"
    assert listed(store) == ["eu/a"]


@pytest.mark.parametrize(
    ("link", "to", "target"),
    [
        ("link", "../secret", "link"),
        ("link", "{root}/../secret", "link"),
        ("link", "/dev/zero", "link"),
        ("link", "../models-old/a", "link"),
        ("folder", "..", "folder/secret"),
        ("folder", "../models-old", "folder/a"),
        ("folder", "/", "folder/etc/passwd"),
        ("dangling", "../not/there", "dangling"),
    ],
)
def test_a_link_that_leads_out_is_forbidden_and_not_listed(
    root: Path, store: DirectoryStore, link: str, to: str, target: str
) -> None:
    (root / link).symlink_to(to.format(root=root))
    with pytest.raises(ArtifactForbidden, match="OutsideDirectory"):
        store.fetch(target)
    assert listed(store) == ["eu/a"]


@pytest.mark.parametrize(
    "prefix", ["out/", "out/s", "../", "../s", "eu/../../", "/", "/etc/", "/e", "in/", "./", "eu//", "eu/a/"]
)
def test_a_listing_is_not_led_out_by_its_prefix(root: Path, store: DirectoryStore, prefix: str) -> None:
    (root / "out").symlink_to("..")
    (root / "in").symlink_to("eu")
    assert list(store.list(prefix)) == []


@pytest.mark.parametrize("target", ["eu/a", "current/a"])
def test_a_link_swapped_in_after_the_check_is_not_followed(
    root: Path, store: DirectoryStore, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    (root / "current").symlink_to("eu")
    real_open = os.open

    def swap_then_open(path: str, *args: int, **kwargs: int) -> int:
        if path == "eu" and not (root / "eu").is_symlink():
            (root / "eu").rename(root / "was-eu")
            (root / "eu").symlink_to("../models-old")
        return real_open(path, *args, **kwargs)

    monkeypatch.setattr("handler.stores.directory.os.open", swap_then_open)
    with pytest.raises((ArtifactForbidden, ArtifactUnavailable, ArtifactMissing)):
        store.fetch(target)
    assert (root / "was-eu").exists()


@pytest.mark.parametrize("swapped", ["eu", "eu/north"])
def test_a_listing_enters_no_link_that_was_swapped_in_for_a_folder(
    root: Path, store: DirectoryStore, swapped: str
) -> None:
    outside = root.parent / "models-old"
    for folder in (root / "eu/north", outside / "north"):
        folder.mkdir()
        (folder / "b").write_bytes(b"1")
    found = store.list()
    assert next(found).target == "eu/a"
    (root / swapped).rename(root / "was")
    (root / swapped).symlink_to(outside)
    assert list(found) == []


@pytest.mark.parametrize(
    "target", ["../secret", "eu/../../secret", "/eu/../../secret", "../models-old/a", "eu/..", ".."]
)
def test_no_target_leads_out_by_its_parts(root: Path, store: DirectoryStore, target: str) -> None:
    with pytest.raises(ArtifactForbidden, match="OutsideDirectory"):
        store.fetch(target)


def test_a_target_without_links_is_opened_without_a_look_at_its_path(
    store: DirectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("handler.stores.directory.os.path.realpath", lambda _: pytest.fail("its path was looked at"))
    assert store.fetch("eu/a").data == b"0123456789"


def test_a_link_to_nothing_inside_is_missing(root: Path, store: DirectoryStore) -> None:
    (root / "dangling").symlink_to("eu/gone")
    with pytest.raises(ArtifactMissing):
        store.fetch("dangling")
    assert listed(store) == ["eu/a"]


def test_links_that_lead_in_a_circle_end(root: Path, store: DirectoryStore) -> None:
    (root / "one").symlink_to("two")
    (root / "two").symlink_to("one")
    with pytest.raises(ArtifactUnavailable, match="ELOOP"):
        store.fetch("one")
    assert listed(store) == ["eu/a"]


def test_a_pipe_is_refused_without_waiting_for_a_writer(root: Path, store: DirectoryStore) -> None:
    os.mkfifo(root / "pipe")
    with pytest.raises(ArtifactRefused, match="not a regular file"):
        store.fetch("pipe")
    assert listed(store) == ["eu/a"]


def test_a_socket_is_refused(root: Path, store: DirectoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)  # a socket's path may have 108 bytes
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket")
        with pytest.raises(ArtifactRefused, match="not a regular file"):
            store.fetch("socket")
    assert listed(store) == ["eu/a"]


def between_reads(monkeypatch: pytest.MonkeyPatch, change: Callable[[], object]) -> None:
    """Do `change` once the first few bytes of a file have been read."""
    changes = [change]
    real_read = os.read

    def read(file: int, size: int) -> bytes:
        data = real_read(file, min(size, SMALL_READ))
        if changes:
            changes.pop()()
        return data

    monkeypatch.setattr("handler.stores.directory.os.read", read)


@pytest.mark.parametrize("data", [b"another", b"9876543210", b"0123456789 and more"], ids=["shorter", "same", "longer"])
def test_a_file_written_in_place_while_it_is_read_is_not_half_returned(
    root: Path, store: DirectoryStore, monkeypatch: pytest.MonkeyPatch, data: bytes
) -> None:
    def write() -> None:
        (root / "eu/a").write_bytes(data)
        os.utime(root / "eu/a", (1, 1))  # a clock tick away, however fast the test is

    between_reads(monkeypatch, write)
    with pytest.raises(ArtifactUnavailable, match="ChangedWhileRead"):
        store.fetch("eu/a")
    assert store.fetch("eu/a").data == data


def test_a_file_replaced_by_rename_while_it_is_read_stays_whole(
    root: Path, store: DirectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "new").write_bytes(b"9876543210")
    between_reads(monkeypatch, lambda: (root / "new").rename(root / "eu/a"))
    before = store.fetch("eu/a")
    assert before.data == b"0123456789"
    after = store.fetch_if_changed("eu/a", before.version)
    assert after is not None
    assert after.data == b"9876543210"


def test_a_root_that_is_a_link_may_be_swapped_for_another(tmp_path: Path, root: Path) -> None:
    (tmp_path / "live").symlink_to("models")
    store = DirectoryStore(tmp_path / "live", max_artifact_bytes=1000)
    assert listed(store) == ["eu/a"]
    (tmp_path / "next").symlink_to("models-old")
    (tmp_path / "next").rename(tmp_path / "live")
    assert listed(store) == ["a"]
    assert store.fetch("a").data == b"old"


def test_a_root_that_has_gone_is_the_operators_trouble_and_may_come_back(root: Path, store: DirectoryStore) -> None:
    root.rename(root.with_name("away"))
    with pytest.raises(ArtifactUnavailable, match="NoSuchDirectory"):
        store.fetch("eu/a")
    with pytest.raises(ArtifactUnavailable, match="NoSuchDirectory"):
        list(store.list())
    with pytest.raises(ArtifactUnavailable, match="NoSuchDirectory"):
        store.connect()
    root.with_name("away").rename(root)
    assert store.fetch("eu/a").data == b"0123456789"


def test_reading_leaves_no_descriptor_open(root: Path, store: DirectoryStore) -> None:
    os.mkfifo(root / "pipe")
    before = len(os.listdir("/dev/fd"))
    for target in ["eu/a", "eu", "pipe", "nope", "eu/a/b", "eu/nope"] * 3:
        try:
            store.fetch(target)
        except (ArtifactMissing, ArtifactRefused):
            continue
    list(store.list())
    assert len(os.listdir("/dev/fd")) == before
