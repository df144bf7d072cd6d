"""What RFC 9110 and RFC 9112 ask of a server, of the port in both modes: order, persistence, methods, limits, framing."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import boto3
import botocore.config
import pytest

from tests.rig import boosters
from tests.rig.endpoint import Endpoint, needs_classes

pytestmark = needs_classes

N_MODELS = 6
MAX_BODY = 1 << 20
ROWS = [f"{number / 7:.3f},0.2,0.3,0.4,0.5,0.6" for number in range(8)]


class Front(NamedTuple):
    """One mode: its endpoint, and how a model is named in a request."""

    endpoint: Endpoint
    is_hosted: bool

    @property
    def port(self) -> int:
        return self.endpoint.port

    def request(
        self, model: int, body: str | bytes, *headers: str, method: str = "POST", version: str = "1.1"
    ) -> bytes:
        data = body.encode() if isinstance(body, str) else body
        lines = [
            f"{method} {self.path(model)} HTTP/{version}",
            "Host: x",
            *([] if self.is_hosted else [f"X-Amzn-SageMaker-Target-Model: us/{model}.tar.gz"]),
            *(
                headers
                if any(one.lower().startswith("content-type") for one in headers)
                else ("Content-Type: text/csv", *headers)
            ),
            *(
                []
                if any(one.lower().startswith(("content-length", "transfer")) for one in headers)
                else [f"Content-Length: {len(data)}"]
            ),
        ]
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + data

    def path(self, model: int) -> str:
        return f"/models/m{model}/invoke" if self.is_hosted else "/invocations"

    def text_of(self, body: bytes) -> str:
        fields = json.loads(body)
        return str(fields["message"] if self.is_hosted else fields["Message"])


@pytest.fixture(scope="module", params=["standalone", "hosted"])
def front(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    is_hosted = request.param == "hosted"
    root = tmp_path_factory.mktemp(str(request.param))
    (root / "us").mkdir()
    for number in range(N_MODELS):
        if is_hosted:
            (root / f"m{number}").mkdir()
            (root / f"m{number}" / "xgboost-model").write_bytes(boosters.document(boosters.segment(number)))
        else:
            (root / "us" / f"{number}.tar.gz").write_bytes(boosters.segment_archive(number))
    scratch = Path(tempfile.mkdtemp(prefix="mt-"))
    with Endpoint(None if is_hosted else root, scratch, "--max-body", str(MAX_BODY)) as endpoint:
        one = Front(endpoint, is_hosted)
        for number in range(N_MODELS):
            if is_hosted:
                fields = json.dumps({"model_name": f"m{number}", "url": str(root / f"m{number}")})
                assert ask(one, load_of(fields))[0].status == 200
            else:
                ask(one, one.request(number, ROWS[0]))
        yield one
    shutil.rmtree(scratch)


def load_of(fields: str) -> bytes:
    head = (
        f"POST /models HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(fields)}\r\n\r\n"
    )
    return (head + fields).encode()


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


class Wire:
    """One connection, and the answers that come over it."""

    def __init__(self, front: Front) -> None:
        self.socket = socket.create_connection(("127.0.0.1", front.port), timeout=30)
        self._here = b""

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def _more(self) -> bool:
        data = self.socket.recv(1 << 16)
        self._here += data
        return bool(data)

    def reply(self, *, has_body: bool = True) -> Reply:
        while b"\r\n\r\n" not in self._here:
            assert self._more(), f"closed behind {self._here!r}"
        head, _, self._here = self._here.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length = int(headers.get("content-length", 0)) if has_body else 0
        while len(self._here) < length:
            assert self._more(), f"closed in the middle of a body, behind {self._here!r}"
        body, self._here = self._here[:length], self._here[length:]
        return Reply(int(first.split(" ")[1]), headers, body)

    def is_closed(self) -> bool:
        """Whether the server closes it, in order and with nothing left to say."""
        return not self._here and not self.socket.recv(1)

    def close(self) -> None:
        self.socket.close()


@pytest.fixture
def wire(front: Front) -> Iterator[Wire]:
    one = Wire(front)
    yield one
    one.close()


def ask(front: Front, data: bytes, n_replies: int = 1) -> list[Reply]:
    wire = Wire(front)
    try:
        wire.send(data)
        return [wire.reply() for _ in range(n_replies)]
    finally:
        wire.close()


# -- order -----------------------------------------------------------------------------------------------------------------


def test_ten_thousand_pipelined_calls_are_answered_in_their_order(front: Front) -> None:
    calls = [(number % N_MODELS, number % len(ROWS)) for number in range(200)]
    alone = {call: ask(front, front.request(call[0], ROWS[call[1]]))[0].body for call in set(calls)}
    batch = b"".join(front.request(model, ROWS[row]) for model, row in calls)

    def run(_: int) -> int:
        replies = ask(front, batch, len(calls))
        assert {reply.status for reply in replies} == {200}
        return sum(reply.body != alone[call] for reply, call in zip(replies, calls, strict=True))

    with ThreadPoolExecutor(4) as callers:
        assert sum(callers.map(run, range(50))) == 0


def test_what_goes_the_slow_way_and_what_is_refused_keep_their_places_among_the_quick(front: Front) -> None:
    large = "\n".join([ROWS[1]] * 3000)  # goes MMS's way
    batch = [
        front.request(1, ROWS[1]),
        front.request(1, large),
        front.request(2, ROWS[2]),
        front.request(2, ROWS[2], "Content-Encoding: gzip"),
        front.request(3, "1,2"),
        b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n",
        front.request(4, ROWS[3]),
    ]
    replies = ask(front, b"".join(batch), len(batch))
    refused = (415, 400) if front.is_hosted else (424, 424)
    assert [reply.status for reply in replies] == [200, 200, 200, *refused, 200, 404, 200]
    assert replies[1].body.split(b"\n") == [replies[0].body] * 3000
    assert replies[7].body == ask(front, front.request(4, ROWS[3]))[0].body


# -- persistence -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "headers", "closes"),
    [
        ("1.1", (), False),
        ("1.1", ("Connection: close",), True),
        ("1.0", (), True),
        ("1.0", ("Connection: keep-alive",), False),
    ],
)
def test_a_connection_is_kept_or_closed_as_the_caller_asks(
    front: Front, wire: Wire, version: str, headers: tuple[str, ...], closes: bool
) -> None:
    wire.send(front.request(1, ROWS[0], *headers, version=version))
    reply = wire.reply()
    assert (reply.status, reply.headers["connection"]) == (200, "close" if closes else "keep-alive")
    if closes:
        assert wire.is_closed()
    else:
        wire.send(front.request(1, ROWS[0]))
        assert wire.reply().body == reply.body


def test_an_error_does_not_end_the_connection(front: Front, wire: Wire) -> None:
    for bad in (front.request(1, "1,2,3"), b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n", front.request(99, ROWS[0])):
        wire.send(bad)
        reply = wire.reply()
        assert reply.status >= 400
        assert reply.headers["connection"] == "keep-alive"
    wire.send(front.request(1, ROWS[0]))
    assert wire.reply().status == 200


# -- methods and targets ---------------------------------------------------------------------------------------------------


def test_head_is_answered_as_get_without_the_body(front: Front, wire: Wire) -> None:
    wire.send(b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n")
    got = wire.reply()
    wire.send(b"HEAD /ping HTTP/1.1\r\nHost: x\r\n\r\n")
    head = wire.reply(has_body=False)
    assert head.status == got.status == 200
    assert head.headers["content-length"] == got.headers["content-length"]
    wire.send(front.request(1, ROWS[0]))  # no body came behind the head
    assert wire.reply().status == 200


@pytest.mark.parametrize("path", ["/ping", "/metrics", "/execution-parameters", "/ping?x=1"])
def test_another_method_of_what_is_only_read_is_405_and_says_which_there_are(front: Front, path: str) -> None:
    (reply,) = ask(front, f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n1".encode())
    assert reply.status == 405
    assert reply.headers["allow"] == "GET, HEAD"
    assert "POST" in front.text_of(reply.body)


@pytest.mark.parametrize(
    ("request_line", "says"),
    [
        ("GET /ping%zz HTTP/1.1", "percent"),
        ("POST /invocations?a=%zz HTTP/1.1", "percent"),
        ("GET ping HTTP/1.1", "path"),
        ("PRI * HTTP/2.0", "HTTP/2"),
    ],
)
def test_a_target_that_is_none_is_refused_in_words(front: Front, request_line: str, says: str) -> None:
    (reply,) = ask(front, f"{request_line}\r\nHost: x\r\n\r\n".encode())
    assert reply.status == 400
    assert says in front.text_of(reply.body)
    assert b"xception" not in reply.body.replace(b"BadRequestException", b"")


def test_options_of_the_whole_server_says_what_it_knows(front: Front) -> None:
    (reply,) = ask(front, b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (reply.status, reply.body) == (200, b"")
    assert "POST" in reply.headers["allow"]


def test_the_absolute_form_of_a_proxy_is_taken(front: Front) -> None:
    (reply,) = ask(front, b"GET http://x/ping HTTP/1.1\r\nHost: x\r\n\r\n")
    assert reply.status == 200


# -- framing ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "status", "says"),
    [
        (b"GET /ping HTTP/1.1\nHost: x\n\n", 400, "carriage return"),
        (b"GET /ping HTTP/1.1\r\nHost: x\r\nA: b\n\r\n", 400, "carriage return"),
        (b"GET /ping HTTP/1.1\r\nHost: x\r\nA: b\x00c\r\n\r\n", 400, "control character"),
        (b"GET /ping HTTP/1.1\r\nHost: x\r\nA: b\rc\r\n\r\n", 400, "control character"),
        (b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, "Length"),
        (b"POST /invocations HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, "Transfer-Encoding"),
        (b"POST /invocations HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501, "gzip"),
        (b"GET /ping HTTP/1.1\r\n\r\n", 400, "Host"),
        (b"GET /ping HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400, "Host"),
        (b"GET /ping HTTP/3.7\r\nHost: x\r\n\r\n", 505, "HTTP/1.1"),
        (b"GET /ping HTTP/1.1\r\nHost: x\r\nA : b\r\n\r\n", 400, "HTTP/1.1"),
        (b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414, "4096"),
        (b"GET /ping HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 9000 + b"\r\n\r\n", 431, "8192"),
    ],
)  # fmt: skip
def test_a_head_that_others_may_read_in_another_way_is_refused(
    front: Front, data: bytes, status: int, says: str
) -> None:
    for pieces in ([data], [data[at : at + 1] for at in range(len(data))] if len(data) < 200 else [data]):
        wire = Wire(front)
        for piece in pieces:
            try:
                wire.send(piece)
            except OSError:
                break  # refused before it was whole
        reply = wire.reply()
        assert reply.status == status, reply
        assert says in front.text_of(reply.body)
        wire.close()


def test_empty_lines_in_front_of_a_request_are_let_pass(front: Front, wire: Wire) -> None:
    wire.send(b"\r\n" + front.request(1, ROWS[0]) + b"\r\n\r\n" + front.request(1, ROWS[0]))
    assert [wire.reply().status, wire.reply().status] == [200, 200]


def test_chunks_are_put_together_however_they_come(front: Front, wire: Wire) -> None:
    data = front.request(1, ROWS[0], "Transfer-Encoding: chunked")
    body = ROWS[0].encode()
    head = data.removesuffix(body)
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:3], body[3:4], body[4:])) + b"0\r\n\r\n"
    for at in range(0, len(head + chunks), 7):
        wire.send((head + chunks)[at : at + 7])
    assert wire.reply().body == ask(front, front.request(1, ROWS[0]))[0].body


@pytest.mark.parametrize(
    "chunks",
    [
        b"5;a=b;c\r\n%b\r\n0\r\n\r\n",
        b"005\r\n%b\r\n000;last\r\nTrailer: x\r\n\r\n",
    ],
)
def test_extensions_and_trailers_of_chunks_are_let_pass(front: Front, chunks: bytes) -> None:
    data = front.request(1, b"", "Transfer-Encoding: chunked") + chunks % b"1,2,3"
    wire = Wire(front)
    whole = front.request(1, b"1,2,3")
    wire.send(data + whole)
    chunked, plain = wire.reply(), wire.reply()
    assert (chunked.status, chunked.body) == (plain.status, plain.body)
    wire.close()


@pytest.mark.parametrize(
    "chunks",
    [
        b"5\n1,2,3\r\n0\r\n\r\n",  # CVE-2025-58056
        b"5\r\n1,2,3\n0\r\n\r\n",
        b"5\r\n1,2,3xx\r\n0\r\n\r\n",
        b"5\r\n1,2,3\r\n0\n\r\n",
        b"5\r\n1,2,3\r\n0\r\n\n",
        b"5\r\n1,2,3\r\n0\r\nA: b\n\r\n",
        b'5;a="\r\n1,2,3\r\n0\r\n\r\n',  # CVE-2026-33870
        b"5;a\x00\r\n1,2,3\r\n0\r\n\r\n",
        b"5;a\rb\n1,2,3\r\n0\r\n\r\n",
        b" 5\r\n1,2,3\r\n0\r\n\r\n",
        b"5 \r\n1,2,3\r\n0\r\n\r\n",
        b"+5\r\n1,2,3\r\n0\r\n\r\n",
        b"0x5\r\n1,2,3\r\n0\r\n\r\n",
        b"-5\r\n1,2,3\r\n0\r\n\r\n",
        b"\r\n1,2,3\r\n0\r\n\r\n",
        b";a\r\n1,2,3\r\n0\r\n\r\n",
        b"100000005\r\n1,2,3\r\n0\r\n\r\n",
        b"\xd9\xa5\r\n1,2,3\r\n0\r\n\r\n",  # a digit, in Arabic
    ],
)
@pytest.mark.parametrize("step", [1, 1000])
def test_chunks_that_others_may_read_in_another_way_are_refused(front: Front, chunks: bytes, step: int) -> None:
    wire = Wire(front)
    data = chunks + b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n"
    wire.send(front.request(1, b"", "Transfer-Encoding: chunked"))
    with contextlib.suppress(OSError):  # refused before it was whole
        for at in range(0, len(data), step):
            wire.send(data[at : at + step])
    reply = wire.reply()
    assert reply.status == 400, reply
    assert reply.headers["connection"] == "close"
    assert "chunk" in front.text_of(reply.body)
    wire.close()


@pytest.mark.parametrize(
    "name", ["X-Amzn-SageMaker-Target-Model", "X-Amzn-SageMaker-Custom-Attributes", "Content-Type"]
)
def test_a_header_there_can_be_one_of_is_not_sent_twice(front: Front, name: str) -> None:
    (reply,) = ask(front, front.request(1, ROWS[0], f"{name}: us/2.tar.gz", f"{name}: us/1.tar.gz"))
    assert reply.status == 400
    assert name.lower() in front.text_of(reply.body).lower()


def test_two_accept_headers_are_one_list(front: Front) -> None:
    (reply,) = ask(front, front.request(1, ROWS[0], "Accept: image/png", "Accept: application/json;q=0.5"))
    assert reply.headers["content-type"] == "application/json"


# -- bodies ----------------------------------------------------------------------------------------------------------------


def test_a_body_over_the_limit_is_413_and_the_words_name_the_limit(front: Front) -> None:
    large = b"1" * (MAX_BODY + 1)
    for data in (
        front.request(1, large),
        front.request(1, b"", "Transfer-Encoding: chunked") + b"200000\r\n" + b"1" * 0x200000,
    ):
        wire = Wire(front)
        wire.send(data)
        reply = wire.reply()
        assert reply.status == 413
        assert str(MAX_BODY) in front.text_of(reply.body)
        assert reply.headers["connection"] == "close"
        wire.close()


def test_who_waits_to_be_told_to_go_on_is_told(front: Front, wire: Wire) -> None:
    data = front.request(1, ROWS[0], "Expect: 100-continue")
    head, _, body = data.partition(b"\r\n\r\n")
    wire.send(head + b"\r\n\r\n")
    assert wire.reply().status == 100
    wire.send(body)
    assert wire.reply().status == 200


@pytest.mark.parametrize(("expect", "length", "status"), [("100-continue", MAX_BODY + 1, 413), ("sunshine", 5, 417)])
def test_who_waits_in_vain_is_told_why_before_the_body(
    front: Front, wire: Wire, expect: str, length: int, status: int
) -> None:
    wire.send(front.request(1, b"", f"Expect: {expect}", f"Content-Length: {length}"))
    assert wire.reply().status == status


@pytest.mark.parametrize(
    ("header", "says"),
    [
        ("Content-Encoding: gzip", "gzip"),
        ("Content-Type: application/x-www-form-urlencoded", "form"),
        ("Content-Type: Multipart/Form-Data; boundary=x", "form"),
    ],
)
def test_a_body_that_no_model_reads_is_415_before_anybody_takes_it_apart(
    front: Front, wire: Wire, header: str, says: str
) -> None:
    for path in (  # the last of them is to MMS what the first is
        ("/invocations", "/predictions/segments/endpoints/e/invocations", "/%69nvocations")
        if not front.is_hosted
        else ("/models/m1/invoke", "/models/m1/%69nvoke")
    ):
        wire.send(front.request(1, "a=1&b=2", header).replace(front.path(1).encode(), path.encode(), 1))
        reply = wire.reply()
        assert reply.status == (415 if front.is_hosted else 424)
        assert front.is_hosted or json.loads(reply.body)["OriginalStatusCode"] == 415
        assert says in front.text_of(reply.body)


def test_a_form_of_two_million_fields_costs_nothing(front: Front) -> None:
    body = b"&".join(b"%x=1" % number for number in range(100_000))[: MAX_BODY - 1]
    started = time.monotonic()
    for _ in range(10):
        ask(front, front.request(1, body, "Content-Type: application/x-www-form-urlencoded"))
    assert time.monotonic() - started < 5
    assert ask(front, front.request(1, ROWS[0]))[0].status == 200


def test_eleven_hundred_headers_do_not_end_a_worker(front: Front) -> None:
    headers = [f"{number:x}:" for number in range(1100)]
    (reply,) = ask(front, front.request(1, ROWS[0], *headers))
    assert reply.status == 200
    assert ask(front, front.request(1, ROWS[0]))[0].status == 200


def test_an_answer_over_the_limit_is_told_with_both_sizes_and_the_worker_lives(front: Front) -> None:
    body = "\n".join([ROWS[1]] * 20_000)
    data = front.request(1, body, "X-Amzn-SageMaker-Custom-Attributes: Output=contribs", "Accept: application/json")
    for _ in range(3):
        (reply,) = ask(front, data)
        assert reply.status == (413 if front.is_hosted else 424)
        assert f"the limit is {MAX_BODY}" in front.text_of(reply.body)
    assert ask(front, front.request(1, ROWS[0]))[0].status == 200
    assert "Worker died" not in "".join(front.endpoint.log)


# -- time and bytes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sent", [b"POST /invocations HTTP/1.1\r\nHo", b"GET"])
def test_half_a_head_is_given_up_after_ten_seconds(front: Front, wire: Wire, sent: bytes) -> None:
    started = time.monotonic()
    wire.send(sent)
    reply = wire.reply()
    assert reply.status == 408
    assert "10 s" in front.text_of(reply.body)
    assert 9 < time.monotonic() - started < 20
    assert wire.is_closed()


def test_large_bodies_of_many_callers_are_each_answered_with_their_own(front: Front) -> None:
    n_rows = 20_000  # 480 KB

    def run(number: int) -> None:
        model, row = number % N_MODELS, ROWS[number % len(ROWS)]
        body = "\n".join([row] * n_rows)
        chunked = f"{len(body):x}\r\n{body}\r\n0\r\n\r\n"
        batch = [
            front.request(model, body),
            front.request(model, row),
            front.request(model, chunked, "Transfer-Encoding: chunked"),
        ]
        replies = ask(front, b"".join(batch), len(batch))
        assert [reply.status for reply in replies] == [200] * 3
        for large in (replies[0], replies[2]):
            assert large.body.split(b"\n") == [replies[1].body] * n_rows

    with ThreadPoolExecutor(6) as callers:
        list(callers.map(run, range(12)))


def test_who_leaves_while_large_bodies_wait_takes_nobody_elses_answer(front: Front) -> None:
    large = "\n".join([ROWS[1]] * 20_000)
    for _ in range(10):
        wire = Wire(front)
        wire.send(front.request(1, large))
        wire.close()
    replies = ask(front, front.request(2, large) + front.request(2, ROWS[1]), 2)
    assert [reply.status for reply in replies] == [200, 200]
    assert replies[0].body.split(b"\n") == [replies[1].body] * 20_000


def test_a_change_of_models_with_a_large_body_keeps_no_large_invoke_waiting(front: Front) -> None:
    if not front.is_hosted:
        pytest.skip("models are changed by hosted mode")
    fields = json.dumps({"model_name": "m0", "url": "/nowhere", "padding": " " * 200_000})
    assert ask(front, load_of(fields))[0].status == 404
    assert ask(front, front.request(1, "\n".join([ROWS[1]] * 20_000)))[0].status == 200


def test_stalled_bodies_do_not_keep_others_from_being_answered(front: Front) -> None:
    held = []

    def stall() -> None:
        wire = Wire(front)
        wire.send(front.request(1, b"1" * (MAX_BODY - 100), f"Content-Length: {MAX_BODY}"))
        held.append(wire)

    for _ in range(60):  # as many bytes as all requests together may have, and more
        stall()
    try:
        statuses = [ask(front, front.request(1, ROWS[0]))[0].status for _ in range(50)]
        assert statuses == [200] * 50
        large = "\n".join([ROWS[1]] * 3000)
        deadline = time.monotonic() + 30
        while (reply := ask(front, front.request(1, large))[0]).status != 503:
            # Not all has been read that was sent yet; or two met the limit at once, both were refused, and there is room.
            assert reply.status == 200
            assert time.monotonic() < deadline, "bodies that stall are not counted"
            stall()
        assert reply.headers["retry-after"] == "1"
    finally:
        for wire in held:
            wire.close()
    deadline = time.monotonic() + 10
    while ask(front, front.request(1, large))[0].status != 200:
        assert time.monotonic() < deadline, "the bytes of callers that have gone still count"


# -- a stream of events ----------------------------------------------------------------------------------------------------


def test_boto3_reads_a_response_stream(front: Front) -> None:
    if front.is_hosted:
        pytest.skip("SageMaker calls /invoke")
    client = boto3.client(
        "sagemaker-runtime",
        endpoint_url=f"http://127.0.0.1:{front.port}/predictions/segments",
        region_name="us-east-1",
        aws_access_key_id="testing",
        aws_secret_access_key="testing",
        config=botocore.config.Config(retries={"total_max_attempts": 1}),
    )
    many = "\n".join(ROWS * 2000)
    for body in (ROWS[0], many):
        answer = client.invoke_endpoint_with_response_stream(
            EndpointName="e", ContentType="text/csv", Body=body, CustomAttributes="TargetModel=us/1.tar.gz"
        )
        told = b"".join(event["PayloadPart"]["Bytes"] for event in answer["Body"])
        assert told == ask(front, front.request(1, body))[0].body
        assert answer["ContentType"] == "text/csv"
    with pytest.raises(client.exceptions.ModelError, match="6"):
        client.invoke_endpoint_with_response_stream(
            EndpointName="e", ContentType="text/csv", Body="1,2", CustomAttributes="TargetModel=us/1.tar.gz"
        )


# -- hosted ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", ["", "{", "[]", "null", '"x"', "{bad"])
def test_a_load_that_is_no_json_object_is_400_in_words(front: Front, body: str) -> None:
    if not front.is_hosted:
        pytest.skip("loads are hosted mode's")
    (reply,) = ask(front, load_of(body))
    assert reply.status == 400
    assert "JSON" in front.text_of(reply.body)
    assert "java" not in reply.body.decode().lower()
