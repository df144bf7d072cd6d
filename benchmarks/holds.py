"""For how long at a time a body keeps everybody else from the interpreter: `python -m benchmarks.holds [NAME ...]`.

In the runtime alone, over a socket pair as in `benchmarks.inside`: one thread reads, scores and answers large bodies, one
after the other, and the main thread wants to run every 0.3 ms. What is printed is for how long it could not, in milliseconds
of the other thread's own processor time, so that others who use this machine do not count; and where the other thread was.

The main thread is given a real-time priority where that is allowed (root); else it is late on a loud machine.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import io
import multiprocessing
import os
import socket
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.inside import frame
from benchmarks.rig import record, segments
from benchmarks.rig.assembled import assembled
from benchmarks.rig.attacks import ROW
from benchmarks.rig.verdicts import Verdicts
from container.worker.connection import Connection, Progress
from container.worker.main import SWITCH_INTERVAL_S
from handler.bounds import Bounds
from handler.dispatch import Dispatcher
from handler.scoring import PlainScoring
from handler.telemetry.recorder import LiveRecorder

MAX_BODY_BYTES = 25 << 20
TICK_S = 0.0003
LATE_MS = 0.5
SHOWN = 3
# In a hundredth of all moments. The longest waits are for 24 MB that are freed.
TARGET_MS = 2.0

_CELLS = ROW.strip()
BODIES: dict[str, tuple[str, bytes, str]] = {
    "csv": ("text/csv", ROW * 1_000_000, "text/csv"),
    "csv-to-json": ("text/csv", ROW * 500_000, "application/json"),
    "csv-wide-line": ("text/csv", ROW + b",".join([b"11"] * 8_000_000), "text/csv"),
    "csv-rare": ("text/csv", ROW.replace(b",", b", ") * 200_000, "text/csv"),
    "libsvm": ("text/libsvm", b"0 0:0.1 1:0.2 2:0.3 3:0.4 4:0.5 5:0.6\n" * 200_000, "text/csv"),
    "libsvm-empty": ("text/libsvm", b"1\n" * 1_000_000, "text/csv"),
    "json": ("application/json", b'{"instances":[' + b",".join([b"[%b]" % _CELLS] * 250_000) + b"]}", "text/csv"),
    "json-wide": ("application/json", b"[[" + b",".join([b"1"] * 12_000_000) + b"]]", "text/csv"),
    "jsonlines": ("application/jsonlines", b"[%b]\n" % _CELLS * 250_000, "text/csv"),
    "npy": ("application/x-npy", b"", "text/csv"),
    "garbage": ("text/csv", np.random.default_rng(1).bytes(1_000_000), "text/csv"),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BODIES)}; none is all")
    parser.add_argument("--seconds", type=float, default=3.0, help="for each")
    chosen = parser.parse_args()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    made = segments.make(1)
    verdicts, figures = Verdicts(), {}
    with tempfile.TemporaryDirectory() as directory:
        recorder = LiveRecorder()
        with assembled(made, Path(directory), recorder, n_threads=1) as models:
            bounds = Bounds(max_answer_bytes=MAX_BODY_BYTES, n_places=4, n_turns=2, room=models.cache)
            dispatcher = Dispatcher(
                models.cache,
                recorder,
                wait_s=60.0,
                scoring=PlainScoring(bounds=bounds),
                max_answer_bytes=MAX_BODY_BYTES,
            )
            with models.cache.borrow(made.targets[0], 60.0):
                pass
            gc.freeze()  # as the runtime does
            for name in chosen.names or BODIES:
                figures[name] = _held(dispatcher, made.targets[0], name, Path(directory), chosen.seconds)
                p99_ms, longest_ms = figures[name]["p99_ms"], figures[name]["longest_ms"]
                figure = f"p99 {p99_ms:.2f} ms, longest {longest_ms:.1f}"
                verdicts.say(name, figure, f"p99 at most {TARGET_MS:g}", p99_ms <= TARGET_MS)
                for where, late in figures[name]["where"]:
                    print(f"               {late:8.1f} ms in all at {where}")
    record.save("holds", figures)
    return verdicts.exit_status


def _held(dispatcher: Dispatcher, target: str, name: str, directory: Path, seconds: float) -> dict[str, Any]:
    content_type, body, accept = BODIES[name]
    data = frame(target, body or _npy(), content_type, accept)
    with _far_end(data) as ours:
        connection = Connection(
            ours,
            answer=dispatcher.answer,
            on_load=lambda *_: (200, ""),
            io_dir=directory,
            max_frame_bytes=2 * MAX_BODY_BYTES,
        )
        over = threading.Event()

        def work() -> None:
            while not over.is_set():
                if connection.try_at_once(dispatcher.answer_at_once) is Progress.UNFINISHED:
                    connection.finish()

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        with _real_time():
            waits, where = _watch(thread, seconds)
        over.set()
        connection.close()
        thread.join(30)
    most = sorted(where.items(), key=lambda one: -one[1])[:SHOWN]
    return {"p99_ms": _p99_ms(np.array(waits)), "longest_ms": max(waits), "where": most, "waits": len(waits)}


def _p99_ms(waits: NDArray[np.float64]) -> float:
    """What one waits in the worst hundredth of moments: a long wait is met by more of those who come than a short one."""
    whole = float((waits + 1000 * TICK_S).sum())
    low, high = 0.0, float(waits.max())
    while high - low > 0.001:
        middle = (low + high) / 2
        share = float(np.maximum(waits - middle, 0).sum()) / whole
        low, high = (middle, high) if share > 0.01 else (low, middle)
    return high


def _watch(thread: threading.Thread, seconds: float) -> tuple[list[float], dict[str, float]]:
    assert thread.ident is not None
    clock = time.pthread_getcpuclockid(thread.ident)
    waits: list[float] = []
    where: dict[str, float] = defaultdict(float)
    ends = time.perf_counter() + seconds
    while (began := time.perf_counter()) < ends:
        used = time.clock_gettime(clock)
        time.sleep(TICK_S)
        late_ms = 1000 * min(time.perf_counter() - began - TICK_S, time.clock_gettime(clock) - used)
        waits.append(max(0.0, late_ms))
        if late_ms > LATE_MS and (frame := sys._current_frames().get(thread.ident)) is not None:
            where[f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno} {frame.f_code.co_name}"] += late_ms
    return waits, where


@contextmanager
def _real_time() -> Iterator[None]:
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except PermissionError:
        yield
        return
    try:
        yield
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


@contextmanager
def _far_end(data: bytes) -> Iterator[socket.socket]:
    """A process that sends these bytes over and over, and reads what comes back."""
    theirs, ours = socket.socketpair()
    process = multiprocessing.get_context("fork").Process(target=_send, args=[theirs, ours, data], daemon=True)
    process.start()
    theirs.close()
    try:
        yield ours
    finally:
        process.kill()
        process.join()


def _send(theirs: socket.socket, ours: socket.socket, data: bytes) -> None:
    ours.close()
    with contextlib.suppress(OSError):
        while True:
            theirs.sendall(data)
            while True:
                last = theirs.recv(1 << 20)
                if not last:
                    return
                if last.endswith(b"\xff\xff\xff\xff"):  # the end mark
                    break


def _npy() -> bytes:
    file = io.BytesIO()
    np.save(file, np.zeros((4_000_000, 6), "i1"))
    return file.getvalue()


if __name__ == "__main__":
    sys.exit(main())
