"""A file of the spool is read whole or not at all, and what nobody comes for goes."""

from __future__ import annotations

import os
import resource
from pathlib import Path
from types import SimpleNamespace

import pytest

from container.link.spool import KEPT_S, BodyLost, Leftovers, Spool

MAX_BYTES = 1000


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path, MAX_BYTES)


def test_a_body_is_taken_once(spool: Spool, tmp_path: Path) -> None:
    (tmp_path / "7.body").write_bytes(b"x" * MAX_BYTES)
    assert spool.take("7", str(MAX_BYTES)) == b"x" * MAX_BYTES
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(BodyLost):
        spool.take("7", str(MAX_BYTES))


@pytest.mark.parametrize("said", ["9", "11", "-1", "", "ten", "1001", str(1 << 70)])
def test_a_body_of_another_length_than_was_said_or_allowed_is_lost(spool: Spool, tmp_path: Path, said: str) -> None:
    (tmp_path / "7.body").write_bytes(b"x" * (1001 if said == "1001" else 10))
    with pytest.raises(BodyLost):
        spool.take("7", said)


@pytest.mark.parametrize("number", ["../7", "", "7/../7", "x"])
def test_a_number_that_is_none_names_no_file(spool: Spool, tmp_path: Path, number: str) -> None:
    (tmp_path / "7.body").write_bytes(b"x")
    with pytest.raises(BodyLost):
        spool.take(number, "1")
    assert not spool.put(number, b"x")
    assert os.listdir(tmp_path) == ["7.body"]


def test_a_link_is_not_followed(spool: Spool, tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(b"x")
    (tmp_path / "7.body").symlink_to(tmp_path / "other")
    with pytest.raises(BodyLost):
        spool.take("7", "1")


def test_an_answer_is_written_whole_for_us_alone_and_over_no_other(spool: Spool, tmp_path: Path) -> None:
    assert spool.put("7", b"answer")
    assert not spool.put("7", b"another")
    path = tmp_path / "7.answer"
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"answer", 0o600)


def test_without_the_directory_nothing_is_put(tmp_path: Path) -> None:
    assert not Spool(tmp_path / "gone", MAX_BYTES).put("7", b"answer")


def test_an_answer_that_does_not_fit_leaves_nothing(spool: Spool, tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3, hard))
    try:
        assert not spool.put("7", b"answer")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("blocks", "free", "fits"), [(16, 9, True), (16, 8, False), (1 << 20, 65537, True), (1 << 20, 65536, False)]
)
def test_half_of_a_small_file_system_and_much_of_a_large_one_stay_free(
    spool: Spool, monkeypatch: pytest.MonkeyPatch, blocks: int, free: int, fits: bool
) -> None:
    disk = SimpleNamespace(f_frsize=4096, f_blocks=blocks, f_bavail=free)
    monkeypatch.setattr(os, "statvfs", lambda _: disk)
    assert spool.put("7", b"x" * 4096) is fits


def test_answers_that_nobody_fetches_go_and_bodies_that_are_being_written_stay(tmp_path: Path) -> None:
    leftovers = Leftovers(tmp_path)
    for name in ("1.answer", "1.body"):
        (tmp_path / name).touch()
    leftovers.sweep(100.0)
    (tmp_path / "2.answer").touch()
    leftovers.sweep(100.0 + KEPT_S - 1)
    assert len(list(tmp_path.iterdir())) == 3
    leftovers.sweep(100.0 + KEPT_S)
    assert sorted(os.listdir(tmp_path)) == ["1.body", "2.answer"]
    leftovers.sweep(100.0 + 2 * KEPT_S)
    assert os.listdir(tmp_path) == ["1.body"]


def test_a_directory_that_is_gone_has_no_leftovers(tmp_path: Path) -> None:
    Leftovers(tmp_path / "gone").sweep(0.0)
