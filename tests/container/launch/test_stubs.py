"""Sockets for MMS's workers: bound, lingering, kept, forgotten; with a real FIFO for a stub's reply."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from container.launch.stubs import Binding, Stubs, socket_name


@pytest.fixture
def directory() -> Iterator[Path]:
    """Short, as sockets need it."""
    with tempfile.TemporaryDirectory(prefix="mt-") as path:
        yield Path(path)


@pytest.fixture
def stubs(directory: Path) -> Iterator[Stubs]:
    one = Stubs(directory)
    yield one
    one.close()


class Stub:
    """What stub.sh does, up to `exec cat`."""

    def __init__(self, directory: Path, port: int) -> None:
        os.mkfifo(directory / f"reply.{port}")
        self.reply = os.open(directory / f"reply.{port}", os.O_RDONLY | os.O_NONBLOCK)
        with open(directory / "control", "wb", buffering=0) as control:
            control.write(f"{socket_name(port)} reply.{port}\n".encode())

    def end(self) -> None:
        os.close(self.reply)


def can_connect(directory: Path, port: int) -> bool:
    with socket.socket(socket.AF_UNIX) as worker:
        try:
            worker.connect(str(directory / socket_name(port)))
        except OSError:
            return False
        return True


def test_a_stub_is_told_what_mms_wants_to_read_once_workers_can_connect(stubs: Stubs, directory: Path) -> None:
    stub = Stub(directory, 9000)
    (binding,) = stubs.on_control()
    assert (binding.name, can_connect(directory, 9000)) == (".mms.sock.9000", True)
    assert os.read(stub.reply, 100) == b"[PID] %d\nMMS worker started.\n" % os.getpid()
    stub.end()


def test_the_door_needs_no_stub(stubs: Stubs, directory: Path) -> None:
    binding = stubs.bind(socket_name(9000))
    assert (binding.reply, stubs.bindings, can_connect(directory, 9000)) == (None, [binding], True)


def test_a_socket_lingers_until_it_is_forgotten(stubs: Stubs, directory: Path) -> None:
    stubs.bind(socket_name(9000))
    binding = stubs.linger(socket_name(9000))
    assert isinstance(binding, Binding)
    assert (stubs.bindings, stubs.lingering, can_connect(directory, 9000)) == ([], [binding], True)
    assert stubs.linger(socket_name(9000)) is None
    stubs.forget(binding)
    assert (stubs.lingering, can_connect(directory, 9000)) == ([], False)


def test_a_socket_outlives_its_stub(stubs: Stubs, directory: Path) -> None:
    stub = Stub(directory, 9000)
    (binding,) = stubs.on_control()
    stub.end()
    stubs.orphan(socket_name(9000))
    (kept,) = stubs.bindings
    assert (kept.listener, kept.reply, can_connect(directory, 9000)) == (binding.listener, None, True)


def test_a_stub_that_is_gone_already_gets_nothing_and_nonsense_neither(stubs: Stubs, directory: Path) -> None:
    Stub(directory, 9000).end()
    with open(directory / "control", "wb", buffering=0) as control:
        control.write(b"what is this\n")
    assert stubs.on_control() == []
    assert not can_connect(directory, 9000)


def test_closing_leaves_no_socket(directory: Path) -> None:
    stubs = Stubs(directory)
    for port in range(9000, 9004):
        stubs.bind(socket_name(port))
    stubs.linger(socket_name(9001))
    stubs.close()
    assert not list(directory.glob(".mms.sock.*"))
