"""Large bodies are given back before they are freed, and only if nobody has them any more."""

from __future__ import annotations

import mmap
import sys

import pytest

from container.worker.connection import FORGOTTEN_BYTES, forget_body
from handler.messages import Answer, Request

N_BYTES = 4 * FORGOTTEN_BYTES


def request(n_bytes: int = N_BYTES) -> Request:
    return Request({}, b"1" * n_bytes)


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="counts references as CPython does")
def test_the_content_of_a_body_that_nobody_else_has_is_gone() -> None:
    held = request()
    forget_body(held)
    assert held.body.count(b"\0") >= N_BYTES - 2 * mmap.PAGESIZE
    answer = Answer(200, "text/csv", b"1" * N_BYTES)
    forget_body(answer)
    assert answer.body.count(b"\0") >= N_BYTES - 2 * mmap.PAGESIZE


def test_what_somebody_else_has_stays_as_it_is() -> None:
    held = request()
    body = held.body
    forget_body(held)
    assert body == b"1" * N_BYTES
    del body
    written_down = [held]
    forget_body(held)
    assert written_down[0].body == b"1" * N_BYTES
    written_down.clear()
    view = memoryview(held.body)
    forget_body(held)
    assert bytes(view) == b"1" * N_BYTES


@pytest.mark.parametrize("n_bytes", [0, 1, 5000, FORGOTTEN_BYTES - 1])
def test_a_small_body_is_left_alone(n_bytes: int) -> None:
    held = request(n_bytes)
    forget_body(held)
    assert held.body == b"1" * n_bytes


def test_blocks_beside_it_are_not_touched() -> None:
    several = [b"2" * n_bytes for n_bytes in (10, 3000, 100_000)]
    held = request(FORGOTTEN_BYTES + 1)
    several += [b"2" * n_bytes for n_bytes in (10, 3000, 100_000)]
    forget_body(held)
    assert all(block == b"2" * len(block) for block in several)
