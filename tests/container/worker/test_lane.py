"""The runtime's side of the lane over real sockets: in order, in short turns, never waiting for a reader."""

from __future__ import annotations

import select
import socket
from collections.abc import Callable, Iterator

import pytest

from container.link.lane import NOT_AT_ONCE, greeting, reply
from container.worker.lane import FRAMES_IN_A_TURN, Lane, Lanes
from handler.messages import Answer, Request
from tests.container.link.test_lane import frame


def answer(request: Request) -> Answer | None:
    return Answer(200, "text/csv", request.body) if request.body else None


@pytest.fixture
def pair() -> Iterator[tuple[Lane, socket.socket]]:
    ours, theirs = socket.socketpair()
    theirs.settimeout(5)
    lane = Lane(ours, answer)
    yield lane, theirs
    lane.close()
    theirs.close()


def replies(bodies: list[bytes]) -> bytes:
    return b"".join(reply(answer(Request({}, body))) for body in bodies)


def test_all_that_has_come_is_answered_in_one_send_and_in_order(pair: tuple[Lane, socket.socket]) -> None:
    lane, theirs = pair
    bodies = [b"1", b"", b"22", b"333"]
    theirs.sendall(b"".join(map(frame, bodies)))
    assert lane.turn()
    assert theirs.recv(1 << 16) == replies(bodies)
    assert NOT_AT_ONCE in replies(bodies)
    assert (lane.n_served, lane.is_busy) == (4, False)


def test_frames_may_come_in_any_pieces(pair: tuple[Lane, socket.socket]) -> None:
    lane, theirs = pair
    data = frame(b"1") + frame(b"22")
    for at in range(len(data)):
        theirs.sendall(data[at : at + 1])
        assert lane.turn()
    assert theirs.recv(1 << 16) == replies([b"1", b"22"])


def test_a_turn_is_short_however_much_has_come(pair: tuple[Lane, socket.socket]) -> None:
    lane, theirs = pair
    bodies = [b"%d" % number for number in range(3 * FRAMES_IN_A_TURN)]
    theirs.sendall(b"".join(map(frame, bodies)))
    turns = []
    while not turns or lane.has_more:
        assert lane.turn()
        turns.append(lane.n_served)
    assert turns == [FRAMES_IN_A_TURN, 2 * FRAMES_IN_A_TURN, 3 * FRAMES_IN_A_TURN]
    assert theirs.recv(1 << 20) == replies(bodies)


def test_who_does_not_read_is_not_waited_for_and_not_read_either(pair: tuple[Lane, socket.socket]) -> None:
    lane, theirs = pair
    lane._stream.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    bodies = [b"x" * 5000 for _ in range(50)]
    theirs.sendall(b"".join(map(frame, bodies[:10])))
    while not lane.is_stuck:
        assert lane.turn()  # it comes back, each time
    served = lane.n_served
    theirs.sendall(frame(b"y"))
    for _ in range(10):
        assert lane.turn()
    assert lane.n_served == served
    assert lane.is_busy
    got = b""
    theirs.setblocking(False)
    wanted = replies([*bodies[:10], b"y"])
    while len(got) < len(wanted):
        if select.select([theirs], [], [], 0)[0]:
            got += theirs.recv(1 << 16)
        assert lane.turn()
    assert got == wanted


def test_a_lane_ends_with_its_other_side(pair: tuple[Lane, socket.socket]) -> None:
    lane, theirs = pair
    theirs.sendall(frame(b"1"))
    theirs.shutdown(socket.SHUT_WR)
    assert lane.turn()
    assert not lane.turn()


class Loop:
    """What the runtime's main thread does with lanes."""

    def __init__(self, tmp: str) -> None:
        self.epoll = select.epoll()
        self.handlers: dict[int, Callable[[], bool]] = {}
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(tmp)
        listener.listen()
        self.lanes = Lanes(
            listener, answer, watch=self.watch, forget=self.forget, epoll=self.epoll, max_body_bytes=7000
        )

    def watch(self, descriptor: int, handler: Callable[[], bool]) -> None:
        self.handlers[descriptor] = handler
        self.epoll.register(descriptor, select.EPOLLIN)

    def forget(self, descriptor: int) -> None:
        del self.handlers[descriptor]
        self.epoll.unregister(descriptor)

    def run(self) -> None:
        """Until nothing happens any more."""
        while events := self.epoll.poll(0.02):
            for descriptor, _ in events:
                if descriptor in self.handlers:
                    assert self.handlers[descriptor]()
            self.lanes.go_on()


@pytest.fixture
def loop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loop]:
    one = Loop(str(tmp_path_factory.mktemp("l") / "s"))
    yield one
    one.lanes.close()
    one.epoll.close()


def connect(loop: Loop) -> socket.socket:
    stream = socket.socket(socket.AF_UNIX)
    stream.settimeout(5)
    stream.connect(loop.lanes._listener.getsockname())
    loop.run()
    assert stream.recv(8) == greeting(7000)
    return stream


def test_who_connects_is_greeted_and_served(loop: Loop) -> None:
    streams = [connect(loop) for _ in range(3)]
    for stream in streams:
        stream.sendall(frame(b"1") + frame(b""))
    loop.run()
    assert [stream.recv(1 << 16) for stream in streams] == [replies([b"1", b""])] * 3
    assert (loop.lanes.n_served, loop.lanes.is_busy) == (6, False)
    for stream in streams:
        stream.close()
    loop.run()
    assert loop.lanes.n_served == 6  # what has been served stays so when a lane is gone


def test_a_broken_frame_ends_its_lane_alone(loop: Loop) -> None:
    broken, sound = connect(loop), connect(loop)
    broken.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nUser-Agent: somebody who is lost\r\n\r\n")
    sound.sendall(frame(b"1"))
    loop.run()
    assert broken.recv(1) == b""
    assert sound.recv(1 << 16) == replies([b"1"])


def test_a_stuck_lane_is_watched_for_room_and_the_others_go_on(loop: Loop) -> None:
    stuck, sound = connect(loop), connect(loop)
    stuck.setblocking(False)
    while not any(lane.is_stuck for lane in loop.lanes._lanes):
        stuck.send(frame(b"x" * 6000))
        loop.run()
    sound.sendall(frame(b"1"))
    loop.run()
    assert sound.recv(1 << 16) == replies([b"1"])
    while any(lane.is_stuck for lane in loop.lanes._lanes):
        if select.select([stuck], [], [], 0)[0]:
            stuck.recv(1 << 20)
        loop.run()
