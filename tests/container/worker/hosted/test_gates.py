"""The door's questions, over a socket as it asks them."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

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
def gate(keeper: Keeper, tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "gate.sock"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    gates = Gates(listener, keeper)
    yield path
    gates.close()


def ask(gate: Path, line: str | bytes) -> str:
    with socket.socket(socket.AF_UNIX) as one:
        one.settimeout(30)
        one.connect(str(gate))
        one.sendall(line.encode() if isinstance(line, str) else line)
        one.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: one.recv(4096), b"")).decode()


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


def test_the_door_waits_until_the_keeper_is_done(keeper: Keeper, gate: Path) -> None:
    keeper.is_open.clear()
    answers: list[str] = []
    caller = threading.Thread(target=lambda: answers.append(ask(gate, "Door|9000|unloaded")))
    caller.start()
    until(lambda: keeper.calls == [("unloaded", 9000)])
    assert answers == []
    keeper.is_open.set()
    caller.join(10)
    assert answers == [""]


def test_one_gate_that_is_shut_holds_up_no_other(keeper: Keeper, gate: Path) -> None:
    keeper.is_open.clear()
    caller = threading.Thread(target=ask, args=[gate, "Door|9000|unloaded"])
    caller.start()
    until(lambda: len(keeper.calls) == 1)
    assert ask(gate, "Door|9000|nothing") == ""
    keeper.is_open.set()
    caller.join(10)


def test_the_door_is_told_type_and_text(keeper: Keeper, gate: Path) -> None:
    keeper.reasons[9001] = ("ArtifactBroken", "artifact /m is broken:\nno booster é")
    assert ask(gate, "Door|9001|why") == "ArtifactBroken\nartifact /m is broken:\nno booster é"
    assert ask(gate, "Door|9002|why") == ""


def test_a_gate_that_fails_opens(keeper: Keeper, gate: Path) -> None:
    keeper.error = RuntimeError("as if")
    assert ask(gate, "Door|9000|unloaded") == ""


def test_a_line_of_any_bytes_and_one_that_is_too_long_do_no_harm(keeper: Keeper, gate: Path) -> None:
    assert ask(gate, bytes(range(256))) == ""
    assert ask(gate, b"x" * (MAX_LINE_BYTES + 1)) == ""
    keeper.reasons[1] = ("Other", "one")
    assert ask(gate, "Door|1|why") == "Other\none"
