"""Ports for containers, each given out once."""

from __future__ import annotations

import socket

from container.platform.ports import FIRST, LAST, Ports


def test_no_port_is_given_out_twice_nor_one_that_somebody_listens_on() -> None:
    ports = Ports()
    first = ports.take()
    beside = first + 1 if first + 1 < LAST else FIRST
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", beside))
        taken.listen()
        later = [ports.take() for _ in range(40)]
    assert len({first, beside, *later}) == 42


def test_ports_that_are_spoken_for_are_left_out() -> None:
    spoken_for = set(range(FIRST, LAST)) - {FIRST + 7, FIRST + 9}
    ports = Ports(besides=spoken_for)
    assert {ports.take(), ports.take()} == {FIRST + 7, FIRST + 9}


def test_two_platforms_that_begin_at_the_same_moment_seldom_meet() -> None:
    assert len({Ports().take() for _ in range(8)}) > 4
