"""The allocator belongs to the whole process, so each test has one of its own."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import ctypes, threading
from pathlib import Path
from container.limits import libc
if {is_shared}:
    libc.share_heap()
malloc = ctypes.CDLL(None).malloc
malloc.restype = ctypes.c_size_t
found = []
thread = threading.Thread(target=lambda: found.append(malloc(4000)))
thread.start()
thread.join()
(heap,) = [line.split()[0] for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith("[heap]")]
start, end = (int(border, 16) for border in heap.split("-"))
print(start <= found[0] < end)
"""


def test_threads_share_a_heap_when_they_are_told_to() -> None:
    for is_shared in (True, False):
        script = SCRIPT.format(is_shared=is_shared)
        run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        assert run.stdout == f"{is_shared}\n"
