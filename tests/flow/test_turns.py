"""Who answers everybody gets the processor first when it has something to do: the slices that the kernel was told."""

from __future__ import annotations

import contextlib
import ctypes
import platform
import shutil
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from container.limits.libc import SHORTEST_SLICE_NS
from tests.rig import boosters
from tests.rig.endpoint import Endpoint

_GETATTR = {"x86_64": 315, "aarch64": 275}
_ATTR = struct.Struct("=IIQiIQQQ")  # see sched_setattr(2)
LINUX = tuple(int(part) for part in platform.release().split("-")[0].split(".")[:2])

pytestmark = pytest.mark.skipif(LINUX < (6, 12), reason="an older kernel keeps no slice of a thread's own")


def slice_ns(thread: int) -> int:
    room = ctypes.create_string_buffer(_ATTR.size)
    if ctypes.CDLL(None).syscall(_GETATTR[platform.machine()], thread, room, _ATTR.size, 0):
        raise ProcessLookupError(thread)
    return int(_ATTR.unpack(room.raw)[5])


@pytest.fixture
def endpoint(tmp_path: Path) -> Iterator[Endpoint]:
    (tmp_path / "1.tar.gz").write_bytes(boosters.segment_archive(1))
    scratch = Path(tempfile.mkdtemp(prefix="mt-"))
    with Endpoint(tmp_path, scratch) as endpoint:
        yield endpoint
    shutil.rmtree(scratch)


def test_the_event_loops_and_the_main_thread_take_short_turns_and_nobody_else(endpoint: Endpoint) -> None:
    jvm, runtime = endpoint.jvm, endpoint.runtime
    short: dict[bool, set[str]] = {True: set(), False: set()}
    for process in (jvm, runtime):
        for thread in Path(f"/proc/{process}/task").iterdir():
            with contextlib.suppress(OSError):  # it has ended
                name = (
                    (thread / "comm").read_text().strip() if process == jvm else f"main {thread.name == str(runtime)}"
                )
                short[slice_ns(int(thread.name)) == SHORTEST_SLICE_NS].add(name[:14])
    assert short[True] == {"epollEventLoop", "main True"}
    assert "main False" in short[False]
