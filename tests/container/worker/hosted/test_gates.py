"""The door's questions, and lines of MMS's log as calls, over the HTTP that log4j speaks."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from container.worker.hosted.gates import MAX_LINE_BYTES, Gates, wait_at_gate
from tests.rig.endpoint import until


class Keeper:
    """Writes down what it is asked to wait for. `is_open` lets the waiting go on."""

    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []
        self.reasons: dict[int, tuple[str, str]] = {}
        self.error: Exception | None = None
        self.is_open = threading.Event()
        self.is_open.set()

    def _wait(self, *call: object) -> None:
        self.calls.append(call)
        if self.error is not None:
            raise self.error
        assert self.is_open.wait(10)

    def before_close(self, port: int, *, is_connecting: bool) -> None:
        self._wait("close", port, is_connecting)

    def before_unloaded(self, model_name: str) -> None:
        self._wait("unloaded", model_name)

    def before_load_failed(self, port: int) -> None:
        self._wait("failed", port)

    def why_refused(self, port: int) -> tuple[str, str] | None:
        self._wait("why", port)
        return self.reasons.get(port)

    def closing(self, port: int) -> None:
        self._wait("closing", port)

    def until_unloaded(self, port: int) -> None:
        self._wait("until unloaded", port)


@pytest.fixture
def keeper() -> Keeper:
    return Keeper()


@pytest.fixture
def port(keeper: Keeper) -> Iterator[int]:
    listener = socket.create_server(("127.0.0.1", 0))
    gates = Gates(listener, keeper)
    yield listener.getsockname()[1]
    gates.close()


def post(port: int, line: str | bytes) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("POST", "/", line)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("line", "call"),
    [
        ("WorkerThread|pool-2|W-9003-x State change WORKER_MODEL_LOADED -> WORKER_SCALED_DOWN", ("close", 9003, False)),
        ("WorkerThread|pool-2|W-9003-x State change WORKER_STARTED -> WORKER_SCALED_DOWN", ("close", 9003, True)),
        ("WorkerThread|pool-2|W-9003-x State change null -> WORKER_SCALED_DOWN", ("close", 9003, True)),
        ("ModelManager|epoll-1|Model eu/a b unregistered.", ("unloaded", "eu/a b")),
        ("ModelManager|epoll-1|Model two\nlines unregistered.", ("unloaded", "two\nlines")),
        ('ACCESS_LOG|W-9012-x|/127.0.0.1:1 "POST /models HTTP/1.1" 422 12', ("failed", 9012)),
        ("Door|9007|why", ("why", 9007)),
        ("Door|9007|closing", ("closing", 9007)),
        ("Door|9007|unloaded", ("until unloaded", 9007)),
    ],
)
def test_each_kind_of_line_waits_for_its_own_thing(keeper: Keeper, line: str, call: tuple[object, ...]) -> None:
    wait_at_gate(line, keeper)
    assert keeper.calls == [call]


@pytest.mark.parametrize(
    "line",
    [
        "",
        "|",
        "WorkerThread|t|W-x State change",
        "ModelManager|t|Model x loaded.",
        'ACCESS_LOG|change-1|"POST /models HTTP/1.1" 422 12',  # the door's own thread: it has forgotten the model already
        "Door|x|why",
        "Door|²|why",
        "Door|1|what",
        "Other|W-9003-x|W-9003-x",
    ],
)
def test_a_line_that_says_nothing_opens_at_once(keeper: Keeper, line: str) -> None:
    assert (wait_at_gate(line, keeper), keeper.calls) == ("", [])


@given(st.text())
def test_no_line_whatever_is_an_error(line: str) -> None:
    wait_at_gate(line, Keeper())


def test_mms_waits_until_the_keeper_is_done(keeper: Keeper, port: int) -> None:
    keeper.is_open.clear()
    answers: list[tuple[int, str]] = []
    caller = threading.Thread(target=lambda: answers.append(post(port, "ModelManager|t|Model x unregistered.")))
    caller.start()
    until(lambda: keeper.calls == [("unloaded", "x")])
    assert answers == []
    keeper.is_open.set()
    caller.join(10)
    assert answers == [(200, "")]


def test_one_gate_that_is_shut_holds_up_no_other(keeper: Keeper, port: int) -> None:
    keeper.is_open.clear()
    caller = threading.Thread(target=post, args=[port, "ModelManager|t|Model x unregistered."])
    caller.start()
    until(lambda: len(keeper.calls) == 1)
    assert post(port, "ModelManager|t|Model x loaded.") == (200, "")
    keeper.is_open.set()
    caller.join(10)


def test_the_door_is_told_type_and_text(keeper: Keeper, port: int) -> None:
    keeper.reasons[9001] = ("ArtifactBroken", "artifact /m is broken:\nno booster é")
    assert post(port, "Door|9001|why") == (200, "ArtifactBroken\nartifact /m is broken:\nno booster é")
    assert post(port, "Door|9002|why") == (200, "")


def test_a_gate_that_fails_opens(keeper: Keeper, port: int) -> None:
    keeper.error = RuntimeError("as if")
    assert post(port, "ModelManager|t|Model x unregistered.") == (200, "")


def test_a_line_of_any_bytes_and_one_that_is_too_long_do_no_harm(keeper: Keeper, port: int) -> None:
    assert post(port, bytes(range(256))) == (200, "")
    assert post(port, b"x" * (MAX_LINE_BYTES + 1))[0] == 413
    assert post(port, "Door|1|why")[0] == 200


@pytest.mark.parametrize("method", ["GET", "CONNECT"])
def test_nothing_is_fetched_through_the_gates(port: int, method: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request(method, "http://169.254.169.254/latest/meta-data/")
    assert connection.getresponse().status == 403
    connection.close()
