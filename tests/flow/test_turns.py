"""Who answers everybody gets the processor first when it has something to do: the slices that the kernel was told."""

from __future__ import annotations

import contextlib
import ctypes
import platform
import shutil
import struct
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from container.limits.libc import SHORTEST_SLICE_NS, take_short_turns
from handler.compiled import letting_go
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


OFFERED_NS = 200_000


@pytest.mark.skipif(letting_go is None, reason="nothing is compiled here")
@pytest.mark.parametrize("had_ns", [None, SHORTEST_SLICE_NS], ids=["a thread of the system's slices", "one of shorter"])
def test_who_offers_its_core_has_slices_that_it_loses_little_by(had_ns: int | None) -> None:
    text, cuts = b"[" + b"1," * 1_000_000 + b"1]", np.empty(100, np.int64)
    seen: list[int] = []

    def work() -> None:
        assert letting_go is not None
        if had_ns is not None:
            take_short_turns(0)
        seen.append(slice_ns(0))
        letting_go.array_cut(text, len(text), 1, 100_000, 10, cuts.ctypes.data, len(cuts))
        seen.append(slice_ns(0))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    before_ns, after_ns = seen
    assert after_ns == (had_ns or min(before_ns, OFFERED_NS))
