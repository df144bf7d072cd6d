from __future__ import annotations

import os
import signal
import subprocess
import threading
from pathlib import Path

import pytest

from container.platform.jobs import rooms
from container.platform.jobs.host import NO_PROGRAM, Host
from container.platform.jobs.rooms import Room, best_room
from tests.container.platform.jobs.conftest import PATIENCE_S, until

MOUNTED, AS_USER, PLAIN = "mounted", "as a user", "without a namespace"
WAYS = {MOUNTED: rooms._WAYS[0], AS_USER: rooms._WAYS[1], PLAIN: ()}


class Lines:
    """What a host says, in the place of its log."""

    def __init__(self) -> None:
        self.data = b""

    def follow(self, descriptor: int) -> None:
        while chunk := os.read(descriptor, 1 << 16):
            self.data += chunk

    def put(self, lines: list[bytes]) -> None:
        self.data += b"\n".join(lines)


class Program:
    """A script on one host."""

    def __init__(self, room: Room, folder: Path, *program: str) -> None:
        self.lines = Lines()
        self.over = threading.Event()
        self.host = Host("algo-1", folder)
        self.host.tree.mkdir()
        environment = {"PATH": os.environ["PATH"]}
        names = ("algo-1", "algo-2")
        self.host.start(program, environment, names, room, self.lines, self.over.set)  # type: ignore[arg-type]

    def wait(self) -> int | None:
        assert self.over.wait(PATIENCE_S)
        self.host.join()
        return self.host.exit_code


def is_permitted(options: tuple[str, ...]) -> bool:
    try:
        return subprocess.run(["unshare", *options, "true"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


@pytest.fixture(params=WAYS)
def room(request: pytest.FixtureRequest) -> Room:
    options = WAYS[request.param]
    if options and not is_permitted(options):
        pytest.skip("namespaces are not permitted here")
    return Room(options)


def test_a_program_finds_its_tree_and_leaves_its_exit_code(room: Room, tmp_path: Path) -> None:
    script = 'root=${MME_OPT_ML:-/opt/ml}; cat "$root/in"; echo left >"$root/out"; exit 3'
    host = Host("algo-1", tmp_path)
    host.tree.mkdir()
    (host.tree / "in").write_text("found\n")
    lines, over = Lines(), threading.Event()
    host.start(["sh", "-c", script], {"PATH": os.environ["PATH"]}, ("algo-1",), room, lines, over.set)  # type: ignore[arg-type]
    assert over.wait(PATIENCE_S)
    assert (host.exit_code, lines.data, (host.tree / "out").read_text()) == (3, b"found\n", "left\n")


def test_a_program_hears_the_signal_and_what_it_started_ends_with_it(room: Room, tmp_path: Path) -> None:
    mark = tmp_path / "child"
    script = f"trap 'echo heard; exit 5' TERM; sleep 1000 & echo $! >{mark}; echo ready; wait"
    program = Program(room, tmp_path, "sh", "-c", script)
    until(lambda: b"ready" in program.lines.data)
    program.host.signal(signal.SIGTERM)
    assert program.wait() == 5
    assert program.lines.data == b"ready\nheard\n"
    if not room.is_alone:
        until(lambda: not Path(f"/proc/{mark.read_text().strip()}").exists())


def test_a_program_that_does_not_listen_is_killed(room: Room, tmp_path: Path) -> None:
    program = Program(room, tmp_path, "sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1000; done")
    until(lambda: b"ready" in program.lines.data)
    program.host.signal(signal.SIGTERM)
    program.host.kill()
    assert program.wait() == 128 + signal.SIGKILL


def test_a_program_that_is_none_is_told(room: Room, tmp_path: Path) -> None:
    program = Program(room, tmp_path, "no-such-program")
    assert program.wait() == NO_PROGRAM
    assert b"no-such-program" in program.lines.data


def test_words_that_name_opt_ml_name_the_tree_where_it_is_not_mounted(tmp_path: Path) -> None:
    program = Program(Room(), tmp_path, "echo", "--data", "/opt/ml/input/data")
    assert program.wait() == 0
    assert program.lines.data == f"--data {tmp_path}/ml/input/data\n".encode()


def test_as_number_one_a_program_without_a_handler_does_not_end_by_sigterm(tmp_path: Path) -> None:
    room = best_room()
    if not room.is_alone:
        pytest.skip("process namespaces are not permitted here")
    program = Program(room, tmp_path, "sh", "-c", "echo $$; sleep 1000")
    until(lambda: program.lines.data)
    assert program.lines.data == b"1\n"
    program.host.signal(signal.SIGTERM)
    assert not program.over.wait(0.2)
    program.host.kill()
    assert program.wait() == 128 + signal.SIGKILL


def test_hosts_have_names_and_the_machine_keeps_its_own_opt(tmp_path: Path) -> None:
    room = best_room()
    if not room.is_namespace:
        pytest.skip("namespaces are not permitted here")
    before = sorted(os.listdir("/opt"))
    program = Program(room, tmp_path, "sh", "-c", "hostname; getent hosts algo-2; ls /opt")
    assert program.wait() == 0
    name, other, *opt = program.lines.data.decode().splitlines()
    assert (name, other.split()) == ("algo-1", ["127.0.1.2", "algo-2"])
    assert sorted({*opt}) == sorted({*before, "ml"})
    assert sorted(os.listdir("/opt")) == before
