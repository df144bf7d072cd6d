"""What the runtime takes of a warm request, and libxgboost and the walker for a body of rows; no MMS, no network.

    python -m benchmarks.inside [--rounds 7] [--seconds 0.5]

A request is a frame as MMS writes it, sent over a socket pair to the runtime's own connection, and its reply read again, all
on one thread. Rows are scored by a forest and by the booster it was packed from, which must agree to the bit.
"""

from __future__ import annotations

import argparse
import socket
import struct
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.rig import record, segments
from benchmarks.rig.assembled import assembled
from container.worker.connection import Connection, Progress
from handler.dispatch import Dispatcher
from handler.forest import walker
from handler.forest.packed import document_of
from handler.loading.loader import model_of
from handler.predictor import Scorer
from handler.telemetry.recorder import LiveRecorder

N_ROWS = (1, 20, 100, 1_000, 10_000)
BODY = b"0.1,0.2,0.3,0.4,0.5,0.6"
REQUEST_ID = "0d2f4a7c-5a34-4c9b-b8e0-7f1c2f6a9d11"
REPLY_BYTES = 1 << 16
CALLS_PER_LOOK = 10


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=7, help="each figure is the median of so many")
    parser.add_argument("--seconds", type=float, default=0.5, help="how long one round takes")
    chosen = parser.parse_args()
    if not walker.is_available():
        print("there was no C compiler at setup: nothing is walked here", file=sys.stderr)
        return 2
    made = segments.make(4)
    with tempfile.TemporaryDirectory() as directory:
        figures = _measure(made, Path(directory), chosen.rounds, chosen.seconds)
    print(f"a warm request takes {figures['request_us']:.1f} us, the four system calls of both ends included")
    for n_rows, walked, native in figures["rows"]:
        print(f"{n_rows:>6} rows {walked:>9.1f} us walked {native:>9.1f} us by libxgboost")
    record.save("inside", figures)
    return 0


def _measure(made: segments.Segments, directory: Path, rounds: int, seconds: float) -> dict[str, Any]:
    recorder = LiveRecorder()
    with assembled(made, directory, recorder, n_threads=1) as models:
        target = made.targets[0]
        prepared = models.loader.prepare(target)
        forest = prepared.documents[0]
        forest_model = model_of(forest, prepared.folds[0], models.parts.boosters, models.parts.crew)
        as_booster = replace(prepared.folds[0], is_forest=False)
        native = model_of(document_of(forest), as_booster, models.parts.boosters)
        with models.cache.borrow(target, 60.0):
            pass
        exchange = _Exchange(Dispatcher(models.cache, recorder, wait_s=60.0), target, directory)
        request_us = median(_per_call_us(exchange.once, seconds) for _ in range(rounds))
        exchange.close()
        rows = [_compared(forest_model, native, n_rows, rounds, seconds) for n_rows in N_ROWS]
        forest_model.close()
        native.close()
    return {"request_us": request_us, "rows": rows}


def _compared(walked: Scorer, native: Scorer, n_rows: int, rounds: int, seconds: float) -> tuple[int, float, float]:
    """Microseconds of either for a body of so many rows, in turn."""
    rows = segments.rows(n_rows)
    if walked.predict(rows).tobytes() != native.predict(rows).tobytes():
        raise SystemExit(f"the walker and libxgboost disagree on {n_rows} rows")
    pairs = [
        (_per_call_us(lambda: walked.predict(rows), seconds), _per_call_us(lambda: native.predict(rows), seconds))
        for _ in range(rounds)
    ]
    return n_rows, median(pair[0] for pair in pairs), median(pair[1] for pair in pairs)


class _Exchange:
    """Both ends of a connection, and what answers it."""

    def __init__(self, dispatcher: Dispatcher, target: str, directory: Path) -> None:
        self._mms, ours = socket.socketpair()
        self._answer = dispatcher.answer_at_once
        self._connection = Connection(
            ours, answer=dispatcher.answer, on_load=lambda *_: (200, ""), io_dir=directory, max_frame_bytes=1 << 20
        )
        self._frame = frame(target)
        self.once()
        if b"OK" not in self._reply:  # the reason that goes with status 200
            raise SystemExit(f"no score came back: {self._reply!r}")

    def once(self) -> None:
        self._mms.send(self._frame)
        if self._connection.try_at_once(self._answer) is not Progress.DONE:
            raise SystemExit("a warm request was not answered at once")
        self._reply = self._mms.recv(REPLY_BYTES)

    def close(self) -> None:
        self._mms.close()
        self._connection.serve()  # sees the end, and closes its own


def frame(target: str, body: bytes = BODY, content_type: str = "text/csv", accept: str = "*/*") -> bytes:
    """A request as MMS passes it on, see container/link/wire.py."""
    headers = {
        "Host": "127.0.0.1:8080",
        "User-Agent": "python",
        "Accept": accept,
        "Content-Type": content_type,
        "Content-Length": str(len(body)),
        "X-Amzn-SageMaker-Target-Model": target,
    }
    end = struct.pack("!i", -1)
    fields = b"".join(_text(name) + _text(value) for name, value in headers.items())
    value = struct.pack("!i", len(body)) + body
    return b"I" + _text(REQUEST_ID) + fields + end + _text("body") + _text(content_type) + value + end + end


def _text(value: str) -> bytes:
    return struct.pack("!i", len(value)) + value.encode()


def _per_call_us(call: Callable[[], object], seconds: float) -> float:
    n_calls, started = 0, time.perf_counter()
    while (passed := time.perf_counter() - started) < seconds:
        for _ in range(CALLS_PER_LOOK):
            call()
        n_calls += CALLS_PER_LOOK
    return passed / n_calls * 1e6


if __name__ == "__main__":
    sys.exit(main())
