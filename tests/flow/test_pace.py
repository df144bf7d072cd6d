"""Large bodies and answers beside small requests, on real sockets: they take turns, and everybody has one."""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import numpy as np
import pytest
import xgboost

from tests.flow.test_http import Front, Wire
from tests.rig import boosters
from tests.rig.endpoint import Endpoint, needs_classes

pytestmark = needs_classes

N_FEATURES = 6
ROW = b"0.1,0.2,0.3,0.4,0.5,0.6\n"
PAUSE_S = 0.01
N_TRICKLING = 20
BODY_BYTES = 1 << 20  # of those who trickle; nobody waits until it is there
BEGUN_BYTES = 100_000  # enough to be in the line, which is for bodies over 64 KiB


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    models = tmp_path_factory.mktemp("models")
    (models / "us").mkdir()
    (models / "us" / "1.tar.gz").write_bytes(boosters.segment_archive(1))
    scratch = Path(tempfile.mkdtemp(prefix="mt-"))
    with Endpoint(models, scratch) as endpoint:
        yield Front(endpoint, is_hosted=False)
    shutil.rmtree(scratch)


@contextmanager
def again_and_again(work: Callable[[], None]) -> Iterator[None]:
    """On a thread of its own, with a pause between, until the block is left; what it raises is raised then."""
    over = threading.Event()

    def run() -> None:
        while not over.wait(PAUSE_S):
            work()

    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(run)
        try:
            yield
        finally:
            over.set()
        done.result()


@contextmanager
def connections(front: Front, n: int) -> Iterator[list[Wire]]:
    with ExitStack() as wires:
        yield [wires.enter_context(closing(Wire(front))) for _ in range(n)]


@contextmanager
def small_calls(front: Front) -> Iterator[None]:
    """On several connections, so that each event loop of the front end has some."""
    with connections(front, 4) as wires:

        def call() -> None:
            for wire in wires:
                wire.send(front.request(1, ROW))
                assert wire.reply().status == 200

        with again_and_again(call):
            yield


@contextmanager
def trickles(front: Front) -> Iterator[None]:
    """Callers whose large bodies have begun and go on by a byte at a time."""
    with connections(front, N_TRICKLING) as wires:
        for wire in wires:
            wire.send(front.request(1, b"1" * BEGUN_BYTES, f"Content-Length: {BODY_BYTES}"))

        def trickle() -> None:
            for wire in wires:
                wire.send(b"1")

        with again_and_again(trickle):
            yield


def ask_much(front: Front, n_rows: int) -> None:
    """A body of 48 bytes a row, and an answer of some ten."""
    rows = np.round(boosters.rows(n_rows, N_FEATURES), 5)
    body = b"".join(b",".join(b"%.5f" % cell for cell in row) + b"\n" for row in rows)
    wire = Wire(front)
    wire.send(front.request(1, body))
    reply = wire.reply()
    wire.close()
    right = boosters.segment(1).predict(xgboost.DMatrix(rows, nthread=1))
    assert reply.status == 200, reply.body[:200]
    np.testing.assert_array_equal(np.array(reply.body.split(), np.float32), right)


def test_large_bodies_and_answers_are_whole_beside_small_calls(front: Front) -> None:
    with small_calls(front):
        ask_much(front, 100_000)
        ask_much(front, 100_000)


def test_who_trickles_keeps_nobody_elses_large_body(front: Front) -> None:
    with small_calls(front), trickles(front):
        for _ in range(4):  # on either event loop
            ask_much(front, 20_000)
