"""`mme platform --models LOC`: one multi-model endpoint, there from the start, in front of our container or any other."""

from __future__ import annotations

import argparse
import json
import shutil
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
from container.operate.stopping import stop_event

if TYPE_CHECKING:
    from container.platform.hosting.contract import Container

START_S = 480.0  # SageMaker's window for a container's first healthy ping
PING_EVERY_S = 0.5
DISK = "30GiB"
LOADERS = 8  # downloads and loads at the same time, on each instance


def run(chosen: argparse.Namespace, closing: ExitStack) -> int:
    """Until a signal. Raises CommandFailed, LocationInvalid, ValueError."""
    # Imported here so that the other commands do not pay for it.
    from container.operate.serving import PortTaken
    from container.platform.hosting.contract import Container
    from container.platform.hosting.figures import Figures
    from container.platform.hosting.fleet import Fleet
    from container.platform.hosting.front import InvokeServer
    from container.platform.hosting.instance import Instance
    from handler.stores import open_store
    from handler.stores.s3 import S3Settings

    disk_bytes = settings.size_bytes(chosen.disk or DISK)
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
                is_cached=chosen.model_cache != "Disabled",
            )
        )
    fleet = Fleet(instances, figures, executor)
    closing.callback(fleet.close)
    try:
        server = InvokeServer(chosen.host, chosen.port, fleet)
    except OSError as error:
        raise PortTaken(chosen.port, error.strerror or str(error)) from error
    closing.callback(server.server_close)
    stop = closing.enter_context(stop_event(is_last=True))
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
    from container.operate.serving import ServeChild, ports_for_children

    children: list[ServeChild] = []
    urls = []
    for port in ports_for_children(1 if chosen.instances is None else chosen.instances):
        memory = ["--memory", chosen.memory] if chosen.memory else []
        arguments = ["--hosted", "--port", str(port), "--host", "127.0.0.1", *memory]
        children.append(closing.enter_context(ServeChild(arguments, environments.container_environment())))
        urls.append(f"http://127.0.0.1:{port}")
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
