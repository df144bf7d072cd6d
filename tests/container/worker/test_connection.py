"""One connection over a real socket pair: what it answers, and what ends it."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from container.link import wire
from container.link.spool import LARGE_BYTES, Spool
from container.worker.connection import LARGE_RECEIVE_BYTES, RECEIVE_BYTES, Connection, Progress
from handler.messages import Answer, Request

FRAMES = Path(__file__).parents[2] / "frames"
PREDICT = (FRAMES / "predict-invocations.bin").read_bytes()
LOAD = (FRAMES / "load.bin").read_bytes()


def integer(value: int) -> bytes:
    return struct.pack("!i", value)


def blob(data: bytes) -> bytes:
    return integer(len(data)) + data


class Peer:
    """MMS's side of a connection that is served on a thread."""

    def __init__(self, io_dir: Path) -> None:
        self.requests: list[Request] = []
        self.socket, theirs = socket.socketpair()
        self.socket.settimeout(10)
        self.connection = Connection(
            theirs,
            answer=self._answer,
            on_load=lambda _, load: (200, f"{load.model_name} is ready"),
            io_dir=io_dir,
            max_frame_bytes=8 << 20,
        )
        self.thread = threading.Thread(target=self.connection.serve)
        self.thread.start()

    def _answer(self, request: Request) -> Answer:
        self.requests.append(request)
        return Answer(200, "text/plain", b"%d bytes" % len(request.body), (("x-a", "b"),))

    def call(self, frame: bytes) -> bytes:
        self.socket.sendall(frame)
        return self.reply()

    def reply(self) -> bytes:
        data = b""
        while not data.endswith(integer(-1)):
            got = self.socket.recv(65536)
            assert got, "the connection ended"
            data += got
        return data

    def is_ended(self) -> bool:
        return self.socket.recv(1) == b""

    def close(self) -> None:
        self.socket.close()
        self.thread.join(10)
        assert not self.thread.is_alive()


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[Peer]:
    one = Peer(tmp_path)
    yield one
    one.close()


def test_a_request_gets_its_answer_under_its_own_id(peer: Peer) -> None:
    reply = peer.call(PREDICT)
    (request,) = peer.requests
    assert request.body == b"1,2,3"
    assert request.headers["x-amzn-sagemaker-target-model"] == "us/Houston_TX.tar.gz"
    assert PREDICT[5:41] in reply  # the request's id, 36 characters
    assert b"5 bytes" in reply
    assert blob(b"x-a") + blob(b"b") in reply


def test_of_several_inputs_named_body_the_last_is_the_body(peer: Peer) -> None:
    peer.call((FRAMES / "predict-query.bin").read_bytes())
    assert peer.requests[0].body == b'{"instances":[[1,2]]}'


def test_a_form_has_no_body(peer: Peer) -> None:
    peer.call((FRAMES / "predict-form.bin").read_bytes())
    assert peer.requests[0].body == b""


def test_a_load_is_answered_and_mms_finds_the_files_it_opens_afterwards(peer: Peer, tmp_path: Path) -> None:
    reply = peer.call(LOAD)
    assert b"segments is ready [PID]:" in reply
    assert sorted(path.name.rpartition("-")[2] for path in tmp_path.iterdir()) == ["stderr", "stdout"]
    assert all(path.readlink() == Path("/dev/null") for path in tmp_path.iterdir())
    peer.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("size", [0, 1, RECEIVE_BYTES, RECEIVE_BYTES + 1, LARGE_RECEIVE_BYTES + 1, 5 << 20])
def test_bodies_of_any_size_arrive_whole(peer: Peer, size: int) -> None:
    body = bytes(index % 251 for index in range(min(size, 1000))) * (size // 1000 + 1)
    body = body[:size]
    frame = b"I" + blob(b"id") + integer(-1) + blob(b"body") + blob(b"") + blob(body) + integer(-1) * 2
    assert b"%d bytes" % size in peer.call(frame)
    assert peer.requests[0].body == body


def test_a_frame_that_dribbles_in_is_served(peer: Peer) -> None:
    for at in range(len(PREDICT)):
        peer.socket.sendall(PREDICT[at : at + 1])
    assert b"5 bytes" in peer.reply()


def test_two_frames_in_one_piece_get_two_replies(peer: Peer) -> None:
    peer.socket.sendall(PREDICT + PREDICT)
    data = b""
    while data.count(b"5 bytes") < 2:
        data += peer.socket.recv(65536)
    assert len(peer.requests) == 2


@pytest.mark.parametrize(
    "frame",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"I" + integer(2**31 - 1),
        b"L" + blob(b"m") + blob(b"/p") + integer(1) + blob(b"h") + integer(-1) + blob(b"../../etc/cron.d/x"),
        b"I" + blob(b"id") + integer(-1) + blob(b"body") + blob(b"") + integer(9 << 20),
    ],
)
def test_a_hostile_frame_ends_its_connection_and_no_other(tmp_path: Path, frame: bytes) -> None:
    bystander, hostile = Peer(tmp_path), Peer(tmp_path)
    try:
        assert b"5 bytes" in bystander.call(PREDICT)
        hostile.socket.sendall(frame)
        assert hostile.is_ended()
        assert b"5 bytes" in bystander.call(PREDICT)
        assert list(tmp_path.iterdir()) == []
    finally:
        bystander.close()
        hostile.close()


def test_a_connection_cut_in_mid_frame_is_over(peer: Peer) -> None:
    peer.socket.sendall(PREDICT[:50])
    peer.socket.shutdown(socket.SHUT_WR)
    assert peer.is_ended()
    peer.thread.join(10)
    assert not peer.connection.is_busy
    assert peer.requests == []


def test_it_is_busy_from_the_first_byte_of_a_frame_to_the_last_of_its_reply(peer: Peer) -> None:
    assert not peer.connection.is_busy
    peer.socket.sendall(PREDICT[:50])
    while not peer.connection.is_busy:
        pass
    peer.socket.sendall(PREDICT[50:])
    peer.reply()
    while peer.connection.is_busy:
        pass
    assert peer.connection.n_served == 1


def test_close_ends_an_idle_connection(peer: Peer) -> None:
    peer.call(PREDICT)
    peer.connection.close()
    assert peer.is_ended()


def test_an_answer_that_mms_could_not_read_ends_the_connection_rather_than_confusing_it(tmp_path: Path) -> None:
    peer = Peer(tmp_path)
    try:
        peer.connection._answer = lambda _: Answer(200, "text/csv", b"", (("x", "y" * 5000),))
        peer.socket.sendall(PREDICT)
        assert peer.is_ended()
    finally:
        peer.close()
    assert wire.MAX_REPLY_HEADER_BYTES < 5000


class Watched:
    """A connection as the thread that watches all of them sees it: nothing it does may wait."""

    def __init__(self, io_dir: Path, body: bytes = b"slow") -> None:
        self.socket, theirs = socket.socketpair()
        self.socket.settimeout(10)
        self.connection = Connection(
            theirs,
            answer=lambda _: Answer(200, "text/plain", body),
            on_load=lambda _, load: (200, f"{load.model_name} is ready"),
            io_dir=io_dir,
            max_frame_bytes=8 << 20,
        )

    def look(self, answer: Answer | None) -> Progress:
        return self.connection.try_at_once(lambda _: answer)


QUICK = Answer(200, "text/plain", b"quick")


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    one = Watched(tmp_path)
    yield one
    one.socket.close()
    one.connection._stream.close()


def test_what_can_be_answered_at_once_is(watched: Watched) -> None:
    assert watched.look(QUICK) is Progress.DONE  # nothing has come
    watched.socket.sendall(PREDICT)
    assert watched.look(QUICK) is Progress.DONE
    assert b"quick" in watched.socket.recv(65536)
    assert (watched.connection.n_served, watched.connection.is_busy) == (1, False)


@pytest.mark.parametrize("frame", [PREDICT, LOAD])
def test_what_cannot_is_finished_elsewhere(watched: Watched, frame: bytes) -> None:
    watched.socket.sendall(frame)
    assert watched.look(None) is Progress.UNFINISHED
    assert watched.connection.is_busy
    assert watched.connection.finish()
    assert watched.socket.recv(65536)
    assert not watched.connection.is_busy


def test_half_a_frame_and_a_second_one_behind_the_first_are_finished_elsewhere(watched: Watched) -> None:
    watched.socket.sendall(PREDICT[:50])
    assert watched.look(QUICK) is Progress.UNFINISHED
    watched.socket.sendall(PREDICT[50:] + PREDICT)
    assert watched.connection.finish()
    assert watched.socket.recv(65536).count(b"slow") == 2
    watched.socket.sendall(PREDICT + PREDICT)
    assert watched.look(QUICK) is Progress.UNFINISHED
    assert watched.connection.finish()
    data = watched.socket.recv(65536)
    assert (data.count(b"quick"), data.count(b"slow")) == (1, 1)


def test_a_peer_that_does_not_read_holds_up_nobody(watched: Watched) -> None:
    large = Answer(200, "text/plain", b"x" * (4 << 20))
    watched.socket.sendall(PREDICT)
    assert watched.look(large) is Progress.UNFINISHED
    finishing = threading.Thread(target=watched.connection.finish)
    finishing.start()
    got = 0
    while got < 4 << 20:
        got += len(watched.socket.recv(1 << 20))
    finishing.join(10)
    assert not finishing.is_alive()


@pytest.mark.parametrize("frame", [b"", b"X", b"I" + integer(2**31 - 1)])
def test_an_end_or_a_broken_frame_ends_the_connection_at_once(watched: Watched, frame: bytes) -> None:
    watched.socket.sendall(frame)
    watched.socket.shutdown(socket.SHUT_WR)
    assert watched.look(QUICK) is Progress.OVER
    assert watched.socket.recv(1) == b""


# -- files of the front end's ------------------------------------------------------------------------------------------


def frame(headers: dict[str, str], body: bytes = b"") -> bytes:
    fields = b"".join(blob(name.encode()) + blob(value.encode()) for name, value in headers.items())
    return b"I" + blob(b"id") + fields + integer(-1) + blob(b"body") + blob(b"") + blob(body) + integer(-1) * 2


class Spooling(Peer):
    """A peer that knows of files."""

    def __init__(self, io_dir: Path, spool: Spool | None, answer: Answer) -> None:
        super().__init__(io_dir)
        self.told = answer
        self.gone: set[str] = set()
        self.connection._spool = spool
        self.connection._has_gone = self.gone.__contains__

    def _answer(self, request: Request) -> Answer:
        super()._answer(request)
        return self.told


LARGE = Answer(200, "text/csv", b"1\n" * LARGE_BYTES, (("x-a", "b"),))


@pytest.fixture
def spooling(tmp_path: Path) -> Iterator[Spooling]:
    (tmp_path / "spool").mkdir()
    one = Spooling(tmp_path, Spool(tmp_path / "spool", 8 << 20), LARGE)
    yield one
    one.close()
    assert list((tmp_path / "spool").glob("*.body")) == []


def test_a_body_in_a_file_is_the_body_and_no_header_of_the_front_ends_is_seen(
    spooling: Spooling, tmp_path: Path
) -> None:
    body = b"1,2\n" * 100_000
    (tmp_path / "spool" / "7.body").write_bytes(body)
    spooling.call(frame({"x-mme-call": "7", "x-mme-body": str(len(body)), "accept": "text/csv"}))
    (request,) = spooling.requests
    assert (request.body, dict(request.headers)) == (body, {"accept": "text/csv"})


def test_a_large_answer_goes_in_a_file_and_a_small_one_does_not(spooling: Spooling, tmp_path: Path) -> None:
    reply = spooling.call(frame({"x-mme-call": "7"}, b"1"))
    assert blob(b"x-mme-answer") + blob(b"7 %d" % len(LARGE.body)) in reply
    assert reply.endswith(blob(b"") + integer(-1))
    assert (tmp_path / "spool" / "7.answer").read_bytes() == LARGE.body
    spooling.told = Answer(200, "text/csv", b"1\n" * (LARGE_BYTES // 2))
    reply = spooling.call(frame({"x-mme-call": "8"}, b"1"))
    assert reply.endswith(blob(spooling.told.body) + integer(-1))


@pytest.mark.parametrize("why", ["no spool", "no number", "no room"])
def test_an_answer_for_which_there_is_no_file_goes_as_ever(spooling: Spooling, tmp_path: Path, why: str) -> None:
    if why == "no spool":
        spooling.connection._spool = None
    if why == "no room":
        (tmp_path / "spool" / "7.answer").mkdir()
    reply = spooling.call(frame({} if why == "no number" else {"x-mme-call": "7"}, b"1"))
    assert reply.endswith(blob(LARGE.body) + integer(-1))
    assert b"x-mme" not in reply


def test_without_a_spool_a_callers_word_about_a_file_is_nothing(spooling: Spooling, tmp_path: Path) -> None:
    (tmp_path / "spool" / "7.body").write_bytes(b"another's")
    spooling.connection._spool = None
    spooling.call(frame({"x-mme-call": "7", "x-mme-body": "9"}, b"mine"))
    assert spooling.requests[0].body == b"mine"
    (tmp_path / "spool" / "7.body").unlink()


def test_a_lost_body_is_told_to_the_front_end_and_ends_nothing(spooling: Spooling) -> None:
    reply = spooling.call(frame({"x-mme-call": "7", "x-mme-body": "9"}))
    assert blob(b"x-mme-answer") + blob(b"7 0") in reply
    assert spooling.requests == []
    spooling.call(frame({"x-mme-call": "8"}, b"1"))
    assert len(spooling.requests) == 1


def test_for_a_caller_who_has_gone_no_file_is_left(spooling: Spooling, tmp_path: Path) -> None:
    spooling.gone.add("7")
    assert blob(b"7 0") in spooling.call(frame({"x-mme-call": "7"}, b"1"))
    assert list((tmp_path / "spool").iterdir()) == []


def test_the_thread_that_watches_all_reads_no_file(watched: Watched, tmp_path: Path) -> None:
    (tmp_path / "7.body").write_bytes(b"123")
    watched.connection._spool = Spool(tmp_path, 8 << 20)
    watched.socket.sendall(frame({"x-mme-call": "7", "x-mme-body": "3"}))
    assert watched.look(QUICK) is Progress.UNFINISHED
    assert (tmp_path / "7.body").exists()
    assert watched.connection.finish()
    assert b"slow" in watched.socket.recv(65536)
    assert not (tmp_path / "7.body").exists()


def test_whether_its_caller_has_gone_is_known_of_what_was_not_answered_at_once(watched: Watched) -> None:
    wanted: list[bool] = []

    def slowly(request: Request) -> Answer:
        wanted.append(request.is_wanted())
        return QUICK

    watched.connection._answer = slowly
    watched.connection._has_gone = {"7"}.__contains__
    watched.socket.sendall(frame({"x-mme-call": "7"}, b"1"))
    assert watched.look(None) is Progress.UNFINISHED
    assert watched.connection.finish()
    assert wanted == [False]
