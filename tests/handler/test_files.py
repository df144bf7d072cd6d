"""Long files, whole or not at all: in C, and in Python where nothing is compiled."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from handler import files
from handler.compiled import files as compiled

LONG = np.random.default_rng(0).bytes((3 << 16) + 7)


@pytest.fixture(params=["C", "Python"], autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "Python":
        monkeypatch.setattr(files, "files", None)
    elif compiled is None:
        pytest.skip("nothing is compiled here")


@contextmanager
def opened(path: Path, flags: int) -> Iterator[int]:
    descriptor = os.open(path, flags | os.O_CREAT, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("text", [b"", b"x", LONG[: 1 << 16], LONG], ids=["empty", "a byte", "a piece", "pieces"])
def test_what_was_written_is_read(tmp_path: Path, text: bytes) -> None:
    with opened(tmp_path / "file", os.O_WRONLY) as descriptor:
        files.write(descriptor, text)
    assert (tmp_path / "file").read_bytes() == text
    with opened(tmp_path / "file", os.O_RDONLY) as descriptor:
        assert files.read(descriptor, len(text)) == text


def test_from_where_the_file_is_and_no_more_than_was_asked_for(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(LONG)
    with opened(tmp_path / "file", os.O_RDONLY) as descriptor:
        assert files.read(descriptor, 100) == LONG[:100]
        assert files.read(descriptor, 1 << 17) == LONG[100 : 100 + (1 << 17)]


def test_of_a_shorter_file_there_is_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(LONG)
    with opened(tmp_path / "file", os.O_RDONLY) as descriptor:
        assert files.read(descriptor, len(LONG) + 1) is None


def test_a_pipe_that_gives_a_little_at_a_time_is_read_whole_while_another_thread_writes() -> None:
    here, there = os.pipe()

    def write() -> None:
        files.write(there, LONG)
        os.close(there)

    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(write)
        assert files.read(here, len(LONG)) == LONG
        assert files.read(here, 1) is None
        done.result()
    os.close(here)


def test_what_does_not_fit_is_an_error_and_so_is_a_descriptor_that_is_none(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with opened(tmp_path / "file", os.O_WRONLY) as descriptor:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
        try:
            with pytest.raises(OSError, match="too large"):
                files.write(descriptor, LONG)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        with pytest.raises(OSError, match="Bad file descriptor"):
            files.read(descriptor, 1)
    for number in (-1, 1 << 30):
        with pytest.raises(OSError, match="Bad file descriptor"):
            files.write(number, b"x")


@pytest.mark.skipif(compiled is None, reason="nothing is compiled here")
def test_what_c_is_not_made_for_is_refused() -> None:
    assert compiled is not None
    with pytest.raises(ValueError, match="-1 bytes"):
        compiled.read(0, -1)
    with pytest.raises(OSError, match="Bad file descriptor"):
        compiled.read(1 << 32, 1)  # which is no other way to say 0
    with pytest.raises(TypeError):
        compiled.read("0", 1)  # type: ignore[arg-type]
    with pytest.raises(MemoryError):
        compiled.read(0, 1 << 62)
    with pytest.raises(TypeError):
        compiled.write(1, "text")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        compiled.read(0)  # type: ignore[call-arg]
