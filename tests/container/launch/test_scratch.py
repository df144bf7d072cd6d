"""A scratch directory is its owner's while he lives, and nobody's afterwards."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from container.launch import mms, scratch
from container.launch.scratch import MARK, ScratchDirectory


def test_a_directory_goes_when_it_is_closed(tmp_path: Path) -> None:
    directory = ScratchDirectory(str(tmp_path))
    (directory.root / "file").write_text("x")
    assert directory.trouble([directory.root / "file"]) == ""
    directory.close()
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_owner_left_is_swept_by_the_next_and_what_a_living_one_holds_is_not(tmp_path: Path) -> None:
    living = ScratchDirectory(str(tmp_path))
    program = """if True:
        import sys
        from container.launch.scratch import ScratchDirectory
        directory = ScratchDirectory(sys.argv[1])
        print(directory.root, flush=True)
        input()
    """
    owner = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert owner.stdout is not None
    root = Path(owner.stdout.readline().decode().strip())
    next_one = ScratchDirectory(str(tmp_path))
    assert root.is_dir()
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    last = ScratchDirectory(str(tmp_path))
    assert not root.exists()
    assert living.root.is_dir()
    for one in (living, next_one, last):
        one.close()


def test_directories_of_others_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mme-platform-x").mkdir()  # not marked
    (tmp_path / "mme-link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / MARK).touch()
    (tmp_path / "mme-marked-by-a-directory" / MARK).mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    scratch.sweep(str(tmp_path))
    assert sorted(tmp_path.rglob("*")) == before


def test_what_was_removed_is_named(tmp_path: Path) -> None:
    directory = ScratchDirectory(str(tmp_path))
    socket = directory.root / "relay.sock"
    assert directory.trouble([socket]) == f"{socket} was removed"
    directory.root.rename(tmp_path / "moved")
    directory.root.mkdir()
    socket.touch()
    assert directory.trouble([socket]) == f"the scratch directory {directory.root} was removed"
    directory.close()


def test_a_place_where_nothing_can_be_made_is_told(tmp_path: Path) -> None:
    with pytest.raises(mms.ScratchUnusable, match="nowhere: No such file"):
        ScratchDirectory(str(tmp_path / "nowhere"))


def test_a_noexec_place_is_refused_unless_nothing_has_to_be_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = ScratchDirectory(str(tmp_path))
    flags = os.statvfs(tmp_path)
    noexec = os.statvfs_result([*flags[:8], flags.f_flag | os.ST_NOEXEC, *flags[9:]])
    monkeypatch.setattr(os, "statvfs", lambda _: noexec)
    monkeypatch.setattr(scratch, "netty_library", lambda: tmp_path / "libnetty.so")
    with pytest.raises(mms.ScratchUnusable, match="noexec"):
        directory.refuse_noexec()
    (tmp_path / "libnetty.so").touch()
    directory.refuse_noexec()
    directory.close()
