"""The runtime process: what is assembled for its mode, served until the supervisor's channel ends."""

from __future__ import annotations

import gc
import logging
import signal
import socket
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from container import assembly
from container.assembly import LoadingParts, Models
from container.capture.capture import Capture, Wanted
from container.capture.room import room_of
from container.limits import libc
from container.limits.capacity import OF_MODEL, model_capacity
from container.limits.memory import container_limit
from container.link import wire
from container.link.channel import Channel
from container.link.spool import Spool
from container.log_stream import take_over_stderr
from container.settings import Settings
from container.traces.spans import Traces
from container.worker.guard import MemoryGuard
from container.worker.hosted.bundles import Bundles
from container.worker.hosted.leases import Hosted
from container.worker.hosted.management import Management
from container.worker.hosted.renewal import HeldModels, Renewal, versioned
from container.worker.notes import Notes
from container.worker.preload import Preload
from container.worker.runtime import Runtime
from container.worker.warm import Place, WarmList
from container.worker.watch import RELAY, Watch
from handler.cache.model_cache import ModelCache
from handler.dispatch import SMALL_ROWS_BYTES, TARGET_HEADER, BothTaps, Dispatcher, Tap
from handler.errors import ServingError, StartRefused
from handler.hooks.module import Hooks
from handler.loading.loader import BundleLoader, PreparedModel
from handler.messages import Answer, Request
from handler.outputs import parse_outputs
from handler.patterns import Patterns
from handler.scoring import parse_iterations
from handler.stores.location import LocationInvalid, beside
from handler.stores.writing import WritingStore, open_writing_store
from handler.telemetry.recorder import LiveRecorder

log = logging.getLogger("mme.runtime")

# Hosted, each model's connection has a thread; scoring and reading bodies take 60 KB of a stack.
THREAD_STACK_BYTES = 512 * 1024
# Hosted, a load waits on the thread of its own connection and keeps nobody waiting.
MAX_HOSTED_LOADS = 100_000
# A thread that has just begun a long piece of Python holds the interpreter for at most this long, as soon as there are
# callers; before, handing it round so often costs the threads that load a third more of the processor.
SWITCH_INTERVAL_S = 0.0001


@dataclass(frozen=True, slots=True)
class Launch:
    """What the supervisor tells a runtime besides the settings.

    io_dir       MMS's temp directory
    has_served   another runtime of this endpoint has answered requests before
    spool_dir    where large bodies and answers are; None where the front end knows of no files
    """

    io_dir: Path
    has_served: bool
    spool_dir: Path | None

    def spool(self, settings: Settings) -> Spool | None:
        return None if self.spool_dir is None else Spool(self.spool_dir, settings.front.max_body_bytes)


def main() -> int:
    """argv: the descriptor of the channel to the supervisor. Ends when the channel does."""
    channel = Channel(socket.socket(fileno=int(sys.argv[1])))
    note = channel.receive()
    if note is None:
        return 0
    settings = Settings.from_json(note.value["settings"])
    take_over_stderr()
    logging.basicConfig(
        level=settings.front.log_level, stream=sys.stderr, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s"
    )
    # The supervisor decides when this process ends, and tells it through the channel.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    spool_dir = note.value["spool_dir"]
    launch = Launch(Path(note.value["io_dir"]), note.value["has_served"], spool_dir and Path(spool_dir))
    with ExitStack() as closing:
        try:
            runtime = _build(settings, launch, channel, closing)
        except (ServingError, StartRefused) as error:
            channel.send("refused", str(error))  # another start would fare no better
            return 1
        gc.freeze()  # what exists now stays; the collector need not look at it again
        libc.take_short_turns(0)
        runtime.serve()
    return 0


def _build(settings: Settings, launch: Launch, channel: Channel, closing: ExitStack) -> Runtime:
    """Everything a request needs; `closing` ends it in the reverse order."""
    hooks = assembly.load_endpoint_hooks(settings)
    build = _build_hosted if settings.front.hosted else _build_standalone
    runtime = build(settings, launch, channel, closing, hooks)
    if hooks is not None:  # they may print; stdout is for metrics, which have it by now
        closing.enter_context(redirect_stdout(sys.stderr))
    return runtime


def _build_standalone(
    settings: Settings, launch: Launch, channel: Channel, closing: ExitStack, hooks: Hooks | None
) -> Runtime:
    recorder, watch = _watched(settings, closing)
    models = assembly.models_of_store(settings, recorder, closing, hooks=hooks, scratch=launch.io_dir)
    guard = MemoryGuard(models.cache, container_limit(), trim=models.parts.trimmer.trim_now, recorder=recorder)
    guard.start()
    closing.callback(guard.close)
    dispatcher = _dispatcher(settings, models.cache, recorder, watch, hooks, closing)
    pool = ThreadPoolExecutor(settings.front.workers, thread_name_prefix="connection")
    closing.callback(pool.shutdown, wait=False, cancel_futures=True)
    runtime = Runtime(
        channel,
        answer=dispatcher.answer,
        answer_at_once=dispatcher.answer_at_once,
        notes=Notes(recorder, watch.journal),
        answer_on_lane=None if dispatcher.is_slow else dispatcher.answer_if_warm,
        lane_body_bytes=SMALL_ROWS_BYTES,
        pool=pool,
        n_threads=settings.front.workers,
        io_dir=launch.io_dir,
        max_frame_bytes=settings.front.max_frame_bytes,
        spool=launch.spool(settings),
    )
    preload = _preload(settings, models, launch, channel, closing)
    if preload is None or launch.has_served:
        sys.setswitchinterval(SWITCH_INTERVAL_S)

    def reasons_not_ready() -> list[str]:
        # Once it has served it goes on serving: what a new runtime after a crash has not loaded yet is merely cold.
        is_waiting = preload is not None and not preload.is_done and not launch.has_served
        return [*runtime.reasons_not_ready(), *(["preloading models"] if is_waiting else [])]

    watch.start(models.cache, reasons_not_ready, launch.io_dir / RELAY)
    return runtime


def _preload(
    settings: Settings, models: Models, launch: Launch, channel: Channel, closing: ExitStack
) -> Preload | None:
    pinned, preloaded = Patterns.parse(settings.memory.pin), Patterns.parse(settings.memory.preload)
    warm = _warm_list(settings, models.cache)
    if not (pinned or preloaded or warm):
        return None
    loaders = settings.memory.loaders

    def end() -> None:
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        channel.send("preloaded")

    preload = Preload(
        models.cache,
        models.store,
        pinned=pinned,
        preloaded=preloaded,
        warm=() if warm is None else warm.targets(),
        n_threads=loaders,
        # Beside calls, which there are after a crash, loads take turns.
        n_small=loaders if launch.has_served else assembly.AT_START_PER_LOADER * loaders,
        is_small=(lambda _: False) if warm is None else warm.is_small,
        on_done=end,
    )
    if warm is not None:
        warm.start()
        closing.callback(warm.close)
    channel.send("preloading")
    preload.start()
    closing.callback(preload.close)
    return preload


def _warm_list(settings: Settings, cache: ModelCache) -> WarmList | None:
    """Raises LocationInvalid."""
    memory = settings.memory
    if not memory.warm:
        return None
    where = beside(settings.artifacts.models, ".warm") if memory.warm == "beside" else memory.warm

    return WarmList(
        lambda: _writing_store(settings, where),
        Place(settings.metrics.endpoint_name, settings.metrics.replica or socket.gethostname()),
        cache,
        max_models=memory.warm_models,
        interval_s=memory.warm_interval_s,
    )


def _build_hosted(
    settings: Settings, launch: Launch, channel: Channel, closing: ExitStack, hooks: Hooks | None
) -> Runtime:
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    threading.stack_size(THREAD_STACK_BYTES)  # one for each model
    recorder, watch = _watched(settings, closing)
    parts = assembly.loading_parts(
        settings, closing, n_preforked=settings.memory.loaders, hooks=hooks, scratch=launch.io_dir
    )
    management = Management(settings.front.host, settings.front.port)
    bundles = Bundles(parts.quarantine, management, launch.io_dir, max_bytes=settings.artifacts.max_artifact_bytes)
    loader = BundleLoader(
        bundles.examine,
        parts.boosters,
        OF_MODEL.worker_bytes,
        parts.crew,
        is_first_fold_only=settings.answers.folds == "first",
    )
    renewal = _renewal(settings, recorder, closing, parts)

    def prepare(load: wire.Load) -> PreparedModel:
        prepared = loader.prepare(bundles.path_of(load))
        return parts.hook(load.model_name, prepared if renewal is None else versioned(prepared))

    hosted = Hosted(prepare=prepare, trim=parts.trimmer.trim_now, max_models=_max_models(settings), renewal=renewal)
    cache = ModelCache(
        budget_bytes=assembly.memory_for_models(settings),
        prepare=hosted.prepare,
        executor=parts.executor,
        max_waiting=MAX_HOSTED_LOADS,
        recorder=recorder,
        give_up=parts.boosters.give_up,
        on_freed=parts.trimmer.freed,  # again, a moment after an unload: its thread has ended by then
        room_wait_s=0.0,  # the platform makes room when it is told that there is none
        is_pinned=lambda _: renewal is not None,  # one that was renewed is here before its connection holds it
    )
    closing.callback(cache.close)
    if renewal is not None:
        held = HeldModels(cache)
        assembly.keep_new(settings, recorder, closing, held, cache.ages, renewal.prepare_if_changed, None)
    parts.boosters.room = cache
    dispatcher = _dispatcher(settings, cache, recorder, watch, hooks, closing)
    hosted.open(cache, dispatcher.answer)

    def answer_on_lane(request: Request) -> Answer | None:
        own = hosted.named(request.headers.get(TARGET_HEADER, ""))
        return None if own is None else dispatcher.answer_if_warm(request, own)

    runtime = Runtime(
        channel,
        answer=dispatcher.answer,
        notes=Notes(recorder, watch.journal),
        answer_on_lane=None if dispatcher.is_slow else answer_on_lane,
        lane_body_bytes=SMALL_ROWS_BYTES,
        io_dir=launch.io_dir,
        max_frame_bytes=settings.front.max_frame_bytes,
        spool=launch.spool(settings),
        hosted=hosted,
    )
    watch.start(cache, runtime.reasons_not_ready, launch.io_dir / RELAY)
    return runtime


def _renewal(settings: Settings, recorder: LiveRecorder, closing: ExitStack, parts: LoadingParts) -> Renewal | None:
    if not settings.artifacts.models or not settings.artifacts.max_age_s:
        return None
    loader = assembly.loader_of_prefix(settings, recorder, closing, parts)
    return Renewal(loader, extra_bytes=OF_MODEL.worker_bytes, hook=parts.hook)


def _watched(settings: Settings, closing: ExitStack) -> tuple[LiveRecorder, Watch]:
    recorder = LiveRecorder(top_models=settings.metrics.top_models)
    watch = Watch(settings, recorder)
    closing.callback(watch.close)
    return recorder, watch


def _dispatcher(
    settings: Settings,
    cache: ModelCache,
    recorder: LiveRecorder,
    watch: Watch,
    hooks: Hooks | None,
    closing: ExitStack,
) -> Dispatcher:
    return Dispatcher(
        cache,
        recorder,
        watch.journal,
        wait_s=settings.front.wait_s,
        framing=assembly.framing_of(settings),
        default_outputs=parse_outputs(settings.answers.outputs),
        default_iterations=parse_iterations(settings.answers.iterations) if settings.answers.iterations else None,
        scoring=assembly.scoring_of(settings, hooks, cache),
        fallback=settings.answers.fallback,
        tap=_tap(settings, recorder, closing),
        max_answer_bytes=settings.front.max_body_bytes,
    )


def _tap(settings: Settings, recorder: LiveRecorder, closing: ExitStack) -> Tap | None:
    """Who is handed whole calls. Raises StartRefused."""
    capture, traces = _capture(settings, recorder, closing), _traces(settings, recorder, closing)
    if capture is not None and traces is not None:
        return BothTaps(capture, traces)
    return capture or traces


def _traces(settings: Settings, recorder: LiveRecorder, closing: ExitStack) -> Traces | None:
    chosen = settings.metrics
    if chosen.otlp is None:
        return None
    instance = chosen.replica or socket.gethostname()
    traces = Traces(chosen.otlp, chosen.otlp_share, recorder, service=chosen.endpoint_name, instance=instance)
    closing.callback(traces.close)
    return traces


def _capture(settings: Settings, recorder: LiveRecorder, closing: ExitStack) -> Capture | None:
    """Raises LocationInvalid."""
    chosen = settings.metrics
    if chosen.capture is None:
        return None
    store = _writing_store(settings, chosen.capture)
    capture = Capture(
        lambda: store,
        Wanted(chosen.capture_share, Patterns.parse(chosen.capture_models), chosen.capture_errors),
        recorder,
        endpoint=chosen.endpoint_name,
        variant=chosen.variant_name,
        max_bytes=chosen.capture_bytes,
        interval_s=chosen.capture_interval_s,
        has_room=room_of(chosen.capture),
    )
    closing.callback(capture.close)
    return capture


def _writing_store(settings: Settings, where: str) -> WritingStore:
    s3 = None
    if where.startswith("s3://"):
        from handler.stores.s3 import S3Settings

        s3 = S3Settings(endpoint_url=settings.artifacts.endpoint_url, max_connections=1, max_attempts=2)
    try:
        return open_writing_store(where, s3=s3, makes=True)
    except OSError as error:
        raise LocationInvalid(where, f"cannot be made: {error.strerror}") from error


def _max_models(settings: Settings) -> int:
    if settings.front.max_models is not None:
        log.info("models at once: %d, as set", settings.front.max_models)
        return settings.front.max_models
    capacity = model_capacity(OF_MODEL, settings.front.jvm_heap_bytes)
    log.info("models at once: %d, %s", capacity.n_models, capacity.source)
    return capacity.n_models


if __name__ == "__main__":
    sys.exit(main())
