"""`mme platform`: SageMaker and its neighbours on this machine; with --models, one multi-model endpoint alone."""

from __future__ import annotations

import argparse
import logging
import shlex
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from container.operate.exits import CommandFailed, Exit
from container.operate.printing import lines_of, say
from container.operate.serving import READY, PortTaken
from container.operate.stopping import stop_event
from container.platform.endpoints.engine import ENGINES

ALONE = ("instances", "memory", "container", "root", "disk", "model_cache", "s3_endpoint_url")
MAX_SPEED = 100_000
WHOLE = ("speed", "state", "trap", "region", "image", "engine")


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "platform",
        help="play SageMaker and its neighbours on this machine",
        description="Play SageMaker for boto3, the AWS CLI and whatever else takes AWS_ENDPOINT_URL: models, endpoints, "
        "deployments, jobs, pipelines, model packages, and moto's S3, CloudWatch, IAM and others behind the same address. "
        "With --models, only one multi-model endpoint, there from the start.",
    )
    parser.add_argument("--port", type=int, default=8080, help="where to listen; default %(default)s")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; default %(default)s")
    whole = parser.add_argument_group("without --models")
    whole.add_argument("--speed", type=float, metavar="N", help="platform seconds in a real second; default 1")
    whole.add_argument(
        "--state", type=Path, metavar="DIR", help="where to go on from and what to keep for the next time"
    )
    whole.add_argument(
        "--trap", action="append", metavar="NAME", help="a trouble to have: see `--trap list`; repeatable"
    )
    whole.add_argument("--region", metavar="REGION", help="the region that is played; default us-east-1")
    whole.add_argument(
        "--image",
        action="append",
        metavar="NAME=COMMAND",
        help="what stands for an image here, {port} in it being where to listen; all others are our own container",
    )
    whole.add_argument(
        "--engine",
        choices=ENGINES,
        help="what runs all other images instead, as containers on this machine's network: each must be there already, for "
        "none is pulled; jobs are refused then",
    )
    alone = parser.add_argument_group("with --models")
    alone.add_argument("--models", metavar="LOC", help="where the artifacts are: s3://bucket/prefix/ or a directory")
    alone.add_argument("--instances", type=int, metavar="N", help="containers to start; default 1")
    alone.add_argument("--memory", metavar="SIZE", help="memory for models in each container, such as 1GiB")
    alone.add_argument(
        "--container",
        action="append",
        metavar="URL",
        help="a running multi-model container to use instead of starting one; once for each instance",
    )
    alone.add_argument("--root", type=Path, metavar="DIR", help="where to unpack models; else a temporary directory")
    alone.add_argument("--disk", metavar="SIZE", help="disk of each instance; default 30GiB")
    alone.add_argument("--model-cache", choices=["Enabled", "Disabled"], help="MultiModelConfig.ModelCacheSetting")
    alone.add_argument("--s3-endpoint-url", metavar="URL", help="another S3 than Amazon's")
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> int:
    from handler.stores import LocationInvalid

    try:
        _refuse_ignored(chosen)
        with ExitStack() as closing:
            if chosen.models:
                from container.operate.platform import hosting

                return hosting.run(chosen, closing)
            return _run(chosen, closing)
    except (CommandFailed, LocationInvalid, ValueError) as error:
        print(f"mme platform: {error}", file=sys.stderr)
        return error.exit if isinstance(error, CommandFailed) else Exit.USAGE


def _refuse_ignored(chosen: argparse.Namespace) -> None:
    ignored = [name for name in (WHOLE if chosen.models else ALONE) if getattr(chosen, name) is not None]
    if ignored:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in ignored)
        raise ValueError(f"{flags}: of no use {'with' if chosen.models else 'without'} --models")


def _run(chosen: argparse.Namespace, closing: ExitStack) -> int:
    from container.platform.bill.facts import told
    from container.platform.bill.pages import HOME
    from container.platform.endpoints.engine import EngineRefused
    from container.platform.platform import REGION, Platform
    from container.platform.service.moto import missing_parts
    from container.platform.state import StateRefused
    from container.platform.traps import TRAPS

    if chosen.trap == ["list"]:
        for name, what in TRAPS.items():
            print(f"{name:<20}  {what}")
        return Exit.OK
    if missing := missing_parts():
        raise CommandFailed(f"needs {', '.join(missing)}: pip install 'multi-model-endpoint[demo]'")
    speed = 1.0 if chosen.speed is None else chosen.speed
    if not 0 < speed <= MAX_SPEED:
        raise ValueError(f"--speed {speed:g}: more than 0, at most {MAX_SPEED}")
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s"
    )
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    stop = closing.enter_context(stop_event(is_last=True))
    try:
        platform = Platform(
            host=chosen.host,
            port=chosen.port,
            speed=speed,
            state=chosen.state,
            traps=chosen.trap or (),
            region=chosen.region or REGION,
            images=_images(chosen.image or ()),
            engine=chosen.engine,
        )
    except (StateRefused, EngineRefused) as error:
        raise CommandFailed(str(error)) from error
    except OSError as error:
        raise PortTaken(chosen.port, error.strerror or str(error)) from error
    closing.enter_context(platform)
    say(READY, platform.url, f"region {platform.region}", f"account {platform.account}", f"speed {speed:g}")
    say("page", f"{platform.url}{HOME}")
    if platform.traps.names:
        say("traps", *platform.traps.names)
    settings = {
        "AWS_ENDPOINT_URL": platform.url,
        "AWS_DEFAULT_REGION": platform.region,
        "AWS_ACCESS_KEY_ID": "any",
        "AWS_SECRET_ACCESS_KEY": "any",
    }
    print(lines_of("next", *(f"export {name}={value}" for name, value in settings.items())), flush=True)
    stop.wait()
    print(lines_of("bill", *told(platform.bill())), flush=True)
    return Exit.OK


def _images(given: Sequence[str]) -> dict[str, list[str]]:
    """NAME=COMMAND, the command as a shell would split it."""
    found = {}
    for one in given:
        name, is_there, command = one.partition("=")
        if not is_there or not shlex.split(command):
            raise ValueError(f"--image {one}: write NAME=COMMAND")
        found[name] = shlex.split(command)
    return found
