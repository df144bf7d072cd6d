"""The runtime process: the one place where the parts of serving meet."""

from __future__ import annotations

import gc
import importlib
import logging
import signal
import socket
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from container.examine.quarantine import Quarantine
from container.limits.capacity import OF_DOOR, OF_STUBS, Cost, model_capacity
from container.limits.cores import container_cores
from container.limits.memory import Trimmer, allocated_bytes, container_limit, model_budget
from container.link.channel import Channel
from container.settings import Settings
from container.worker.guard import MemoryGuard
from container.worker.hosted.bundles import Bundles
from container.worker.hosted.leases import Hosted
from container.worker.hosted.management import Management
from container.worker.preload import Preload
from container.worker.runtime import Runtime
from container.worker.watch import RELAY, Watch
from handler.cache.model_cache import ModelCache
from handler.dispatch import Dispatcher
from handler.errors import ServingError, StartRefused
from handler.faults import CONTAINER
from handler.forest import walker
from handler.forest.booster_pool import BoosterPool
from handler.forest.packed import document_of
from handler.hooks.module import Hooks, load_hooks
from handler.hooks.scoring import HookedScoring, ObjectMaker
from handler.loading.admission import Admission
from handler.loading.disk_cache import DiskCache, DiskCacheUnusable
from handler.loading.loader import BundleLoader, ModelLoader, PreparedModel
from handler.loading.pacing import Pacer
from handler.outputs import parse_outputs
from handler.patterns import Patterns
from handler.predictor import HandlePool
from handler.revalidation.revalidator import Revalidator
from handler.revalidation.sweeper import Sweeper
from handler.scoring import PlainScoring, Scoring
from handler.stores import Store, open_store, parse_location
from handler.stores.monitored import MonitoredStore
from handler.telemetry.recorder import LiveRecorder

log = logging.getLogger("mme.runtime")

# Of the workers, those that cold calls may never fill: they stay for models in memory.
HOT_SHARE = 0.25
# Hosted, each model's connection has a thread; scoring and reading bodies take 60 KB of a stack.
THREAD_STACK_BYTES = 512 * 1024
# Hosted, a load waits on the thread of its own connection and keeps nobody waiting.
MAX_HOSTED_LOADS = 100_000
# A thread that has just begun a long piece of Python holds the interpreter for at most this long.
SWITCH_INTERVAL_S = 0.0001


@dataclass(frozen=True, slots=True)
class Launch:
    """What the supervisor tells a runtime besides the settings.

    io_dir       MMS's temp directory
    has_served   another runtime of this endpoint has answered requests before
    has_door     hosted mode's own server is in front, and there are no stubs
    """

    io_dir: Path
    has_served: bool
    has_door: bool


def main() -> int:
    """argv: the descriptor of the channel to the supervisor. Ends when the channel does."""
    channel = Channel(socket.socket(fileno=int(sys.argv[1])))
    note = channel.receive()
    if note is None:
        return 0
    settings = Settings.from_json(note.value["settings"])
    logging.basicConfig(
        level=settings.front.log_level, stream=sys.stderr, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s"
    )
    # The supervisor decides when this process ends, and tells it through the channel.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    launch = Launch(Path(note.value["io_dir"]), note.value["has_served"], note.value["has_door"])
    with ExitStack() as closing:
        try:
            runtime = _build(settings, launch, channel, closing)
        except (ServingError, StartRefused) as error:
            channel.send("refused", str(error))  # another start would fare no better
            return 1
        gc.freeze()  # what exists now stays; the collector need not look at it again
        runtime.serve()
    return 0


def _build(settings: Settings, launch: Launch, channel: Channel, closing: ExitStack) -> Runtime:
    """Everything a request needs, each part given what it leans on; `closing` ends them in the reverse order."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    hooks = _load_hooks(settings)
    if settings.front.hosted:
        runtime = _build_hosted(settings, launch, channel, closing, hooks)
    else:
        runtime = _build_standalone(settings, launch, channel, closing, hooks)
    if hooks is not None:  # they may print; stdout is for metrics, which have it by now
        closing.enter_context(redirect_stdout(sys.stderr))
    return runtime


def _build_standalone(
    settings: Settings, launch: Launch, channel: Channel, closing: ExitStack, hooks: Hooks | None
) -> Runtime:
    io_dir = launch.io_dir
    recorder = LiveRecorder(top_models=settings.metrics.top_models)
    store = MonitoredStore(_open_store(settings), recorder)
    closing.callback(store.close)
    quarantine, trimmer, executor = _loading_parts(settings, closing, _n_preforked(settings), hooks)
    watch = Watch(settings, recorder)
    closing.callback(watch.close)
    disk_cache = _open_disk_cache(settings, quarantine, closing)
    n_threads = settings.front.workers + 1  # the pool, and the one that answers at once
    boosters = _natives(quarantine)
    pacer = Pacer(lambda: cache.n_hits, container_cores())
    loader = ModelLoader(
        store, quarantine.examine, boosters, n_threads=n_threads, disk_cache=disk_cache, pace=pacer.wait
    )
    hook = _hooker(hooks, io_dir)

    def prepare_if_changed(target: str, version: str) -> PreparedModel | None:
        prepared = loader.prepare_if_changed(target, version)
        return None if prepared is None else hook(target, prepared)

    fitting = Admission(
        lambda target: hook(target, loader.prepare(target)),
        prepare_if_changed,
        lambda target: cache.room_bytes(target),  # noqa: PLW0108  there is no cache yet
    )
    cache = ModelCache(
        budget_bytes=_budget(settings),
        prepare=fitting.prepare,
        executor=executor,
        max_waiting=max(1, settings.front.workers - max(1, int(settings.front.workers * HOT_SHARE))),
        recorder=recorder,
        refused=lambda target: loader.refused(target) or fitting.refused(target),
        on_freed=trimmer.freed,
        give_up=boosters.give_up,
        is_pinned=Patterns.parse(settings.memory.pin).match,
        min_residence_s=settings.memory.min_residence_s,
    )
    closing.callback(cache.close)
    boosters.room = cache
    guard = MemoryGuard(cache, container_limit(), trim=trimmer.trim_now, recorder=recorder)
    guard.start()
    closing.callback(guard.close)
    if settings.artifacts.max_age_s:
        n_checkers = _n_checkers(settings)
        checkers = ThreadPoolExecutor(n_checkers, thread_name_prefix="checker")
        closing.callback(checkers.shutdown, wait=False, cancel_futures=True)
        revalidator = Revalidator(cache, fitting.prepare_if_changed, checkers, recorder)
        cache.ages.watch(settings.artifacts.max_age_s, revalidator.look)
        sweeper = Sweeper(
            cache.ages,
            store,
            revalidator.check,
            loader.confirmed,
            checkers,
            max_age_s=settings.artifacts.max_age_s,
            n_at_once=n_checkers,
        )
        sweeper.start()
        closing.callback(sweeper.close)
    dispatcher = Dispatcher(
        cache,
        recorder,
        watch.journal,
        wait_s=settings.front.wait_s,
        default_outputs=parse_outputs(settings.answers.outputs),
        scoring=_scoring(settings, hooks),
    )
    pool = ThreadPoolExecutor(settings.front.workers, thread_name_prefix="connection")
    closing.callback(pool.shutdown, wait=False, cancel_futures=True)
    runtime = Runtime(
        channel,
        answer=dispatcher.answer,
        answer_at_once=dispatcher.answer_at_once,
        pool=pool,
        io_dir=io_dir,
        max_frame_bytes=settings.front.max_frame_bytes,
    )
    preload = _preload(settings, cache, store, channel, closing)

    def reasons_not_ready() -> list[str]:
        # Once it has served it goes on serving: what a new runtime after a crash has not loaded yet is merely cold.
        is_waiting = preload is not None and not preload.is_done and not launch.has_served
        return [*runtime.reasons_not_ready(), *(["preloading models"] if is_waiting else [])]

    watch.start(cache, reasons_not_ready, io_dir / RELAY)
    return runtime


def _open_disk_cache(settings: Settings, quarantine: Quarantine, closing: ExitStack) -> DiskCache | None:
    if settings.artifacts.disk_dir is None:
        return None
    maker = f"{quarantine.fingerprint()}, from {settings.artifacts.endpoint_url or 'S3'}"
    try:
        disk_cache = DiskCache(Path(settings.artifacts.disk_dir), max_bytes=settings.artifacts.disk_bytes, maker=maker)
    except DiskCacheUnusable as error:
        log.warning("models are not kept on disk: %s", error)
        return None
    closing.callback(disk_cache.close)
    log.info("%d models of %d bytes are kept in %s", len(disk_cache), disk_cache.n_bytes, settings.artifacts.disk_dir)
    return disk_cache


def _preload(
    settings: Settings, cache: ModelCache, store: Store, channel: Channel, closing: ExitStack
) -> Preload | None:
    pinned, preloaded = Patterns.parse(settings.memory.pin), Patterns.parse(settings.memory.preload)
    if not (pinned or preloaded):
        return None
    preload = Preload(
        cache,
        store,
        pinned=pinned,
        preloaded=preloaded,
        n_threads=settings.memory.loaders,
        on_done=lambda: channel.send("preloaded"),
    )
    channel.send("preloading")
    preload.start()
    closing.callback(preload.close)
    return preload


def _n_checkers(settings: Settings) -> int:
    """Threads that compare models in memory with their artifacts. With half as many as load, 20 models overwritten five
    times a second each were up to 3.7 s behind at a max age of 1 s."""
    return settings.memory.loaders


def _n_preforked(settings: Settings) -> int:
    """Artifacts examined at the same time. Few checks find anything to examine; when many do, they take turns."""
    return settings.memory.loaders + max(1, settings.memory.loaders // 2)


def _build_hosted(
    settings: Settings, launch: Launch, channel: Channel, closing: ExitStack, hooks: Hooks | None
) -> Runtime:
    io_dir, cost = launch.io_dir, OF_DOOR if launch.has_door else OF_STUBS
    threading.stack_size(THREAD_STACK_BYTES)  # one for each model
    quarantine, trimmer, executor = _loading_parts(settings, closing, settings.memory.loaders, hooks)
    recorder = LiveRecorder(top_models=settings.metrics.top_models)
    watch = Watch(settings, recorder)
    closing.callback(watch.close)
    management = Management(settings.front.host, settings.front.port)
    bundles = Bundles(quarantine, management, unpacked=io_dir)
    boosters = _natives(quarantine)
    loader = BundleLoader(bundles.examine, boosters, worker_bytes=cost.worker_bytes)
    hook = _hooker(hooks, io_dir)
    hosted = Hosted(
        prepare=lambda load: hook(load.model_name, loader.prepare(bundles.path_of(load))),
        management=management,
        trim=trimmer.trim_now,
        max_models=_max_models(settings, cost),
    )
    cache = ModelCache(
        budget_bytes=_budget(settings),
        prepare=hosted.prepare,
        executor=executor,
        max_waiting=MAX_HOSTED_LOADS,
        recorder=recorder,
        give_up=boosters.give_up,
        on_freed=trimmer.freed,  # again, a moment after an unload: its thread has ended by then
        room_wait_s=0.0,  # the platform makes room when it is told that there is none
    )
    closing.callback(cache.close)
    boosters.room = cache
    dispatcher = Dispatcher(
        cache,
        recorder,
        watch.journal,
        wait_s=settings.front.wait_s,
        framing=CONTAINER,
        default_outputs=parse_outputs(settings.answers.outputs),
        scoring=_scoring(settings, hooks),
    )
    hosted.open(cache, dispatcher.answer)
    runtime = Runtime(
        channel,
        answer=dispatcher.answer,
        io_dir=io_dir,
        max_frame_bytes=settings.front.max_frame_bytes,
        hosted=hosted,
    )
    watch.start(cache, runtime.reasons_not_ready, io_dir / RELAY)
    return runtime


def _loading_parts(
    settings: Settings, closing: ExitStack, n_preforked: int, hooks: Hooks | None
) -> tuple[Quarantine, Trimmer, ThreadPoolExecutor]:
    as_boosters = hooks is not None and hooks.needs_objects
    quarantine = Quarantine(n_preforked, ignore_code=settings.artifacts.ignore_code, as_boosters=as_boosters)
    quarantine.start()
    closing.callback(quarantine.close)
    trimmer = Trimmer()
    closing.callback(trimmer.close)
    executor = ThreadPoolExecutor(settings.memory.loaders, thread_name_prefix="loader")
    closing.callback(executor.shutdown, wait=False, cancel_futures=True)
    return quarantine, trimmer, executor


def _natives(quarantine: Quarantine) -> BoosterPool:
    if not walker.is_available():
        log.info("no walker was compiled here: libxgboost scores all models")
    return BoosterPool(HandlePool(), lambda forest: quarantine.booster_of(document_of(forest)))


def _max_models(settings: Settings, cost: Cost) -> int:
    if settings.front.max_models is not None:
        log.info("models at once: %d, as set", settings.front.max_models)
        return settings.front.max_models
    capacity = model_capacity(cost, settings.front.jvm_heap_bytes)
    log.info("models at once: %d, %s", capacity.n_models, capacity.source)
    return capacity.n_models


def _load_hooks(settings: Settings) -> Hooks | None:
    if settings.answers.hooks_program is None:
        return None
    with redirect_stdout(sys.stderr):
        hooks = load_hooks(settings.answers.hooks_program, settings.answers.hooks_directory)
    log.info("hooks: %s of %s", ", ".join(hooks.names), settings.answers.hooks_program)
    if hooks.needs_objects:
        importlib.import_module("xgboost")  # half a second and 40 MB, which the first request need not wait for
    return hooks


def _scoring(settings: Settings, hooks: Hooks | None) -> Scoring:
    if hooks is None:
        return PlainScoring(one_line=settings.answers.csv_one_line)
    return HookedScoring(hooks, one_line=settings.answers.csv_one_line)


def _hooker(hooks: Hooks | None, scratch: Path) -> Callable[[str, PreparedModel], PreparedModel]:
    """What gives a prepared model the object that hooks are to see; nothing for hooks that see none."""
    if hooks is None or not hooks.needs_objects:
        return lambda _, prepared: prepared
    return ObjectMaker(hooks, scratch, allocated_bytes).hook


def _open_store(settings: Settings) -> Store:
    if isinstance(parse_location(settings.artifacts.models), Path):
        return open_store(settings.artifacts.models, max_artifact_bytes=settings.artifacts.max_artifact_bytes)
    from handler.stores.s3 import S3Settings, S3Store

    store = open_store(
        settings.artifacts.models,
        max_artifact_bytes=settings.artifacts.max_artifact_bytes,
        s3=S3Settings(
            endpoint_url=settings.artifacts.endpoint_url,
            max_connections=settings.memory.loaders + _n_checkers(settings),
        ),
    )
    assert isinstance(store, S3Store)
    store.connect()
    return store


def _budget(settings: Settings) -> int:
    if settings.memory.memory_bytes is not None:
        log.info("memory for models: %d bytes, as set", settings.memory.memory_bytes)
        return settings.memory.memory_bytes
    limit = container_limit()
    budget = model_budget(limit.n_bytes, settings.front.jvm_heap_bytes + settings.front.jvm_direct_bytes)
    log.info("memory for models: %d bytes of the %d that %s allows", budget, limit.n_bytes, limit.source)
    return budget


if __name__ == "__main__":
    sys.exit(main())
