"""What a tree of processes takes is added up, and is theirs: from a /proc that says what it is told, and the real one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from container.platform.usage import Machine, Use

TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


class Proc:
    """A /proc, and the machine's uptime."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.now_s = 100.0
        self.machine = Machine(root, lambda: self.now_s)
        (root / "meminfo").write_text("no process")

    def process(self, pid: int, parent: int, cpu_s: float, *, began_s: float = 90.0, alone: int = 1) -> None:
        folder = self.root / str(pid)
        folder.mkdir(exist_ok=True)
        ticks = round(cpu_s * TICKS)
        before = f"{pid} (a (b) c) S {parent} 0 0 0 0 0 0 0 0 0"
        folder.joinpath("stat").write_text(f"{before} {ticks} 0 0 0 20 0 1 0 {round(began_s * TICKS)} 0 0")
        folder.joinpath("statm").write_text(f"100 {alone + 30} 30 1 0 1 0")

    def use(self, *pids: int) -> dict[int, Use]:
        return self.machine.use(pids)


@pytest.fixture
def proc(tmp_path: Path) -> Proc:
    return Proc(tmp_path)


def test_a_tree_is_all_that_a_process_started(proc: Proc) -> None:
    proc.process(10, 1, 4.0, alone=5)
    proc.process(11, 10, 1.0, alone=2)
    proc.process(12, 11, 1.0)
    proc.process(20, 1, 50.0)
    assert proc.use(10, 99) == {10: Use(0.6, 8 * PAGE)}  # since it began ten seconds ago; 99 is not there


def test_later_it_is_what_was_taken_since(proc: Proc) -> None:
    proc.process(10, 1, 4.0)
    proc.use(10)
    proc.now_s = 100.5
    proc.process(10, 1, 4.5)
    assert proc.use(10)[10].cores == 0.4  # too soon to look again
    proc.now_s = 104.0
    proc.process(10, 1, 10.0)
    assert proc.use(10)[10].cores == 1.5
    proc.now_s = 106.0
    proc.process(10, 1, 9.0)  # a child ended, and its seconds with it
    assert proc.use(10)[10].cores == 0.0


def test_a_folder_is_looked_at_now_and_then(proc: Proc, tmp_path: Path) -> None:
    folder = tmp_path / "disk"
    folder.mkdir()
    folder.joinpath("a").write_bytes(b"1" * 1000)
    assert proc.machine.folder_bytes(folder) == 1000
    folder.joinpath("b").write_bytes(b"1" * 500)
    assert proc.machine.folder_bytes(folder) == 1000
    proc.now_s += 10
    assert proc.machine.folder_bytes(folder) == 1500
    assert proc.machine.folder_bytes(tmp_path / "nothing") == 0


def test_of_a_real_process_it_is_about_what_the_kernel_says() -> None:
    burns = "x = bytearray(64 << 20)\nimport sys, time\nt = time.process_time()\nwhile time.process_time() - t < 0.5: pass\n"
    with subprocess.Popen(
        [sys.executable, "-S", "-c", burns + "print(1, flush=True); sys.stdin.read()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        use = Machine().use([process.pid])[process.pid]
        assert use.cores > 0
        assert 64 << 20 < use.memory_bytes < 256 << 20
        process.communicate()
    assert Machine().use([process.pid]) == {}
