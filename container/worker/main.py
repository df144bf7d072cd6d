"""The runtime process: the one place where the parts of serving meet."""

from __future__ import annotations

import gc
import logging
import signal
import socket
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from container.channel import Channel
from container.settings import Settings
from container.worker.bundles import Bundles
from container.worker.ceiling import WORKER_BYTES, model_ceiling
from container.worker.hosted import Hosted
from container.worker.management import Management
from container.worker.memory import Trimmer, container_limit, model_budget
from container.worker.quarantine import Quarantine
from container.worker.runtime import Runtime
from container.worker.watch import RELAY, PortTaken, Watch
from handler.cache import ModelCache
from handler.dispatch import CONTAINER, Dispatcher
from handler.errors import ServingError
from handler.loading import BundleLoader, ModelLoader
from handler.outputs import parse_outputs
from handler.predictor import HandlePool
from handler.stores import LocationInvalid, Store, open_store, parse_location
from handler.telemetry import LiveRecorder

log = logging.getLogger("mme.runtime")

# Of the workers, those that cold calls may never fill: they stay for models in memory.
HOT_SHARE = 0.25
# Hosted, each model's connection has a thread; scoring and reading bodies take 60 KB of a stack.
THREAD_STACK_BYTES = 512 * 1024
# Hosted, a load waits on the thread of its own connection and keeps nobody waiting.
MAX_HOSTED_LOADS = 100_000
# A thread that has just begun a long piece of Python holds the interpreter for at most this long.
SWITCH_INTERVAL_S = 0.001


def main() -> int:
    """argv: the descriptor of the channel to the supervisor. Ends when the channel does."""
    channel = Channel(socket.socket(fileno=int(sys.argv[1])))
    note = channel.receive()
    if note is None:
        return 0
    settings = Settings.from_json(note.value["settings"])
    logging.basicConfig(
        level=settings.log_level, stream=sys.stderr, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s"
    )
    # The supervisor decides when this process ends, and tells it through the channel.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with ExitStack() as closing:
        try:
            runtime = _build(settings, Path(note.value["io_dir"]), channel, closing)
        except (ServingError, LocationInvalid, PortTaken) as error:
            channel.send("refused", str(error))  # another start would fare no better
            return 1
        gc.freeze()  # what exists now stays; the collector need not look at it again
        runtime.serve()
    return 0


def _build(settings: Settings, io_dir: Path, channel: Channel, closing: ExitStack) -> Runtime:
    """Everything a request needs, each part given what it leans on; `closing` ends them in the reverse order."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    build = _build_hosted if settings.hosted else _build_standalone
    return build(settings, io_dir, channel, closing)


def _build_standalone(settings: Settings, io_dir: Path, channel: Channel, closing: ExitStack) -> Runtime:
    store = _open_store(settings)
    closing.callback(store.close)
    quarantine, trimmer, executor = _loading_parts(settings, closing)
    recorder = LiveRecorder(top_models=settings.top_models)
    watch = Watch(settings, recorder)
    closing.callback(watch.close)
    loader = ModelLoader(store, quarantine.examine, HandlePool(), n_threads=settings.workers)
    cache = ModelCache(
        budget_bytes=_budget(settings),
        prepare=loader.prepare,
        executor=executor,
        max_waiting=max(1, settings.workers - max(1, int(settings.workers * HOT_SHARE))),
        recorder=recorder,
        on_freed=trimmer.freed,
    )
    closing.callback(cache.close)
    dispatcher = Dispatcher(
        cache,
        recorder,
        watch.journal,
        wait_s=settings.wait_s,
        default_outputs=parse_outputs(settings.outputs),
        one_line=settings.csv_one_line,
    )
    runtime = Runtime(channel, answer=dispatcher.answer, io_dir=io_dir, max_frame_bytes=settings.max_frame_bytes)
    watch.start(cache, runtime.reasons_not_ready, io_dir / RELAY)
    return runtime


def _build_hosted(settings: Settings, io_dir: Path, channel: Channel, closing: ExitStack) -> Runtime:
    threading.stack_size(THREAD_STACK_BYTES)  # one for each model
    quarantine, trimmer, executor = _loading_parts(settings, closing)
    recorder = LiveRecorder(top_models=settings.top_models)
    watch = Watch(settings, recorder)
    closing.callback(watch.close)
    management = Management(settings.host, settings.port)
    bundles = Bundles(quarantine, management, unpacked=io_dir)
    loader = BundleLoader(bundles.examine, HandlePool(), worker_bytes=WORKER_BYTES)
    hosted = Hosted(
        prepare=lambda load: loader.prepare(bundles.path_of(load)),
        management=management,
        trim=trimmer.trim_now,
        max_models=_max_models(settings),
    )
    cache = ModelCache(
        budget_bytes=_budget(settings),
        prepare=hosted.prepare,
        executor=executor,
        max_waiting=MAX_HOSTED_LOADS,
        recorder=recorder,
        room_wait_s=0.0,  # the platform makes room when it is told that there is none
    )
    closing.callback(cache.close)
    dispatcher = Dispatcher(
        cache,
        recorder,
        watch.journal,
        wait_s=settings.wait_s,
        framing=CONTAINER,
        default_outputs=parse_outputs(settings.outputs),
        one_line=settings.csv_one_line,
    )
    hosted.open(cache, dispatcher.answer)
    runtime = Runtime(
        channel,
        answer=dispatcher.answer,
        io_dir=io_dir,
        max_frame_bytes=settings.max_frame_bytes,
        hosted=hosted,
    )
    watch.start(cache, runtime.reasons_not_ready, io_dir / RELAY)
    return runtime


def _loading_parts(settings: Settings, closing: ExitStack) -> tuple[Quarantine, Trimmer, ThreadPoolExecutor]:
    quarantine = Quarantine(settings.loaders, ignore_code=settings.ignore_code)
    quarantine.start()
    closing.callback(quarantine.close)
    trimmer = Trimmer()
    closing.callback(trimmer.close)
    executor = ThreadPoolExecutor(settings.loaders, thread_name_prefix="loader")
    closing.callback(executor.shutdown, wait=False, cancel_futures=True)
    return quarantine, trimmer, executor


def _max_models(settings: Settings) -> int:
    if settings.max_models is not None:
        log.info("models at once: %d, as set", settings.max_models)
        return settings.max_models
    ceiling = model_ceiling(settings.jvm_heap_bytes)
    log.info("models at once: %d, %s", ceiling.n_models, ceiling.source)
    return ceiling.n_models


def _open_store(settings: Settings) -> Store:
    if isinstance(parse_location(settings.models), Path):
        return open_store(settings.models, max_artifact_bytes=settings.max_artifact_bytes)
    from handler.stores.s3 import S3Settings, S3Store

    store = open_store(
        settings.models,
        max_artifact_bytes=settings.max_artifact_bytes,
        s3=S3Settings(endpoint_url=settings.endpoint_url, max_connections=settings.loaders),
    )
    assert isinstance(store, S3Store)
    store.connect()
    return store


def _budget(settings: Settings) -> int:
    if settings.memory_bytes is not None:
        log.info("memory for models: %d bytes, as set", settings.memory_bytes)
        return settings.memory_bytes
    limit = container_limit()
    budget = model_budget(limit.n_bytes, settings.jvm_heap_bytes + settings.jvm_direct_bytes)
    log.info("memory for models: %d bytes of the %d that %s allows", budget, limit.n_bytes, limit.source)
    return budget


if __name__ == "__main__":
    sys.exit(main())
