"""The kernel's word that memory runs short, and models that leave for somebody else's hunger."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from container.limits.memory import Limit
from container.limits.pressure import Pressure
from tests.rig import control_group
from tests.rig.control_group import ControlGroup

MIB = 1 << 20
needs_groups = pytest.mark.skipif(control_group.missing() is not None, reason=str(control_group.missing()))

# In a group of 256 MiB: a cache of blocks of 1 MiB, held at 128 MiB by calls for ever other ones, with the guard; then a
# child that takes 120 MiB at 200 MiB/s and keeps them. Prints what the cache has before and after.
RUNTIME = """
import ctypes, subprocess, sys, time
from container.worker.guard import MemoryGuard
from container.limits.malloc import Trimmer
from container.limits.memory import container_limit
from handler.cache.model_cache import ModelCache
from handler.telemetry.recorder import LiveRecorder
from tests.rig.fakes import InlineExecutor

MIB = 1 << 20
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes = [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]

class Block:
    version, n_bytes, downloaded_bytes, download_us, examine_us, checked_s_ago = "v", MIB, 1, 1, 1, 0.0
    def load(self):
        self.address = libc.malloc(MIB)
        ctypes.memset(self.address, 1, MIB)
        return self
    def close(self):
        libc.free(self.address)

trimmer = Trimmer()
recorder = LiveRecorder()
cache = ModelCache(budget_bytes=128 * MIB, prepare=lambda _: Block(), executor=InlineExecutor(), max_waiting=4,
                   recorder=recorder, on_freed=trimmer.freed)
limit = container_limit()
assert limit.n_bytes == 256 * MIB, limit
guard = MemoryGuard(cache, limit, trim=trimmer.trim_now, recorder=recorder)
guard.start()
number = 0
def call(n_calls):
    global number
    for _ in range(n_calls):
        number += 1
        with cache.borrow(str(number), 1.0):
            pass
call(150)
print(len(cache), flush=True)
grower = subprocess.Popen([sys.executable, "-c", '''
import time
blocks = []
for _ in range(120):
    blocks.append(bytearray(b"x") * (1 << 20))
    time.sleep(0.005)
print("grown", flush=True)
time.sleep(1)
'''], stdout=subprocess.PIPE)
while grower.poll() is None:
    call(1)
    time.sleep(0.002)
print(len(cache), grower.returncode, flush=True)
deadline = time.monotonic() + 5
while cache.budget_bytes < 128 * MIB and time.monotonic() < deadline:
    time.sleep(0.05)
call(150)
print(len(cache), flush=True)
guard.close()
trimmer.close()
"""


@needs_groups
def test_a_neighbour_that_grows_by_200_mib_a_second_gets_its_memory_and_nobody_is_killed() -> None:
    with ControlGroup(256 * MIB) as group:
        process = subprocess.run(
            group.command([sys.executable, "-c", RUNTIME]), capture_output=True, text=True, timeout=60, check=False
        )
        kills, most = group.oom_kills, group.most_bytes
    assert process.returncode == 0, process.stderr
    before, after_and_status, again = process.stdout.splitlines()
    after, status = map(int, after_and_status.split())
    assert int(before) == 128
    assert status == 0
    assert 16 <= after < 100
    assert int(again) == 128
    assert kills == 0
    assert most <= 256 * MIB


# Version 1 speaks up when little can be taken back, version 2 when tasks stand still: a process that only grows is killed
# before it has waited for anything, one that needs the same pages of a file again and again waits for the disk.
HUNGRY = {
    "cgroup v1": "blocks = []\nwhile True: blocks.append(bytearray(b'x') * (1 << 20))",
    "cgroup v2": """
import os, sys
held = bytearray(b"x") * (40 << 20)
with open(sys.argv[1], "w+b") as file:
    for _ in range(96):
        file.write(os.urandom(1 << 20))
    os.fsync(file.fileno())
    while True:
        file.seek(0)
        while file.read(1 << 20):
            pass
""",
}


@needs_groups
def test_the_kernel_says_when_a_group_is_short_of_memory(tmp_path: Path) -> None:
    with ControlGroup(64 * MIB) as group:
        version = "cgroup v2" if (group.folder / "memory.max").exists() else "cgroup v1"
        if version == "cgroup v2" and subprocess.check_output(["stat", "-f", "-c", "%T", tmp_path]).strip() == b"tmpfs":
            pytest.skip("needs a temp directory whose pages can be dropped")
        pressure = Pressure(Limit(64 * MIB, version, group.folder))
        assert pressure.source is not None
        assert not pressure.wait(0.05)
        command = [sys.executable, "-c", HUNGRY[version], str(tmp_path / "file")]
        with subprocess.Popen(group.command(command)) as process:
            has_said = pressure.wait(20)
            if version == "cgroup v2":
                process.kill()
            assert process.wait(20) != 0  # on version 1 it went on until it was killed
        assert has_said
        pressure.close()


def test_where_the_kernel_says_nothing_the_clock_does(tmp_path: Path) -> None:
    pressure = Pressure(Limit(64 * MIB, "cgroup v2", tmp_path))
    assert pressure.source is None
    began = time.monotonic()
    assert not pressure.wait(0.02)
    assert time.monotonic() - began >= 0.015
    pressure.close()


def test_who_waits_can_be_woken(tmp_path: Path) -> None:
    pressure = Pressure(Limit(64 * MIB, "cgroup v1", tmp_path))
    waiting = threading.Thread(target=pressure.wait, args=[60.0])
    waiting.start()
    pressure.wake()
    waiting.join(10)
    assert not waiting.is_alive()
    pressure.close()
