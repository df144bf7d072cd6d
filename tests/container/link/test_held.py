"""What becomes of a connection whose runtime is dead."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterator

import pytest

from container.link import wire
from container.link.held import ANSWERING, BEGINNING, FREE, IDLE, IN_DOUBT, Board, survives

APOLOGY = wire.failure_reply(503, "gone")
REQUEST = b"I" + struct.pack("!i", 36) + b"0" * 36 + struct.pack("!iii", -1, -1, -1)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """MMS's end, and ours."""
    theirs, ours = socket.socketpair()
    with theirs, ours:
        theirs.setblocking(False)
        yield theirs, ours


@pytest.fixture
def board() -> Iterator[Board]:
    board = Board()
    yield board
    board.close()


def test_a_connection_at_rest_goes_on_and_nobody_is_told_anything(pair: tuple[socket.socket, socket.socket]) -> None:
    theirs, ours = pair
    assert survives(ours, IDLE, APOLOGY)
    with pytest.raises(BlockingIOError):
        theirs.recv(1)


def test_who_waits_is_told_and_the_connection_goes_on(pair: tuple[socket.socket, socket.socket]) -> None:
    theirs, ours = pair
    assert survives(ours, ANSWERING, APOLOGY)
    assert theirs.recv(4096) == APOLOGY


def test_a_request_still_in_the_socket_is_left_for_the_next_runtime(pair: tuple[socket.socket, socket.socket]) -> None:
    theirs, ours = pair
    theirs.send(REQUEST)
    assert survives(ours, BEGINNING, APOLOGY)
    assert ours.recv(4096) == REQUEST
    with pytest.raises(BlockingIOError):
        theirs.recv(1)


def test_a_request_that_was_just_read_is_answered(pair: tuple[socket.socket, socket.socket]) -> None:
    theirs, ours = pair
    assert survives(ours, BEGINNING, APOLOGY)
    assert theirs.recv(4096) == APOLOGY


def test_the_rest_of_a_request_ends_the_connection(pair: tuple[socket.socket, socket.socket]) -> None:
    theirs, ours = pair
    theirs.send(b"1,2,3,4,5,6")
    assert not survives(ours, BEGINNING, APOLOGY)


@pytest.mark.parametrize("state", [FREE, IN_DOUBT])
def test_what_cannot_be_told_ends_the_connection(pair: tuple[socket.socket, socket.socket], state: int) -> None:
    theirs, ours = pair
    assert not survives(ours, state, APOLOGY)
    with pytest.raises(BlockingIOError):
        theirs.recv(1)


def test_an_apology_that_does_not_fit_ends_the_connection(pair: tuple[socket.socket, socket.socket]) -> None:
    _, ours = pair
    ours.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while ours.send(bytes(65536)):
            pass
    assert not survives(ours, ANSWERING, APOLOGY)


def test_who_waits_is_told_once_however_many_runtimes_die(
    pair: tuple[socket.socket, socket.socket], board: Board
) -> None:
    theirs, ours = pair
    board.page[7] = ANSWERING
    assert board.settle(7, ours, APOLOGY)
    assert board.settle(7, ours, APOLOGY)
    assert theirs.recv(4096) == APOLOGY
    with pytest.raises(BlockingIOError):
        theirs.recv(1)


def test_what_ends_stays_as_it_was(pair: tuple[socket.socket, socket.socket], board: Board) -> None:
    _, ours = pair
    board.page[7] = IN_DOUBT
    assert not board.settle(7, ours, APOLOGY)
    assert board.page[7] == IN_DOUBT


def test_a_board_is_seen_from_both_sides() -> None:
    board = Board()
    other = Board(board.fileno())
    other.page[7] = ANSWERING
    assert board.page[7] == ANSWERING
    other.page.close()
    board.close()
