"""From a target to a model: fetch the artifact, have it examined, load what came of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ParamSpec, Protocol, TypeVar

from handler.cache.singleflight import copy_of
from handler.errors import ArtifactBroken, ArtifactError, ArtifactForbidden, ArtifactMissing, ArtifactRefused
from handler.forest.booster_pool import BoosterPool
from handler.forest.model import Forest
from handler.forest.packed import is_sound, shape_of
from handler.forest.walker import Crew
from handler.loading.catalogue import Catalogue
from handler.loading.disk_cache import DiskCache
from handler.loading.kept_file import Kept
from handler.loading.negative_cache import NegativeCache, Refusal
from handler.predictor import (
    BYTES_PER_THREAD,
    Ensemble,
    Facts,
    FoldsDisagree,
    Model,
    Scorer,
    facts_of_ensemble,
)
from handler.stores import Fetched, Store

P = ParamSpec("P")
T = TypeVar("T")
# The interpreter's share of a model: its objects, its place in the index, its name (sys.getsizeof, added up).
OVERHEAD_BYTES = 2048


def model_of(document: bytes, facts: Facts, boosters: BoosterPool, crew: Crew | None = None) -> Scorer:
    """What quarantine handed out, ready to score."""
    if facts.is_forest:
        return Forest(document, facts, boosters, crew)
    return Model(boosters.handles.load(document), facts, boosters.handles.rest)


class Examined(Protocol):
    """A sound artifact: for each booster a packed forest, or else a document that libxgboost wrote itself; and the facts
    of each, which say what it is."""

    @property
    def documents(self) -> tuple[bytes, ...]: ...
    @property
    def facts(self) -> tuple[Facts, ...]: ...


@dataclass(frozen=True, slots=True)
class PreparedModel:
    """An artifact fetched and examined; `load` takes `n_bytes` of memory.

    download_us    None when it came from the disk cache; examine_us is then the time to read it
    checked_s_ago  seconds since the store said that this is its newest version
    """

    version: str
    n_bytes: int
    downloaded_bytes: int
    download_us: int | None
    examine_us: int
    documents: tuple[bytes, ...]
    folds: tuple[Facts, ...]
    facts: Facts
    boosters: BoosterPool
    checked_s_ago: float = 0.0
    crew: Crew | None = None
    make: Callable[[], Scorer] | None = None  # loads it in another way, for the endpoint's own code

    def load(self) -> Scorer:
        if self.make is not None:
            return self.make()
        models: list[Scorer] = []
        try:
            for document, facts in zip(self.documents, self.folds, strict=True):
                models.append(model_of(document, facts, self.boosters, self.crew))
        except BaseException:
            for model in models:
                model.close()
            raise
        return models[0] if len(models) == 1 else Ensemble(models, self.facts)


@dataclass(frozen=True, slots=True)
class _Arrived:
    """An artifact that was fetched; when it was asked for and when it was here, by time.perf_counter_ns."""

    target: str
    fetched: Fetched
    asked_ns: int
    at_ns: int


class ModelLoader:
    """Prepares models from one store.

    examine     opens artifact bytes where they can do no harm; raises ArtifactBroken, ArtifactRefused
    examine_all    the same of several at once, errors in their places; one after the other where it is None
    boosters       native boosters, for forests that are asked for more than scores and for what is no forest
    n_threads   threads that will score with a model: libxgboost keeps something for each that scores with a booster
    disk_cache       keeps what was examined on disk; what it has is not fetched
    crew        other cores for large bodies
    pace        called before an artifact is fetched for a model that is not in memory; returns when that may begin
    is_first_fold_only   of several boosters the first is the model
    """

    def __init__(
        self,
        store: Store,
        examine: Callable[[bytes, str], Examined],
        boosters: BoosterPool,
        n_threads: int,
        *,
        negative_cache: NegativeCache | None = None,
        disk_cache: DiskCache | None = None,
        pace: Callable[[], None] = lambda: None,
        crew: Crew | None = None,
        is_first_fold_only: bool = False,
        catalogue: Catalogue | None = None,
        examine_all: Callable[[Sequence[tuple[bytes, str]]], Sequence[Examined | ArtifactError]] | None = None,
    ) -> None:
        self._store = store
        self._catalogue = Catalogue(store.list) if catalogue is None else catalogue
        self._examine = examine
        self._examine_all = examine_all or self._examine_each
        self._boosters = boosters
        self._negative_cache = NegativeCache() if negative_cache is None else negative_cache
        self._disk_cache = disk_cache
        self._pace = pace
        self._n_threads = n_threads
        self._crew = crew
        self._is_first_fold_only = is_first_fold_only

    def prepare(self, target: str) -> PreparedModel:
        """The target's artifact as it is now, examined. Raises ArtifactError, at once for what was just found out."""
        (kept,) = self.prepare_kept([target])
        return kept or self._examined(self._fetched(target))

    def prepare_all(self, targets: Sequence[str]) -> list[PreparedModel | ArtifactError]:
        """As `prepare` of each of several small ones, for less; what that would raise is in its place."""
        found: list[PreparedModel | _Arrived | ArtifactError] = []
        for target, kept in zip(targets, self.prepare_kept(targets), strict=True):
            found.append(_or_error(self._fetched, target) if kept is None else kept)
        arrived = [one for one in found if isinstance(one, _Arrived)]
        start = time.perf_counter_ns()
        outcomes = self._examine_all([(one.fetched.data, one.fetched.uri) for one in arrived]) if arrived else []
        examine_us = (time.perf_counter_ns() - start) // 1000 // max(1, len(arrived))
        outcome = iter(outcomes)
        return [
            _or_error(self._judged, one, next(outcome), examine_us) if isinstance(one, _Arrived) else one
            for one in found
        ]

    def _fetched(self, target: str) -> _Arrived:
        error = self._negative_cache.now(target)
        if error is not None:
            raise copy_of(error) from error
        self._pace()
        start = time.perf_counter_ns()
        refusal = self._negative_cache.last(target)
        fetched = self._changed(target, refusal) if refusal else self._ask(target, None)
        assert fetched is not None  # nothing was asked for on condition
        return _Arrived(target, fetched, start, time.perf_counter_ns())

    def refused(self, target: str) -> ArtifactError | None:
        """What `prepare` would raise at once, found out a moment ago. Takes no time."""
        error = self._negative_cache.now(target)
        if self._disk_cache is not None and self._store.uri(target) in self._disk_cache:
            return None
        if error is None and self._catalogue.denies(target):
            return ArtifactMissing(self._store.uri(target))
        return error

    def prepare_if_changed(self, target: str, version: str) -> PreparedModel | None:
        """As `prepare` when the artifact is no longer `version`, else None, which costs no download."""
        start = time.perf_counter_ns()
        refusal = self._negative_cache.last(target)
        # When the newest one was no good, the question is whether something came after it; that may be `version` again.
        fetched = self._changed(target, refusal) if refusal else self._ask(target, version)
        if fetched is None or fetched.version == version:
            self.confirmed(target, version)
            return None
        return self._examined(_Arrived(target, fetched, start, time.perf_counter_ns()))

    def confirmed(self, target: str, version: str) -> None:
        """The store has just shown that this is still its version."""
        self._negative_cache.forget(target)
        if self._disk_cache is not None:
            self._disk_cache.confirm(self._store.uri(target), version)

    def _changed(self, target: str, refusal: Refusal) -> Fetched:
        """What came after the version that was refused. Raises the same refusal when nothing did."""
        assert refusal.version is not None
        fetched = self._ask(target, refusal.version)
        if fetched is None:
            self._negative_cache.broken(target, refusal.version, refusal.error)
            raise copy_of(refusal.error) from refusal.error
        return fetched

    def _ask(self, target: str, known_version: str | None) -> Fetched | None:
        """The artifact from the store; None when it is still `known_version`."""
        try:
            if known_version is None:
                return self._store.fetch(target)
            return self._store.fetch_if_changed(target, known_version)
        except (ArtifactMissing, ArtifactForbidden) as error:
            self._negative_cache.absent(target, error)
            self._catalogue.missed()
            if self._disk_cache is not None and isinstance(error, ArtifactMissing):
                self._disk_cache.forget(error.uri)
            raise
        except ArtifactRefused as error:  # by its size
            self._negative_cache.broken(target, None, error)
            raise

    def _examined(self, arrived: _Arrived) -> PreparedModel:
        fetched = arrived.fetched
        outcome = _or_error(self._examine, fetched.data, fetched.uri)
        return self._judged(arrived, outcome, (time.perf_counter_ns() - arrived.at_ns) // 1000)

    def _examine_each(self, artifacts: Sequence[tuple[bytes, str]]) -> list[Examined | ArtifactError]:
        return [_or_error(self._examine, data, uri) for data, uri in artifacts]

    def _judged(self, arrived: _Arrived, outcome: Examined | ArtifactError, examine_us: int) -> PreparedModel:
        """What came of examining it. Raises ArtifactError."""
        target, fetched = arrived.target, arrived.fetched
        try:
            if isinstance(outcome, ArtifactError):
                raise outcome
            prepared = _prepared(
                outcome,
                fetched.uri,
                self._boosters,
                self._n_threads,
                version=fetched.version,
                downloaded_bytes=len(fetched.data),
                download_us=(arrived.at_ns - arrived.asked_ns) // 1000,
                examine_us=examine_us,
                checked_s_ago=(time.perf_counter_ns() - arrived.asked_ns) / 1e9,
                crew=self._crew,
                is_first_fold_only=self._is_first_fold_only,
            )
        except (ArtifactBroken, ArtifactRefused) as error:
            self._negative_cache.broken(target, fetched.version, error)
            raise
        self._negative_cache.forget(target)
        if self._disk_cache is not None:
            self._disk_cache.put(fetched.uri, fetched.version, outcome.documents, outcome.facts)
        return prepared

    def prepare_kept(self, targets: Sequence[str]) -> list[PreparedModel | None]:
        """Those of them that are kept on disk, without a question to the store; None for each of the others."""
        if self._disk_cache is None:
            return [None] * len(targets)
        start = time.perf_counter_ns()
        uris = [self._store.uri(target) for target in targets]
        found = self._disk_cache.get_all(uris)
        read_us = (time.perf_counter_ns() - start) // 1000 // max(1, len(targets))
        return [
            None if kept is None else self._of_kept(kept, uri, read_us) for uri, kept in zip(uris, found, strict=True)
        ]

    def _of_kept(self, kept: Kept, uri: str, read_us: int) -> PreparedModel | None:
        try:
            return _prepared(
                kept,
                uri,
                self._boosters,
                self._n_threads,
                version=kept.version,
                downloaded_bytes=0,
                download_us=None,
                examine_us=read_us,
                checked_s_ago=kept.checked_s_ago,
                crew=self._crew,
                is_first_fold_only=self._is_first_fold_only,
                walkable=kept.walkable,
            )
        except (ArtifactBroken, ArtifactRefused) as error:
            assert self._disk_cache is not None
            self._disk_cache.lose(uri, str(error))
            return None


class BundleLoader:
    """Prepares models that the platform has put on this machine, unpacked or as an archive.

    examine       opens a bundle, or an archive, by path; raises ArtifactBroken, ArtifactRefused, ArtifactMissing
    worker_bytes  what a model costs besides its booster
    is_first_fold_only   of several boosters the first is the model
    """

    def __init__(
        self,
        examine: Callable[[str], Examined],
        boosters: BoosterPool,
        worker_bytes: int,
        crew: Crew | None = None,
        *,
        is_first_fold_only: bool = False,
    ) -> None:
        self._is_first_fold_only = is_first_fold_only
        self._examine = examine
        self._boosters = boosters
        self._worker_bytes = worker_bytes
        self._crew = crew

    def prepare(self, path: str) -> PreparedModel:
        start = time.perf_counter_ns()
        examined = self._examine(path)
        return _prepared(
            examined,
            path,
            self._boosters,
            1,  # only its own connection's thread scores with it
            version="",  # the platform's own business: a new version has a new name
            downloaded_bytes=0,
            download_us=0,
            examine_us=(time.perf_counter_ns() - start) // 1000,
            once_bytes=self._worker_bytes,
            crew=self._crew,
            is_first_fold_only=self._is_first_fold_only,
        )


def _or_error(find: Callable[P, T], *values: P.args, **more: P.kwargs) -> T | ArtifactError:
    try:
        return find(*values, **more)
    except ArtifactError as error:
        return error


def _prepared(
    examined: Examined,
    uri: str,
    boosters: BoosterPool,
    n_threads: int,
    *,
    version: str,
    downloaded_bytes: int,
    download_us: int | None,
    examine_us: int,
    once_bytes: int = 0,
    checked_s_ago: float = 0.0,
    crew: Crew | None = None,
    is_first_fold_only: bool = False,
    walkable: int = 0,
) -> PreparedModel:
    """Raises ArtifactBroken, ArtifactRefused.

    n_threads    that score with it
    once_bytes   what it takes beside its boosters
    walkable     as `Kept` has it
    """
    kept = slice(1 if is_first_fold_only else None)
    folds, documents = examined.facts[kept], examined.documents[kept]
    try:
        facts = facts_of_ensemble(folds)
    except FoldsDisagree as error:
        raise ArtifactRefused(uri, str(error)) from error
    for at, (document, fold) in enumerate(zip(documents, folds, strict=True)):
        if fold.is_forest and not _is_sound(document, fold, is_walkable=bool(walkable >> at & 1)):
            raise ArtifactBroken(uri, "its packed form is damaged")
    return PreparedModel(
        version=version,
        n_bytes=sum(_booked(fold, n_threads) for fold in folds) + once_bytes,
        downloaded_bytes=downloaded_bytes,
        download_us=download_us,
        examine_us=examine_us,
        documents=documents,
        folds=folds,
        facts=facts,
        boosters=boosters,
        checked_s_ago=checked_s_ago,
        crew=crew,
    )


def _is_sound(forest: bytes, facts: Facts, *, is_walkable: bool) -> bool:
    if not is_sound(forest, is_walkable=is_walkable):
        return False
    shape = shape_of(forest)
    return (shape.n_features, shape.n_outputs) == (facts.n_features, facts.n_outputs)


def _booked(facts: Facts, n_threads: int) -> int:
    per_thread = 0 if facts.is_forest else BYTES_PER_THREAD
    return facts.resident_bytes + OVERHEAD_BYTES + n_threads * per_thread
