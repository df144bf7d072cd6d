"""The door's questions, over HTTP as it speaks it."""

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

    def why_refused(self, port: int) -> tuple[str, str] | None:
        self._wait("why", port)
        return self.reasons.get(port)

    def until_unloaded(self, port: int) -> None:
        self._wait("unloaded", port)


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
    ("line", "call"), [("Door|9007|why", ("why", 9007)), ("Door|9007|unloaded", ("unloaded", 9007))]
)
def test_each_question_waits_for_its_own_thing(keeper: Keeper, line: str, call: tuple[object, ...]) -> None:
    wait_at_gate(line, keeper)
    assert keeper.calls == [call]


@pytest.mark.parametrize(
    "line",
    [
        "",
        "|",
        "Door|x|why",
        "Door|²|why",
        "Door|1|what",
        "Door|1|",
        "Door|1|why\n",
        "Door|1234567890|why",
        "Other|1|why",
    ],
)
def test_a_line_that_says_nothing_opens_at_once(keeper: Keeper, line: str) -> None:
    assert (wait_at_gate(line, keeper), keeper.calls) == ("", [])


@given(st.text())
def test_no_line_whatever_is_an_error(line: str) -> None:
    wait_at_gate(line, Keeper())


def test_the_door_waits_until_the_keeper_is_done(keeper: Keeper, port: int) -> None:
    keeper.is_open.clear()
    answers: list[tuple[int, str]] = []
    caller = threading.Thread(target=lambda: answers.append(post(port, "Door|9000|unloaded")))
    caller.start()
    until(lambda: keeper.calls == [("unloaded", 9000)])
    assert answers == []
    keeper.is_open.set()
    caller.join(10)
    assert answers == [(200, "")]


def test_one_gate_that_is_shut_holds_up_no_other(keeper: Keeper, port: int) -> None:
    keeper.is_open.clear()
    caller = threading.Thread(target=post, args=[port, "Door|9000|unloaded"])
    caller.start()
    until(lambda: len(keeper.calls) == 1)
    assert post(port, "Door|9000|nothing") == (200, "")
    keeper.is_open.set()
    caller.join(10)


def test_the_door_is_told_type_and_text(keeper: Keeper, port: int) -> None:
    keeper.reasons[9001] = ("ArtifactBroken", "artifact /m is broken:\nno booster é")
    assert post(port, "Door|9001|why") == (200, "ArtifactBroken\nartifact /m is broken:\nno booster é")
    assert post(port, "Door|9002|why") == (200, "")


def test_a_gate_that_fails_opens(keeper: Keeper, port: int) -> None:
    keeper.error = RuntimeError("as if")
    assert post(port, "Door|9000|unloaded") == (200, "")


def test_a_line_of_any_bytes_and_one_that_is_too_long_do_no_harm(keeper: Keeper, port: int) -> None:
    assert post(port, bytes(range(256))) == (200, "")
    assert post(port, b"x" * (MAX_LINE_BYTES + 1))[0] == 413
    assert post(port, "Door|1|why")[0] == 200
