"""From settings to models ready to score: store, examination, loading, cache, revalidation.

Rule: parts are put together here and nowhere else. Each is handed what it leans on, and the caller hands over
the `ExitStack` that closes them in the reverse order.
"""

from __future__ import annotations

import importlib
import logging
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path

from container.examine.quarantine import Quarantine
from container.limits.cores import container_cores
from container.limits.libc import allocated_bytes
from container.limits.malloc import Trimmer
from container.limits.memory import container_limit, model_budget
from container.settings import Settings
from handler.archives.limits import Limits
from handler.bounds import Bounds, Room
from handler.cache.ages import Ages
from handler.cache.model_cache import ModelCache
from handler.error_responses import CONTAINER, SAGEMAKER, Framing, like_aws
from handler.forest import walker
from handler.forest.booster_pool import BoosterPool
from handler.forest.packed import document_of
from handler.hooks.module import Hooks, load_hooks
from handler.hooks.scoring import HookedScoring, ObjectMaker
from handler.loading.admission import Admission
from handler.loading.disk_cache import DiskCache, DiskCacheUnusable
from handler.loading.loader import ModelLoader, PreparedModel
from handler.loading.pacing import Pacer
from handler.patterns import Patterns
from handler.payload import AWS, OURS, Conventions
from handler.predictor import HandlePool
from handler.revalidation.revalidator import Replacing, Revalidator
from handler.revalidation.sweeper import Sweeper
from handler.scoring import PlainScoring, Scoring
from handler.stores import Store, open_store, parse_location
from handler.stores.monitored import MonitoredStore
from handler.telemetry.recorder import Recorder

log = logging.getLogger("mme.runtime")

# Of the workers, those that cold calls may never fill: they stay for models in memory.
HOT_SHARE = 0.25
# Models loaded at the same time for each loader while a start preloads what is known to be small.
AT_START_PER_LOADER = 4
# Loads under way and in line for each loader, from which on a caller who is turned away begins no other.
LINE_PER_LOADER = 4


@dataclass(frozen=True, slots=True)
class LoadingParts:
    """What both modes load models with.

    executor   runs the loads
    boosters   native boosters, for what the walker does not say and for what is no forest
    crew       the container's cores, for one large body at a time
    hook       gives a prepared model the object that hooks are to see; nothing for hooks that see none
    """

    quarantine: Quarantine
    trimmer: Trimmer
    executor: ThreadPoolExecutor
    boosters: BoosterPool
    crew: walker.Crew
    hook: Callable[[str, PreparedModel], PreparedModel]


@dataclass(frozen=True, slots=True)
class Models:
    """Models of a store, ready to be borrowed."""

    cache: ModelCache
    store: Store
    loader: ModelLoader
    parts: LoadingParts


def loading_parts(
    settings: Settings,
    closing: ExitStack,
    *,
    n_preforked: int,
    hooks: Hooks | None,
    scratch: Path,
    is_ready_at_once: bool = True,
) -> LoadingParts:
    """scratch: where model_fn's directory may be made. is_ready_at_once: the examiner starts now and not when it is asked,
    which it may never be where models are kept on disk."""
    artifacts = settings.artifacts
    quarantine = Quarantine(
        n_preforked,
        limits=Limits.of(artifacts.max_artifact_bytes, ignore_code=artifacts.ignore_code),
        as_boosters=hooks is not None and hooks.needs_objects,
    )
    if is_ready_at_once:
        quarantine.start()
    closing.callback(quarantine.close)
    trimmer = Trimmer()
    closing.callback(trimmer.close)
    executor = ThreadPoolExecutor(settings.memory.loaders, thread_name_prefix="loader")
    closing.callback(executor.shutdown, wait=False, cancel_futures=True)
    if not walker.is_available():
        log.info("no walker was compiled here: libxgboost scores all models")
    boosters = BoosterPool(HandlePool(), lambda forest: quarantine.booster_of(document_of(forest)))
    crew = walker.Crew(max(1, int(container_cores())))
    closing.callback(crew.close)
    return LoadingParts(quarantine, trimmer, executor, boosters, crew, _hooker(hooks, scratch))


def models_of_store(
    settings: Settings,
    recorder: Recorder,
    closing: ExitStack,
    *,
    hooks: Hooks | None,
    scratch: Path,
    is_ready_at_once: bool = True,
    n_preforked: int | None = None,
    store: Store | None = None,
) -> Models:
    """Models of settings.artifacts.models, loaded when they are borrowed and kept as new as their artifacts.
    is_ready_at_once, n_preforked: as of `loading_parts`; None is as many as an endpoint with these settings wants.
    store: another than these settings name; closed by `closing`."""
    store = MonitoredStore(store or _open_store(settings), recorder)
    closing.callback(store.close)
    parts = loading_parts(
        settings,
        closing,
        n_preforked=n_preforked or _n_preforked(settings),
        hooks=hooks,
        scratch=scratch,
        is_ready_at_once=is_ready_at_once,
    )
    n_workers = settings.front.workers
    pacer = Pacer(lambda: cache.n_hits, container_cores())
    loader = ModelLoader(
        store,
        parts.quarantine.examine,
        parts.boosters,
        n_threads=n_workers + 1,  # the pool, and the one that answers at once
        disk_cache=_open_disk_cache(settings, parts.quarantine, closing),
        pace=pacer.wait,
        crew=parts.crew,
        is_first_fold_only=settings.answers.folds == "first",
        examine_all=parts.quarantine.examine_all,
    )

    def prepare_if_changed(target: str, version: str) -> PreparedModel | None:
        prepared = loader.prepare_if_changed(target, version)
        return None if prepared is None else parts.hook(target, prepared)

    admission = Admission(
        lambda target: parts.hook(target, loader.prepare(target)),
        prepare_if_changed,
        lambda target: cache.room_bytes(target),  # noqa: PLW0108  there is no cache yet
    )
    cache = ModelCache(
        budget_bytes=memory_for_models(settings),
        prepare=admission.prepare,
        executor=parts.executor,
        max_waiting=max(1, n_workers - max(1, int(n_workers * HOT_SHARE))),
        max_line=LINE_PER_LOADER * settings.memory.loaders,
        recorder=recorder,
        refused=lambda target: loader.refused(target) or admission.refused(target),
        on_freed=parts.trimmer.freed,
        give_up=parts.boosters.give_up,
        is_pinned=Patterns.parse(settings.memory.pin).match,
        min_residence_s=settings.memory.min_residence_s,
    )
    closing.callback(cache.close)
    parts.boosters.room = cache
    if settings.artifacts.max_age_s:
        keep_new(
            settings, recorder, closing, cache, cache.ages, admission.prepare_if_changed, (store, loader.confirmed)
        )
    return Models(cache, store, loader, parts)


def loader_of_prefix(settings: Settings, recorder: Recorder, closing: ExitStack, parts: LoadingParts) -> ModelLoader:
    """Hosted, of the objects that the platform unpacks."""
    store = MonitoredStore(_open_store(settings), recorder)
    closing.callback(store.close)
    return ModelLoader(
        store,
        parts.quarantine.examine,
        parts.boosters,
        n_threads=1,
        crew=parts.crew,
        is_first_fold_only=settings.answers.folds == "first",
    )


def keep_new(
    settings: Settings,
    recorder: Recorder,
    closing: ExitStack,
    cache: Replacing,
    ages: Ages,
    prepare_if_changed: Callable[[str, str], PreparedModel | None],
    listing: tuple[Store, Callable[[str, str], None]] | None,
) -> None:
    """Have models in memory compared with their artifacts from now on.

    listing   the store, where models are called as their artifacts are, and who is told of what it shows unchanged
    """
    n_checkers = _n_checkers(settings)
    checkers = ThreadPoolExecutor(n_checkers, thread_name_prefix="checker")
    closing.callback(checkers.shutdown, wait=False, cancel_futures=True)
    revalidator = Revalidator(cache, prepare_if_changed, checkers, recorder)
    ages.watch(settings.artifacts.max_age_s, revalidator.look)
    store, confirmed = listing or (None, lambda *_: None)
    sweeper = Sweeper(
        ages,
        store,
        revalidator.check,
        confirmed,
        checkers,
        max_age_s=settings.artifacts.max_age_s,
        n_at_once=n_checkers,
    )
    sweeper.start()
    closing.callback(sweeper.close)


def load_endpoint_hooks(settings: Settings) -> Hooks | None:
    """The endpoint's own code, if it has any. Raises HooksInvalid."""
    answers = settings.answers
    if answers.hooks_program is None:
        return None
    with redirect_stdout(sys.stderr):
        hooks = load_hooks(answers.hooks_program, answers.hooks_directory)
    log.info("hooks: %s of %s", ", ".join(hooks.names), answers.hooks_program)
    if hooks.needs_objects:
        importlib.import_module("xgboost")  # half a second and 40 MB, which the first request need not wait for
    return hooks


def scoring_of(settings: Settings, hooks: Hooks | None, room: Room) -> Scoring:
    """room: where what large requests take is booked."""
    bounds = Bounds(
        max_answer_bytes=settings.front.max_body_bytes,
        n_places=settings.front.heavy_requests,
        n_turns=min(max(1, int(container_cores())), settings.front.heavy_requests),
        room=room,
    )
    conventions = conventions_of(settings)
    return PlainScoring(conventions, bounds) if hooks is None else HookedScoring(hooks, conventions, bounds)


def conventions_of(settings: Settings) -> Conventions:
    answers = settings.answers
    usual = AWS if answers.like == "aws" else OURS
    return replace(
        usual,
        accept=answers.accept or usual.accept,
        is_positional=answers.columns == "positional",
        one_line=answers.csv_one_line,
    )


def framing_of(settings: Settings) -> Framing:
    framing = CONTAINER if settings.front.hosted else SAGEMAKER
    return like_aws(framing) if settings.answers.like == "aws" else framing


def memory_for_models(settings: Settings) -> int:
    """Bytes."""
    if settings.memory.memory_bytes is not None:
        log.info("memory for models: %d bytes, as set", settings.memory.memory_bytes)
        return settings.memory.memory_bytes
    limit = container_limit()
    budget = model_budget(limit.n_bytes, settings.front.jvm_heap_bytes + settings.front.jvm_direct_bytes)
    log.info("memory for models: %d bytes of the %d that %s allows", budget, limit.n_bytes, limit.source)
    return budget


def _hooker(hooks: Hooks | None, scratch: Path) -> Callable[[str, PreparedModel], PreparedModel]:
    if hooks is None or not hooks.needs_objects:
        return lambda _, prepared: prepared
    return ObjectMaker(hooks, scratch, allocated_bytes).hook


def _open_store(settings: Settings) -> Store:
    artifacts = settings.artifacts
    if isinstance(parse_location(artifacts.models), Path):
        return open_store(artifacts.models, max_artifact_bytes=artifacts.max_artifact_bytes)
    from handler.stores.s3 import S3Settings, S3Store

    store = open_store(
        artifacts.models,
        max_artifact_bytes=artifacts.max_artifact_bytes,
        s3=S3Settings(
            endpoint_url=artifacts.endpoint_url,
            max_connections=AT_START_PER_LOADER * settings.memory.loaders + _n_checkers(settings),
        ),
    )
    assert isinstance(store, S3Store)
    store.connect()
    # Meanwhile: a store that does not answer keeps nobody from starting.
    threading.Thread(target=store.look_for_bucket, name="bucket", daemon=True).start()
    return store


def _open_disk_cache(settings: Settings, quarantine: Quarantine, closing: ExitStack) -> DiskCache | None:
    artifacts = settings.artifacts
    if artifacts.disk_dir is None:
        return None
    maker = f"{quarantine.fingerprint()}, from {artifacts.endpoint_url or 'S3'}"
    try:
        disk_cache = DiskCache(Path(artifacts.disk_dir), max_bytes=artifacts.disk_bytes, maker=maker)
    except DiskCacheUnusable as error:
        log.warning("models are not kept on disk: %s", error)
        return None
    closing.callback(disk_cache.close)
    log.info("%d models of %d bytes are kept in %s", len(disk_cache), disk_cache.n_bytes, artifacts.disk_dir)
    return disk_cache


def _n_checkers(settings: Settings) -> int:
    """Threads that compare models in memory with their artifacts. With half as many as load, 20 models overwritten five
    times a second each were up to 3.7 s behind at a max age of 1 s."""
    return settings.memory.loaders


def _n_preforked(settings: Settings) -> int:
    """Artifacts examined at the same time. Few checks find anything to examine; when many do, they take turns."""
    loaders = settings.memory.loaders
    return loaders + max(1, loaders // 2)
