"""`mme invoke`: one call, its answer to stdout, what there is to know about it to stderr."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from container.operate.endpoint import waking
from container.operate.endpoint.waking import WAKE_S
from container.operate.exits import Exit

if TYPE_CHECKING:
    from container.operate.endpoint.calling import Answered, CallFailed

_EPILOG = """\
exit codes
  0  answered
  1  anything that is not below
  2  the command cannot be understood, or the body not be read
  3  the request was refused: no such target, or none that could be (ValidationError)
  4  the model or the body is at fault (ModelError)
  5  not now: still loading, overloaded or restarting; call again (ModelNotReadyException, ServiceUnavailable)
  6  nobody answers at the address

An endpoint at zero answers ValidationError until a copy is there; --wake waits for that one, and for no other.
"""


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "invoke",
        help="call one model of a running endpoint",
        description="Call one model of a running endpoint, through boto3. The answer goes to stdout.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "body", nargs="?", metavar="BODY", help="the body, after -- when it starts with a minus; - reads it from stdin"
    )
    parser.add_argument("--target", required=True, metavar="KEY", help="the artifact's key below the endpoint's prefix")
    parser.add_argument("--file", type=Path, metavar="F", help="read the body from a file instead")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--url", default="http://127.0.0.1:8080", help="the endpoint; default %(default)s")
    where.add_argument("--endpoint", metavar="NAME", help="a SageMaker endpoint, with this machine's credentials")
    parser.add_argument(
        "--component", metavar="NAME", help="its inference component; the target goes in CustomAttributes"
    )
    parser.add_argument(
        "--in-attributes", action="store_true", help="the target goes there, as a serverless endpoint wants"
    )
    parser.add_argument(
        "--wake", nargs="?", type=float, const=WAKE_S, metavar="S",
        help=f"at zero, wait until it is awake, so many seconds at most; {WAKE_S:g} without a number",
    )  # fmt: skip
    parser.add_argument("--content-type", default="text/csv", metavar="TYPE", help="the body's; default %(default)s")
    parser.add_argument("--accept", metavar="TYPE", help="the answer's; else what the endpoint prefers")
    parser.add_argument("--json", action="store_true", help="print the facts as JSON")
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> int:
    if chosen.endpoint is None and (chosen.component or chosen.in_attributes or chosen.wake is not None):
        return _usage("--component, --in-attributes and --wake go with --endpoint")
    if (chosen.body is None) == (chosen.file is None):
        return _usage("give the body as one argument, as --file F, or as - for stdin")
    try:
        body = _body(chosen.body, chosen.file)
    except OSError as error:
        return _usage(f"cannot read {error.filename or 'stdin'}: {error.strerror}")

    from container.operate.endpoint.calling import CallFailed, Endpoint  # boto3 costs 0.2 s, which --help need not pay

    try:
        endpoint = (
            Endpoint(chosen.url)
            if chosen.endpoint is None
            else Endpoint.on_sagemaker(
                chosen.endpoint, component=chosen.component, is_in_attributes=chosen.in_attributes
            )
        )

        def call() -> Answered:
            return endpoint.call(chosen.target, body, content_type=chosen.content_type, accept=chosen.accept)

        answered = call() if chosen.wake is None else waking.awake(call, chosen.wake, _progress)
    except CallFailed as error:
        if chosen.json:
            print(json.dumps({"target": chosen.target, **_why(error)}))
        print(f"mme invoke: {error}", file=sys.stderr)
        return error.exit
    if chosen.json:
        print(json.dumps({"target": chosen.target, **_facts(answered)}))
        return Exit.OK
    sys.stdout.buffer.write(answered.body)
    if sys.stdout.isatty() and not answered.body.endswith(b"\n"):
        sys.stdout.write("\n")  # for the prompt; a file or pipe gets the answer as it is
    sys.stdout.flush()
    print(f"{_temperature(answered)}  {answered.ms:.1f} ms", file=sys.stderr)
    return Exit.OK


def _body(argument: str | None, file: Path | None) -> bytes:
    if file is not None:
        return file.read_bytes()
    if argument == "-":
        return sys.stdin.buffer.read()
    assert argument is not None
    return argument.encode(errors="surrogateescape")


def _temperature(answered: Answered) -> str:
    if answered.is_hit is None:
        return "answered"
    if answered.is_hit:
        return "warm"
    return "cold" if answered.load_ms is None else f"cold, {answered.load_ms} ms of it loading"


def _facts(answered: Answered) -> dict[str, Any]:
    """`body` is text; bytes that are none become `body_base64`."""
    import base64

    try:
        body = {"body": answered.body.decode()}
    except UnicodeDecodeError:
        body = {"body_base64": base64.b64encode(answered.body).decode()}
    return {
        **body,
        "content_type": answered.content_type,
        "ms": round(answered.ms, 2),
        "is_hit": answered.is_hit,
        "load_ms": answered.load_ms,
    }


def _why(error: CallFailed) -> dict[str, Any]:
    from container.operate.endpoint.calling import CallRefused

    if isinstance(error, CallRefused):
        return {
            "error": error.type,
            "status": error.status,
            "original_status": error.original_status,
            "message": error.message,
            "ms": round(error.ms, 2),
        }
    return {"error": type(error).__name__, "message": str(error)}


def _progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _usage(message: str) -> int:
    print(f"mme invoke: {message}", file=sys.stderr)
    return Exit.USAGE
