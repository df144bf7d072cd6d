"""Large bodies and answers on their way in files: the same bytes as ever, and nothing is left of them."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import signal
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from container.link.spool import KEPT_S, LARGE_BYTES
from tests.flow.test_http import Front, Wire, load_of
from tests.rig import boosters
from tests.rig.endpoint import Endpoint, needs_classes, until

pytestmark = needs_classes

KiB, MiB = 1 << 10, 1 << 20
MAX_BODY = 8 * MiB
ALL_BODIES = 32 * MiB  # a sixth of the heap that Java has without another word
BINARY = "Content-Type: application/octet-stream"
SMALL_BUFFER = 16 * KiB

# What comes back is what was sent, or as many bytes as are asked for; where the body says so, not before a file is there.
ECHO = """
    import os, time

    def transform_fn(model, body, content_type, accept):
        if body.startswith(b"wait for "):
            path = body.split(b"\\0")[0].removeprefix(b"wait for ")
            with open(path + b".begun", "ab") as begun:
                begun.write(b".")
            while not os.path.exists(path):
                time.sleep(0.01)
        if body.startswith(b"make "):
            body = bytes(int(body[5:]))
        return body, "application/octet-stream"
"""


def noise(n_bytes: int) -> bytes:
    return os.urandom(n_bytes)


def waiting_for(path: Path, n_bytes: int) -> bytes:
    return f"wait for {path}\0".encode() + noise(n_bytes)


def n_begun(path: Path) -> int:
    """Of the requests that wait for it."""
    begun = path.with_name(f"{path.name}.begun")
    return begun.stat().st_size if begun.exists() else 0


class Echo:
    """An endpoint that gives back what it is sent, and what it has in files."""

    def __init__(self, front: Front, scratch: Path) -> None:
        self.front = front
        self.endpoint = front.endpoint
        self._scratch = scratch

    @property
    def spool(self) -> Path:
        (root,) = self._scratch.glob("mme-*")
        return root / "spool"

    def files(self) -> list[str]:
        return sorted(os.listdir(self.spool))

    def is_sending(self) -> bool:
        """Whether the front end has an answer's file open."""
        folder = Path(f"/proc/{self.endpoint.jvm}/fd")
        return any(".answer" in _target(one) for one in folder.iterdir())

    def wait_until_tidy(self) -> None:
        until(lambda: not self.files() and not self.is_sending(), KEPT_S + 10)

    def ask(self, body: bytes, *headers: str) -> None:
        """The body comes back, whole."""
        wire = Wire(self.front)
        wire.send(self.front.request(1, body, BINARY, *headers))
        reply = wire.reply()
        wire.close()
        assert (reply.status, reply.body == body) == (200, True), reply.body[:200]
        assert not [name for name in reply.headers if name.startswith("x-mme")]

    def slow(self, data: bytes) -> Wire:
        """A caller who has sent this, and takes no more than a little of what comes."""
        wire = Wire(self.front)
        wire.socket.close()
        wire.socket = socket.socket()
        wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER)
        wire.socket.settimeout(60)
        wire.socket.connect(("127.0.0.1", self.front.port))
        wire.send(data)
        return wire


def _target(link: Path) -> str:
    try:
        return os.readlink(link)
    except OSError:
        return ""


@pytest.fixture(scope="module", params=["standalone", "hosted"])
def echo(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Echo]:
    with started(tmp_path_factory.mktemp(str(request.param)), is_hosted=request.param == "hosted") as one:
        yield one


@contextlib.contextmanager
def started(root: Path, *, is_hosted: bool) -> Iterator[Echo]:
    (root / "inference.py").write_text(dedent(ECHO))
    models = root / "models"
    if is_hosted:
        (models / "m1").mkdir(parents=True)
        (models / "m1" / "xgboost-model").write_bytes(boosters.document(boosters.segment(1)))
    else:
        (models / "us").mkdir(parents=True)
        (models / "us" / "1.tar.gz").write_bytes(boosters.segment_archive(1))
    environment = {"SAGEMAKER_PROGRAM": "inference.py", "SAGEMAKER_SUBMIT_DIRECTORY": str(root)}
    scratch = Path(tempfile.mkdtemp(prefix="mt-"))
    flags = ["--max-body", str(MAX_BODY), *([] if is_hosted else ["--workers", "4"])]
    with Endpoint(None if is_hosted else models, scratch, *flags, environment=environment) as endpoint:
        one = Echo(Front(endpoint, is_hosted), scratch)
        if is_hosted:
            wire = Wire(one.front)
            wire.send(load_of(json.dumps({"model_name": "m1", "url": str(models / "m1")})))
            assert wire.reply().status == 200
            wire.close()
        one.ask(b"warm")
        yield one
    shutil.rmtree(scratch)


def chunked(body: bytes) -> bytes:
    parts = [body[at : at + 100_000] for at in range(0, len(body), 100_000)]
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


@pytest.mark.parametrize(
    "size", [100 * KiB, LARGE_BYTES, LARGE_BYTES + 1, 129 * KiB, 192 * KiB, 5 * MiB, MAX_BODY - 1, MAX_BODY]
)
def test_bodies_and_answers_come_through_as_they_were_sent(echo: Echo, size: int) -> None:
    body = noise(size)
    echo.ask(body)
    wire = Wire(echo.front)
    wire.send(echo.front.request(1, chunked(body), BINARY, "Transfer-Encoding: chunked"))
    assert wire.reply().body == body
    wire.close()
    echo.wait_until_tidy()


def test_a_large_body_is_in_a_file_and_its_answer_too(echo: Echo) -> None:
    body = noise(5 * MiB)
    data = echo.front.request(1, body, BINARY)
    wire = echo.slow(data[: -MiB // 2])
    until(lambda: bool(echo.files()))
    wire.send(data[-MiB // 2 :])
    until(echo.is_sending)
    assert echo.files() == []
    assert wire.reply().body == body
    wire.close()
    echo.wait_until_tidy()


def test_a_caller_who_goes_in_the_middle_of_his_body_leaves_no_file(echo: Echo) -> None:
    for _ in range(3):
        wire = Wire(echo.front)
        wire.send(echo.front.request(1, noise(3 * MiB), BINARY)[:-100])
        until(lambda: bool(echo.files()))
        wire.close()
        echo.wait_until_tidy()


def test_a_caller_who_goes_in_the_middle_of_his_answer_leaves_no_file(echo: Echo) -> None:
    for _ in range(3):
        wire = echo.slow(echo.front.request(1, noise(MAX_BODY), BINARY))
        until(echo.is_sending)
        assert wire.socket.recv(4) == b"HTTP"
        wire.close()
        echo.wait_until_tidy()
    # Nor do his bytes count any more: this many are allowed four times at once at most.
    for _ in range(6):
        echo.ask(noise(MAX_BODY))


def test_a_caller_who_goes_while_he_is_answered_leaves_no_file(echo: Echo, tmp_path: Path) -> None:
    flag = tmp_path / "go"
    wire = Wire(echo.front)
    wire.send(echo.front.request(1, waiting_for(flag, MiB), BINARY))
    until(lambda: n_begun(flag) == 1)
    assert echo.files() == []
    wire.close()
    flag.touch()
    echo.wait_until_tidy()
    echo.ask(noise(MiB))


def test_what_is_pipelined_behind_a_large_answer_is_answered_after_it(echo: Echo) -> None:
    bodies = [noise(5 * MiB), b"small", noise(2 * MiB), b"smaller"]
    wire = echo.slow(b"")
    sender = os.fork()
    if not sender:  # both sides are full at times
        with wire.socket:
            wire.send(b"".join(echo.front.request(1, body, BINARY) for body in bodies))
        os._exit(0)
    for body in bodies:
        assert wire.reply().body == body
    os.waitpid(sender, 0)
    wire.close()
    echo.wait_until_tidy()


@pytest.mark.parametrize(("version", "headers"), [("1.1", ("Connection: close",)), ("1.0", ())])
def test_a_large_answer_that_is_the_last_is_whole_before_the_connection_is_closed(
    echo: Echo, version: str, headers: tuple[str, ...]
) -> None:
    body = noise(5 * MiB)
    wire = echo.slow(echo.front.request(1, body, BINARY, *headers, version=version))
    reply = wire.reply()
    assert (reply.body == body, reply.headers["connection"]) == (True, "close")
    assert wire.is_closed()


def test_a_head_has_the_length_of_a_large_answer_and_no_more(echo: Echo) -> None:
    wire = Wire(echo.front)
    wire.send(echo.front.request(1, noise(MiB), BINARY, method="HEAD"))
    reply = wire.reply(has_body=False)
    assert (reply.status, reply.headers["content-length"]) == (200, str(MiB))
    wire.send(echo.front.request(1, b"next", BINARY))
    assert wire.reply().body == b"next"
    wire.close()


def test_a_caller_can_name_no_file(echo: Echo) -> None:
    victim, other = Wire(echo.front), Wire(echo.front)
    theirs = noise(MiB)
    data = echo.front.request(1, theirs, BINARY)
    victim.send(data[:-1])
    until(lambda: bool(echo.files()))
    (name,) = echo.files()
    number = name.removesuffix(".body")
    lies = (
        f"X-MME-Body: {echo.spool.joinpath(name).stat().st_size}",
        f"x-mme-CALL: {number}",
        f"x-mme-answer: {number} 3",
    )
    paths = [echo.front.path(1), echo.front.path(1).replace("in", "%69n"), echo.front.path(1) + "?x-mme-body=1"]
    for path in paths:
        for body in (b"mine", noise(MiB)):
            request = echo.front.request(1, body, BINARY, *lies).replace(echo.front.path(1).encode(), path.encode(), 1)
            other.send(request)
            reply = other.reply()
            assert (reply.status, reply.body == body) == (200, True)
            assert not [one for one in reply.headers if one.startswith("x-mme")]
            assert echo.files() == [name]
    victim.send(data[-1:])
    assert victim.reply().body == theirs
    victim.close()
    other.close()


def test_answers_that_nobody_reads_take_so_much_of_the_disk_and_no_more(echo: Echo) -> None:
    asks = echo.front.request(1, f"make {MAX_BODY}", BINARY)
    held = [echo.slow(asks) for _ in range(8 * ALL_BODIES // MAX_BODY + 4)]
    assert b"200" in held[0].socket.recv(15)
    statuses = [wire.socket.recv(15) for wire in held[1:]]
    assert {status[9:12] for status in statuses} == {b"200", b"503"}
    assert 4 <= sum(b"503" in status for status in statuses) <= 6
    echo.ask(b"small")
    for wire in held:
        wire.close()
    echo.wait_until_tidy()
    until(lambda: _is_back(echo, noise(MiB)))


# -- where there is no file to be had --------------------------------------------------------------------------------------


def test_a_full_disk_is_done_without(echo: Echo) -> None:
    with Tiny(echo.spool):
        for size in (129 * KiB, 400 * KiB, 600 * KiB, 5 * MiB):
            echo.ask(noise(size))
            echo.wait_until_tidy()


class Tiny:
    """A file system of half a MiB in a directory's place."""

    def __init__(self, place: Path) -> None:
        self._place = os.fsencode(place)
        self._libc = ctypes.CDLL(None, use_errno=True)

    def __enter__(self) -> None:
        if self._libc.mount(b"tmpfs", self._place, b"tmpfs", 0, b"size=512k,mode=0700"):
            pytest.skip("mounting is not allowed here")

    def __exit__(self, *_: object) -> None:
        assert not self._libc.umount2(self._place, 2)


def test_a_directory_that_is_gone_is_done_without(echo: Echo) -> None:
    away = echo.spool.with_name("away")
    spool = echo.spool
    wire = Wire(echo.front)
    body = noise(2 * MiB)
    data = echo.front.request(1, body, BINARY)
    wire.send(data[:-1])
    until(lambda: bool(echo.files()))
    spool.rename(away)
    wire.send(data[-1:] + data)
    assert [wire.reply().body == body, wire.reply().body == body] == [True, True]
    wire.close()
    shutil.rmtree(away)
    spool.mkdir(mode=0o700)
    echo.ask(body)


def test_a_body_whose_file_is_removed_is_sent_again(echo: Echo, tmp_path: Path) -> None:
    flag = tmp_path / "go"
    stuck = [Wire(echo.front) for _ in range(1 if echo.front.is_hosted else 4)]
    for wire in stuck:
        wire.send(echo.front.request(1, waiting_for(flag, 10), BINARY))
    until(lambda: n_begun(flag) == len(stuck))
    wire = Wire(echo.front)
    data = echo.front.request(1, body := noise(MiB), BINARY)
    wire.send(data[:-1])
    until(lambda: bool(echo.files()))
    (name,) = echo.files()
    wire.send(data[-1:])
    until(lambda: echo.spool.joinpath(name).stat().st_size == MiB)
    echo.spool.joinpath(name).unlink()
    flag.touch()
    lost = wire.reply()
    assert (lost.status, lost.headers["retry-after"]) == (503, "1")
    assert "lost" in echo.front.text_of(lost.body)
    wire.send(data)
    assert wire.reply().body == body
    for one in (wire, *stuck):
        one.close()


# -- a runtime that dies ---------------------------------------------------------------------------------------------------


def test_a_runtime_that_is_killed_takes_no_waiting_body_and_no_answer_with_it(echo: Echo, tmp_path: Path) -> None:
    flag = tmp_path / "go"
    answered = echo.slow(echo.front.request(1, answer := noise(MAX_BODY), BINARY))
    until(echo.is_sending)
    stuck = [Wire(echo.front) for _ in range(1 if echo.front.is_hosted else 4)]
    # As many as are worked on; of large ones that is one at a time.
    for wire, size in zip(stuck, (MiB, 10, 10, 10), strict=False):
        wire.send(echo.front.request(1, waiting_for(flag, size), BINARY))
    until(lambda: n_begun(flag) == len(stuck))
    waits = Wire(echo.front)
    body = noise(3 * MiB)
    waits.send(echo.front.request(1, body, BINARY))
    until(lambda: len(echo.files()) == 1)
    os.kill(echo.endpoint.runtime, signal.SIGKILL)
    assert [wire.reply().status for wire in stuck] == [503] * len(stuck)
    flag.touch()
    reply = waits.reply()
    assert reply.status == 503 or reply.body == body
    assert answered.reply().body == answer
    for wire in (answered, waits, *stuck):
        wire.close()
    echo.wait_until_tidy()
    until(lambda: _is_back(echo))
    echo.ask(body)


# -- the end ---------------------------------------------------------------------------------------------------------------


def test_an_answer_that_is_being_read_when_all_ends_is_whole(tmp_path: Path) -> None:
    with started(tmp_path, is_hosted=False) as echo:
        body = noise(MAX_BODY)
        reads, does_not = (echo.slow(echo.front.request(1, body, BINARY)) for _ in range(2))
        until(echo.is_sending)
        os.kill(echo.endpoint.pid, signal.SIGTERM)
        until(lambda: any("nothing is in flight" in line for line in echo.endpoint.log))
        assert reads.reply().body == body
        assert echo.endpoint.wait() == 0
        reads.close()
        does_not.close()


def _is_back(echo: Echo, body: bytes = b"?") -> bool:
    wire = Wire(echo.front)
    try:
        wire.send(echo.front.request(1, body, BINARY))
        return wire.reply().status == 200
    finally:
        wire.close()
