"""`mme platform`: play SageMaker for a multi-model container, ours or any other."""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from container import environments, settings
from container.operate.exits import CommandFailed, Exit
from container.operate.printing import say
from container.operate.serving import READY

if TYPE_CHECKING:
    from container.platform.hosting.contract import Container

START_S = 480.0  # SageMaker's window for a container's first healthy ping
PING_EVERY_S = 0.5
FIRST_PORT = 18080
LOADERS = 8  # downloads and loads at the same time, on each instance


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "platform",
        help="play SageMaker for a multi-model container on this machine",
        description="Play SageMaker's side of a multi-model endpoint: download, load, keep, unload on 507, route.",
    )
    parser.add_argument("--models", required=True, help="where the artifacts are: s3://bucket/prefix/ or a directory")
    parser.add_argument("--port", type=int, default=8080, help="where boto3 finds the endpoint; default %(default)s")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; default %(default)s")
    parser.add_argument(
        "--instances", type=int, default=1, metavar="N", help="containers to start; default %(default)s"
    )
    parser.add_argument("--memory", metavar="SIZE", help="memory for models in each container, such as 1GiB")
    parser.add_argument(
        "--container",
        action="append",
        metavar="URL",
        help="a running multi-model container to use instead of starting one; once for each instance",
    )
    parser.add_argument("--root", type=Path, metavar="DIR", help="where to unpack models; else a temporary directory")
    parser.add_argument("--disk", default="30GiB", metavar="SIZE", help="disk of each instance; default %(default)s")
    parser.add_argument(
        "--model-cache", choices=["Enabled", "Disabled"], default="Enabled", help="MultiModelConfig.ModelCacheSetting"
    )
    parser.add_argument("--s3-endpoint-url", metavar="URL", help="another S3 than Amazon's")
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> int:
    from handler.stores import LocationInvalid

    try:
        with ExitStack() as closing:
            return _run(chosen, closing)
    except (CommandFailed, LocationInvalid, ValueError) as error:
        print(f"mme platform: {error}", file=sys.stderr)
        return error.exit if isinstance(error, CommandFailed) else Exit.USAGE


def _run(chosen: argparse.Namespace, closing: ExitStack) -> int:
    # Imported here so that the other commands do not pay for it.
    from container.operate.serving import PortTaken
    from container.platform.hosting.contract import Container
    from container.platform.hosting.figures import Figures
    from container.platform.hosting.fleet import Fleet
    from container.platform.hosting.front import InvokeServer
    from container.platform.hosting.instance import Instance
    from handler.stores import open_store
    from handler.stores.s3 import S3Settings

    disk_bytes = settings.size_bytes(chosen.disk)
    s3 = S3Settings(endpoint_url=chosen.s3_endpoint_url, max_connections=LOADERS)
    store = open_store(chosen.models, s3=s3)
    closing.callback(store.close)
    urls = chosen.container or _start_containers(chosen, closing)
    root = _root(chosen.root, closing)
    figures = Figures()
    executor = ThreadPoolExecutor(LOADERS * len(urls), thread_name_prefix="platform")
    instances = []
    for number, url in enumerate(urls):
        home = root / f"instance-{number}" if len(urls) > 1 else root
        home.mkdir(parents=True, exist_ok=True)
        container = Container(url)
        _wait_healthy(container)
        instances.append(
            Instance(
                f"instance {number}",
                container,
                store,
                home,
                figures,
                executor,
                disk_bytes=disk_bytes,
                is_cached=chosen.model_cache == "Enabled",
            )
        )
    fleet = Fleet(instances, figures, executor)
    closing.callback(fleet.close)
    try:
        server = InvokeServer(chosen.host, chosen.port, fleet)
    except OSError as error:
        raise PortTaken(chosen.port, error.strerror or str(error)) from error
    closing.callback(server.server_close)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    threading.Thread(target=server.serve_forever, name="invoke", daemon=True).start()
    url = f"http://{chosen.host}:{chosen.port}"
    say(READY, url, chosen.models, f"{len(urls)} x {', '.join(urls)}")
    say("next", f"mme invoke --url {url} --target KEY 1.0,2.0,3.0")
    stop.wait()
    server.shutdown()
    print(json.dumps(figures.to_dict()), flush=True)
    return Exit.OK


def _start_containers(chosen: argparse.Namespace, closing: ExitStack) -> list[str]:
    """Our own container, hosted, once for each instance. They start side by side."""
    from container.operate.serving import ServeChild, free_port

    children: list[ServeChild] = []
    urls = []
    port = FIRST_PORT
    for _ in range(chosen.instances):
        port = free_port(range(port, settings.PORT_LIMIT))
        memory = ["--memory", chosen.memory] if chosen.memory else []
        arguments = ["--hosted", "--port", str(port), "--host", "127.0.0.1", *memory]
        children.append(closing.enter_context(ServeChild(arguments, environments.container_environment())))
        urls.append(f"http://127.0.0.1:{port}")
        port += 1
    for child in children:
        child.wait_ready(START_S)
    return urls


def _root(given: Path | None, closing: ExitStack) -> Path:
    if given is not None:
        given.mkdir(parents=True, exist_ok=True)
        return given.resolve()
    made = Path(tempfile.mkdtemp(prefix="mme-platform-"))
    closing.callback(shutil.rmtree, made, ignore_errors=True)
    return made


def _wait_healthy(container: Container) -> None:
    """SageMaker pings until the first 200, then asks for the models, and gives a container up that cannot list them."""
    from container.platform.hosting.contract import ContainerGone, ContainerSlow

    deadline = time.monotonic() + START_S
    while not container.is_healthy():
        if time.monotonic() >= deadline:
            raise CommandFailed(f"{container.url} is not healthy after {START_S:.0f} s")
        time.sleep(PING_EVERY_S)
    try:
        list(container.loaded())
    except (ContainerGone, ContainerSlow) as error:
        raise CommandFailed(f"{container.url} is no multi-model container: {error}") from error
