"""The door's wishes, over a real socket."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from container.launch.binder import Binder, DoorLost, Wish

BIND, RELEASE = Wish.BIND, Wish.RELEASE


@pytest.fixture
def binder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Binder]:
    one = Binder(tmp_path_factory.mktemp("b") / "binder.sock")
    yield one
    one.close()


@pytest.fixture
def door(binder: Binder) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as one:
        one.connect(binder.listener.getsockname())
        binder.accept()
        yield one


def test_wishes_come_in_order_and_each_bound_is_told(binder: Binder, door: socket.socket) -> None:
    door.sendall(b"bind 9000\nrelease 8999\nbind 9001\n")
    assert binder.wishes() == [(BIND, 9000), (RELEASE, 8999), (BIND, 9001)]
    binder.bound(9000)
    assert door.recv(100) == b"bound 9000\n"
    assert binder.wishes() == []  # and does not wait


def test_a_wish_may_come_in_pieces(binder: Binder, door: socket.socket) -> None:
    found = []
    for byte in b"bind 9000\nrelease 9000\n":
        door.sendall(bytes([byte]))
        found += binder.wishes()
    assert found == [(BIND, 9000), (RELEASE, 9000)]


def test_the_end_of_the_jvm_is_the_end_of_wishes(binder: Binder, door: socket.socket) -> None:
    door.close()
    with pytest.raises(DoorLost):
        binder.wishes()
    binder.bound(9000)  # to nobody, without harm


@pytest.mark.parametrize(
    "line", [b"", b"bind", b"bind x", b"bind -1", b"bind 12345678901", b"BIND 1", b"bind 1 ", b"\xff\0"]
)
def test_a_line_that_makes_no_sense_ends_it(binder: Binder, door: socket.socket, line: bytes) -> None:
    door.sendall(line + b"\n")
    with pytest.raises(DoorLost):
        binder.wishes()


def test_nothing_is_left_when_it_closes(tmp_path: Path) -> None:
    path = tmp_path / "b"
    Binder(path).close()
    assert not path.exists()
