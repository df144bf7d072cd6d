"""SIGINT and SIGTERM are heard whatever the other threads are doing, and what was heard before is heard again afterwards."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

from container.operate.stopping import hearing, stop_event
from tests.rig.endpoint import until

PATIENCE_S = 30.0
N_PROCESSES = 40
# The main thread waits while another starts a process. Its parent asks for the end as soon as that one is to be seen.
PROGRAM = """
import subprocess, sys, threading
from container.operate.stopping import stop_event
with stop_event() as stop:
    started = []
    def start():
        started.append(subprocess.Popen([sys.executable, "-I", "-S", "-c", "input()"], stdin=subprocess.PIPE))
    thread = threading.Thread(target=start)
    print("ready", flush=True)
    sys.stdin.readline()
    thread.start()
    stop.wait()
    thread.join()
    started[0].communicate(b"end")
print("stopped", flush=True)
"""


def test_both_set_the_event_and_nothing_is_raised() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        with stop_event() as stop:
            assert not stop.is_set()
            os.kill(os.getpid(), number)
            assert stop.wait(PATIENCE_S)


def test_blocks_may_stand_in_one_another_and_leave_no_thread_and_no_descriptor() -> None:
    before = (signal.getsignal(signal.SIGINT), threading.active_count(), len(os.listdir("/proc/self/fd")))
    with stop_event() as outer:
        with stop_event() as inner:
            os.kill(os.getpid(), signal.SIGTERM)
            assert inner.wait(PATIENCE_S)
            assert not outer.is_set()
        os.kill(os.getpid(), signal.SIGTERM)
        assert outer.wait(PATIENCE_S)
    assert (signal.getsignal(signal.SIGINT), threading.active_count(), len(os.listdir("/proc/self/fd"))) == before


def test_only_what_was_asked_for_is_heard() -> None:
    heard: list[int] = []
    there = threading.Event()

    def hear(number: int) -> None:
        heard.append(number)
        there.set()

    with stop_event(), hearing(hear, (signal.SIGHUP,)):
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGHUP)
        assert there.wait(PATIENCE_S)
    assert heard == [signal.SIGHUP]


# One signal a wait, each a little later in it than the one before. An event set by a handler waits for itself before long.
SIGNALS_WHILE_WAITING = """
import signal, threading
from container.operate.stopping import hearing
stop = threading.Event()
with hearing(lambda _: stop.set(), (signal.SIGALRM,)):
    for number in range(20_000):
        signal.setitimer(signal.ITIMER_REAL, 0.000001 + number % 100 * 0.000001)
        stop.wait(0.00002)
        stop.clear()
    signal.setitimer(signal.ITIMER_REAL, 0)
"""


def test_it_may_come_at_any_moment_of_a_wait() -> None:
    subprocess.run([sys.executable, "-c", SIGNALS_WHILE_WAITING], check=True, timeout=2 * PATIENCE_S)


def test_it_is_heard_while_another_thread_starts_a_process() -> None:
    """With an event set by a handler some of these wait for ever: the handler runs when the next signal comes."""
    for _ in range(N_PROCESSES):
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert process.stdin is not None
        assert process.stdout is not None
        with process:
            process.stdout.readline()
            process.stdin.write("\n")
            process.stdin.flush()
            until(lambda process=process: _has_child(process.pid), PATIENCE_S, pause_s=0)
            process.send_signal(signal.SIGINT)
            assert process.stdout.readline() == "stopped\n"


def _has_child(pid: int) -> bool:
    """Whichever of its threads has started it."""
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # the thread has ended since
            if path.read_text():
                return True
    return False
