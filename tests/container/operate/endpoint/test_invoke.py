"""One call from the shell: the answer, what is told about it, and how it ends."""

from __future__ import annotations

import io
import json
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest

from container.operate.endpoint.calling import cache_facts
from container.operate.exits import Exit
from container.operate.main import main
from tests.rig import boosters
from tests.rig.command import Command
from tests.rig.endpoint import Endpoint, free_port

ROW = "0.1,0.2,0.3,0.4,0.5,0.6"
PRICE = boosters.expected(boosters.segment(0), np.array([[0.1, 0.2, 0.3, 0.4, 0.5, 0.6]], np.float32))


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An endpoint with `us/warm.tar.gz`, `us/cold.tar.gz` and `broken.tar.gz`."""
    models = tmp_path_factory.mktemp("models")
    (models / "us").mkdir()
    for name in ("warm", "cold"):
        (models / "us" / f"{name}.tar.gz").write_bytes(boosters.segment_archive(0))
    (models / "broken.tar.gz").write_bytes(b"no archive")
    scratch = Path(tempfile.mkdtemp(prefix="mt-"))
    with Endpoint(models, scratch, "--workers", "2", "--loaders", "1") as endpoint:
        yield f"http://127.0.0.1:{endpoint.port}"
    shutil.rmtree(scratch)


@pytest.fixture
def invoke(url: str, capfdbinary: pytest.CaptureFixture[bytes]) -> Callable[..., tuple[int, bytes, str]]:
    """`mme invoke` at that endpoint: its exit code, stdout and stderr."""

    def run(*arguments: str) -> tuple[int, bytes, str]:
        status = main(["invoke", "--url", url, *arguments])
        captured = capfdbinary.readouterr()
        return status, captured.out, captured.err.decode()

    return run


Invoke = Callable[..., tuple[int, bytes, str]]


def test_the_answer_goes_to_stdout_as_it_came_and_the_rest_to_stderr(invoke: Invoke) -> None:
    status, first, told = invoke("--target", "us/cold.tar.gz", ROW)
    assert status == Exit.OK
    assert float(first) == pytest.approx(PRICE.item(), rel=1e-6)
    assert told.startswith("cold, ")
    assert told.endswith(" ms\n")
    assert " ms of it loading" in told
    status, second, told = invoke("--target", "us/cold.tar.gz", ROW)
    assert (status, second) == (Exit.OK, first)
    assert told.startswith("warm  ")


def test_json_gives_the_facts(invoke: Invoke) -> None:
    invoke("--target", "us/warm.tar.gz", ROW)
    status, out, told = invoke("--target", "us/warm.tar.gz", "--json", ROW)
    facts = json.loads(out)
    assert (status, told) == (Exit.OK, "")
    assert float(facts.pop("body")) == pytest.approx(PRICE.item(), rel=1e-6)
    assert facts.pop("ms") > 0
    assert facts == {"target": "us/warm.tar.gz", "content_type": "text/csv", "is_hit": True, "load_ms": None}


def test_content_type_and_accept_are_passed_on(invoke: Invoke) -> None:
    body = json.dumps({"instances": [[float(value) for value in ROW.split(",")]]})
    status, out, _ = invoke(
        "--target", "us/warm.tar.gz", "--content-type", "application/json", "--accept", "application/x-npy", body
    )
    assert status == Exit.OK
    np.testing.assert_array_equal(np.load(io.BytesIO(out)).ravel(), PRICE.ravel())


def test_bytes_that_are_no_text_become_base64_in_json(invoke: Invoke) -> None:
    _, out, _ = invoke("--target", "us/warm.tar.gz", "--accept", "application/x-npy", "--json", ROW)
    assert json.loads(out)["body_base64"].startswith("k05VTVBZ")  # \x93NUMPY


def test_the_body_may_come_from_a_file(invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text(f"{ROW}\n{ROW}\n")
    status, out, _ = invoke("--target", "us/warm.tar.gz", "--file", str(tmp_path / "rows.csv"))
    assert status == Exit.OK
    assert [float(line) for line in out.split()] == pytest.approx([PRICE.item()] * 2, rel=1e-6)


def test_the_body_may_come_from_stdin(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(ROW.encode())))
    status, out, _ = invoke("--target", "us/warm.tar.gz", "-")
    assert status == Exit.OK
    assert float(out) == pytest.approx(PRICE.item(), rel=1e-6)


def test_a_body_may_start_with_a_minus_behind_two(invoke: Invoke) -> None:
    status, _, _ = invoke("--target", "us/warm.tar.gz", "--", "-" + ROW)
    assert status == Exit.OK


@pytest.mark.parametrize(
    ("target", "body", "exit", "words"),
    [
        ("us/none.tar.gz", ROW, Exit.REFUSED, "ValidationError (400): Failed to download model data: "),
        ("../up.tar.gz", ROW, Exit.REFUSED, "ValidationError (400): "),
        (
            "us/warm.tar.gz",
            "1,2",
            Exit.MODEL_ERROR,
            "ModelError (424, 400 from the container): the model has 6 features",
        ),
        ("broken.tar.gz", ROW, Exit.MODEL_ERROR, "ModelError (424, 422 from the container): "),
        ("", ROW, Exit.USAGE, "boto3 cannot send this request: "),
    ],
)
def test_an_error_says_type_status_and_message_and_has_its_exit_code(
    invoke: Invoke, target: str, body: str, exit: Exit, words: str
) -> None:
    status, out, told = invoke("--target", target, body)
    assert (status, out) == (exit, b"")
    assert told.startswith(f"mme invoke: {words}")
    assert told.count("\n") == 1


def test_an_error_in_json_has_the_same_parts(invoke: Invoke) -> None:
    status, out, _ = invoke("--target", "us/warm.tar.gz", "--json", "1,2")
    facts = json.loads(out)
    assert status == Exit.MODEL_ERROR
    assert (facts["error"], facts["status"], facts["original_status"]) == ("ModelError", 424, 400)
    assert "6 features" in facts["message"]


def test_nobody_at_the_address_is_an_exit_code_of_its_own(invoke: Invoke) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    status, out, told = invoke("--url", url, "--target", "a", ROW)
    assert (status, out) == (Exit.UNREACHABLE, b"")
    assert told == f"mme invoke: {url} does not answer (EndpointConnectionError)\n"


@contextmanager
def answering(status: int, headers: dict[str, str], body: bytes) -> Iterator[str]:
    """A server that gives every POST one answer: what an endpoint says only under load, or what is no endpoint."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(("status", "type"), [(429, "ModelNotReadyException"), (503, "ServiceUnavailable")])
def test_what_may_be_called_again_is_not_now(invoke: Invoke, status: int, type: str) -> None:
    with answering(status, {"x-amzn-errortype": type}, b'{"Message": "call again"}') as url:
        code, _, told = invoke("--url", url, "--target", "a", ROW)
    assert (code, told) == (Exit.NOT_NOW, f"mme invoke: {type} ({status}): call again\n")


def test_a_stranger_at_the_address_is_told_in_one_line(invoke: Invoke) -> None:
    with answering(404, {"Content-Type": "text/html"}, b"<html>no such page</html>") as url:
        code, out, told = invoke("--url", url, "--target", "a", ROW)
    assert (code, out) == (Exit.FAILED, b"")
    assert told.startswith("mme invoke: ")
    assert told.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [["--target", "a"], ["--target", "a", "--file", "f", "1,2"], ["--target", "a", "--file", "/no/such/file"],
     ["--target", "a", "--url", "nonsense", "1,2"]],
)  # fmt: skip
def test_what_cannot_be_called_is_a_usage_error(invoke: Invoke, arguments: list[str]) -> None:
    status, out, told = invoke(*arguments)
    assert (status, out) == (Exit.USAGE, b"")
    assert told.startswith("mme invoke: ")


def test_every_exit_code_is_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["invoke", "--help"])
    text = capsys.readouterr().out
    assert all(f"\n  {code.value}  " in text for code in Exit if code is not Exit.INTERRUPTED)


@pytest.mark.parametrize(
    ("attributes", "facts"),
    [
        ("cache=hit", (True, None)),
        ("cache=miss,load_ms=31", (False, 31)),
        ("cache=miss,load_ms=x", (False, None)),
        ("", (None, None)),
        ("other=1,cache", (None, None)),
    ],
)
def test_cache_facts_are_read_and_never_guessed(attributes: str, facts: tuple[bool | None, int | None]) -> None:
    assert cache_facts(attributes) == facts


def test_serve_says_where_it_serves_and_what_to_do_next(run: Callable[..., Command], tmp_path: Path) -> None:
    port = free_port()
    serve = run("serve", "--models", str(tmp_path), "--port", str(port), "--workers", "1")
    assert serve.wait_for("ready").startswith(f"ready     http://127.0.0.1:{port}  {tmp_path}  ")
    next_step = serve.wait_for("next").split()[1:]
    assert next_step[:4] == ["mme", "invoke", "--url", f"http://127.0.0.1:{port}"]
    serve.signal(15)
    assert serve.wait() == 0
    assert main(next_step[1:]) == Exit.UNREACHABLE  # it is a command line of ours, and the endpoint is gone
    serve.assert_nothing_is_left()
