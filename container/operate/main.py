"""The `mme` command.

Rule: facts go to stdout, progress and trouble to stderr, and the next step comes last.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import sys
import time
from collections.abc import Callable, Sequence
from typing import TypeAlias

from container import environments, settings
from container.limits import libc
from container.link.loopback import asked_at
from container.operate.exits import Exit
from container.operate.printing import say

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="mme", description="Serve thousands of XGBoost models from one endpoint, the busy ones from memory."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    words = sys.argv[1:] if arguments is None else arguments
    _ALONE.get(words[0] if words else "", _add_all)(commands)
    chosen = parser.parse_args(arguments)
    run = chosen.run
    try:
        status: int = run(chosen)
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    return status


def _add_serve(commands: Commands) -> None:
    serve = commands.add_parser("serve", help="serve the artifacts below an S3 prefix or in a directory")
    settings.add_flags(serve)
    serve.set_defaults(run=_serve)


def _add_all(commands: Commands) -> None:
    from container.operate.artifacts import convert, inspect
    from container.operate.demo import command as demo
    from container.operate.deploy import command as deploy
    from container.operate.drift import command as drift
    from container.operate.drift import labelling
    from container.operate.endpoint import dashboard, invoke, models
    from container.operate.fleet import command as fleet
    from container.operate.pipeline import command as pipeline
    from container.operate.platform import command as platform
    from container.operate.release import command as release
    from container.operate.train import command as train

    _add_serve(commands)
    demo.add_command(commands)
    invoke.add_command(commands)
    _add_health(commands)
    models.add_command(commands)
    inspect.add_command(commands)
    convert.add_command(commands)
    train.add_command(commands)
    pipeline.add_command(commands, main)
    release.add_commands(commands)
    dashboard.add_command(commands)
    _add_score(commands)
    drift.add_command(commands)
    labelling.add_command(commands)
    deploy.add_command(commands)
    fleet.add_command(commands)
    platform.add_command(commands)


def _add_health(commands: Commands) -> None:
    from container.operate.endpoint import health

    health.add_command(commands)


def _add_score(commands: Commands) -> None:
    from container.operate.batch import command as batch

    batch.add_command(commands)


def _add_score_alone(commands: Commands) -> None:
    # Before NumPy has threads. Each thread's heap would keep what its step of a run has left: 60 MB of 550.
    libc.share_heap()
    environments.keep_blas_alone()
    _add_score(commands)


# An endpoint's start and its health check, for which somebody waits, and a batch, which may be a small one of many: what the
# other commands import is 0.2 s of a core.
_ALONE: dict[str, Callable[[Commands], None]] = {
    "serve": _add_serve,
    "health": _add_health,
    "score": _add_score_alone,
}


def _serve(chosen: argparse.Namespace) -> int:
    # Imported here so that the other commands do not pay for it.
    from container.launch.supervisor import Supervisor
    from container.log_stream import take_over_stderr
    from container.operate.serving import READY
    from handler.errors import StartRefused
    from handler.stores import parse_location

    try:
        chosen_settings = settings.read(vars(chosen))
        if not chosen_settings.front.hosted:
            parse_location(chosen_settings.artifacts.models)
    except StartRefused as error:
        print(f"mme serve: {error}", file=sys.stderr)
        return Exit.USAGE
    take_over_stderr()
    logging.basicConfig(
        level=chosen_settings.front.log_level,
        stream=sys.stderr,
        format="%(asctime)s %(levelname)-7s %(name)s: %(message)s",
    )
    started_at = time.monotonic()

    def say_ready() -> None:
        url = f"http://{asked_at(chosen_settings.front.host)}:{chosen_settings.front.port}"
        if chosen_settings.front.hosted:
            next_command = f"mme platform --models s3://bucket/prefix/ --container {url}"
        else:
            next_command = f"mme invoke --url {url} --target KEY 1.0,2.0,3.0"
        # With --emf stdout is CloudWatch's: nothing but metrics is written there.
        facts = sys.stderr if chosen_settings.metrics.emf else sys.stdout
        with contextlib.suppress(BrokenPipeError):  # who reads no facts is served all the same
            took_s = time.monotonic() - started_at
            say(READY, url, chosen_settings.artifacts.models or "hosted", f"{took_s:.1f} s", file=facts)
            say("next", next_command, file=facts)

    return Supervisor(chosen_settings, on_ready=say_ready).run()


if __name__ == "__main__":
    sys.exit(main())
