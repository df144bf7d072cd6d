"""From a target to a model: fetch the artifact, have it examined, load what came of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from handler.errors import ArtifactRefused
from handler.predictor import (
    BYTES_PER_THREAD,
    Ensemble,
    Facts,
    FoldsDisagree,
    HandlePool,
    Model,
    Scorer,
    facts_of_ensemble,
)
from handler.stores import Store

# The interpreter's share of a model: its objects, its place in the index, its name (sys.getsizeof, added up).
OVERHEAD_BYTES = 2048


class Examined(Protocol):
    """A sound artifact: documents that libxgboost wrote itself, and the facts of each."""

    @property
    def documents(self) -> tuple[bytes, ...]: ...
    @property
    def facts(self) -> tuple[Facts, ...]: ...


@dataclass(frozen=True, slots=True)
class PreparedModel:
    """An artifact fetched and examined; `load` takes `n_bytes` of memory."""

    version: str
    n_bytes: int
    downloaded_bytes: int
    download_us: int
    examine_us: int
    documents: tuple[bytes, ...]
    folds: tuple[Facts, ...]
    facts: Facts
    pool: HandlePool
    make: Callable[[], Scorer] | None = None  # loads it in another way, for the endpoint's own code

    def load(self) -> Scorer:
        if self.make is not None:
            return self.make()
        models: list[Model] = []
        try:
            for document, facts in zip(self.documents, self.folds, strict=True):
                models.append(Model(self.pool.load(document), facts, self.pool.rest))
        except BaseException:
            for model in models:
                model.close()
            raise
        return models[0] if len(models) == 1 else Ensemble(models, self.facts)


class ModelLoader:
    """Prepares models from one store.

    examine     opens artifact bytes where they can do no harm; raises ArtifactBroken, ArtifactRefused
    n_threads   threads that will score with a model: libxgboost keeps something for each
    """

    def __init__(
        self, store: Store, examine: Callable[[bytes, str], Examined], pool: HandlePool, n_threads: int
    ) -> None:
        self._store = store
        self._examine = examine
        self._pool = pool
        self._extra_bytes = OVERHEAD_BYTES + n_threads * BYTES_PER_THREAD

    def prepare(self, target: str) -> PreparedModel:
        start = time.perf_counter_ns()
        fetched = self._store.fetch(target)
        arrived = time.perf_counter_ns()
        examined = self._examine(fetched.data, fetched.uri)
        return _prepared(
            examined,
            fetched.uri,
            self._pool,
            self._extra_bytes,
            version=fetched.version,
            downloaded_bytes=len(fetched.data),
            download_us=(arrived - start) // 1000,
            examine_us=(time.perf_counter_ns() - arrived) // 1000,
        )


class BundleLoader:
    """Prepares models that the platform has put on this machine, unpacked or as an archive.

    examine       opens a bundle, or an archive, by path; raises ArtifactBroken, ArtifactRefused, ArtifactMissing
    worker_bytes  what a model costs besides its booster
    """

    def __init__(self, examine: Callable[[str], Examined], pool: HandlePool, worker_bytes: int) -> None:
        self._examine = examine
        self._pool = pool
        self._worker_bytes = worker_bytes

    def prepare(self, path: str) -> PreparedModel:
        start = time.perf_counter_ns()
        examined = self._examine(path)
        return _prepared(
            examined,
            path,
            self._pool,
            OVERHEAD_BYTES + BYTES_PER_THREAD,  # only its own connection's thread scores with it
            version="",  # the platform's own business: a new version has a new name
            downloaded_bytes=0,
            download_us=0,
            examine_us=(time.perf_counter_ns() - start) // 1000,
            once_bytes=self._worker_bytes,
        )


def _prepared(
    examined: Examined,
    uri: str,
    pool: HandlePool,
    extra_bytes: int,
    *,
    version: str,
    downloaded_bytes: int,
    download_us: int,
    examine_us: int,
    once_bytes: int = 0,
) -> PreparedModel:
    """extra_bytes: for each booster. once_bytes: for the whole."""
    try:
        facts = facts_of_ensemble(examined.facts)
    except FoldsDisagree as error:
        raise ArtifactRefused(uri, str(error)) from error
    return PreparedModel(
        version=version,
        n_bytes=facts.resident_bytes + extra_bytes * len(examined.facts) + once_bytes,
        downloaded_bytes=downloaded_bytes,
        download_us=download_us,
        examine_us=examine_us,
        documents=examined.documents,
        folds=examined.facts,
        facts=facts,
        pool=pool,
    )
