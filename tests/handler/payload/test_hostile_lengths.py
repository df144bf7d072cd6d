"""Bodies made to take long: a body twice as long takes about twice as long, whatever is in it.

Growth is what is looked at, not time: what takes the square of its length takes 256 times as long for sixteen times as much.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

import pytest

from handler.errors import RequestError
from handler.payload.decode import decode

# Sixteen times as long may take this many times as long; 256 would be the square. Below so many seconds nothing is compared.
MAX_GROWTH = 64
FLOOR_S = 0.003

LENGTHS = (4_000, 16_000, 64_000, 256_000, 1_024_000)

HOSTILE: dict[str, Callable[[int], bytes]] = {
    "digits, then a letter": lambda n: b"1" * n + b"x",
    "digits, a point, digits, a letter": lambda n: b"1" * (n // 2) + b"." + b"1" * (n // 2) + b"x",
    "digits": lambda n: b"1" * n,
    "zeros behind a point": lambda n: b"0." + b"0" * n + b"1",
    "digits of an exponent": lambda n: b"1e" + b"1" * n + b"x",
    "signs": lambda n: b"-" * n,
    "points": lambda n: b"." * n,
    "spaces, then a letter": lambda n: b"1" + b" " * n + b"x",
    "nan without end": lambda n: b"nan" * (n // 3),
    "null without end": lambda n: b"null" * (n // 4),
    "infinity without end": lambda n: b"inf" * (n // 3),
    "quotes": lambda n: b'"' * n + b"x",
    "colons": lambda n: b":" * n,
    "comments": lambda n: b"#" * n,
    "qid without end": lambda n: b"1 " + b"qid:1 " * (n // 6),
    "commas": lambda n: b"," * n + b"x",
    "bad cells": lambda n: b"1x," * (n // 3),
    "brackets": lambda n: b"[" * n,
    "numbers with a long one among them": lambda n: b"1," * (n // 4) + b"1" * (n // 2) + b"x",
    "lines": lambda n: b"1,2\n" * (n // 4) + b"x",
    "backslashes": lambda n: b'"' + b"\\" * n,
}
SHAPES = {
    "text/csv": (b"", b"\n"),
    "text/csv; label_size=1": (b"", b""),
    "text/libsvm": (b"1:", b"\n"),
    "application/json": (b"[", b"]"),
    "application/jsonlines": (b"[", b"]\n[1]"),
}


def seconds(content_type: str, body: bytes, enough_s: float) -> float:
    """On this thread's own clock, so that others who use the processor do not count; the shortest of three if it was long."""
    taken: list[float] = []
    while not taken or (len(taken) < 3 and taken[-1] > enough_s):
        started = time.thread_time()
        with contextlib.suppress(RequestError):
            decode(body, content_type, 3)
        taken.append(time.thread_time() - started)
    return min(taken)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("content_type", SHAPES)
def test_a_body_takes_no_longer_than_its_length_allows(content_type: str, kind: str) -> None:
    head, tail = SHAPES[content_type]
    before, last = FLOOR_S, FLOOR_S
    for length in LENGTHS:
        taken = seconds(content_type, head + HOSTILE[kind](length) + tail, MAX_GROWTH * before)
        assert taken < MAX_GROWTH * before, f"{length} bytes took {taken:.3f} s, a sixteenth of them {before:.3f} s"
        before, last = last, max(taken, FLOOR_S)
