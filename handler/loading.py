"""From a target to a model: fetch the artifact, have it examined, load what came of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from handler.errors import ArtifactRefused
from handler.predictor import BYTES_PER_THREAD, Facts, HandlePool, Model
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
    document: bytes
    facts: Facts
    pool: HandlePool

    def load(self) -> Model:
        return Model(self.pool.load(self.document), self.facts, self.pool.rest)


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
        document, facts = _single(examined.documents, examined.facts, fetched.uri)
        return PreparedModel(
            version=fetched.version,
            n_bytes=facts.resident_bytes + self._extra_bytes,
            downloaded_bytes=len(fetched.data),
            download_us=(arrived - start) // 1000,
            examine_us=(time.perf_counter_ns() - arrived) // 1000,
            document=document,
            facts=facts,
            pool=self._pool,
        )


class BundleLoader:
    """Prepares models that the platform has put on this machine, unpacked or as an archive.

    examine      opens a bundle, or an archive, by path; raises ArtifactBroken, ArtifactRefused, ArtifactMissing
    extra_bytes  what a model costs besides its booster
    """

    def __init__(self, examine: Callable[[str], Examined], pool: HandlePool, extra_bytes: int) -> None:
        self._examine = examine
        self._pool = pool
        self._extra_bytes = OVERHEAD_BYTES + BYTES_PER_THREAD + extra_bytes

    def prepare(self, path: str) -> PreparedModel:
        start = time.perf_counter_ns()
        examined = self._examine(path)
        document, facts = _single(examined.documents, examined.facts, path)
        return PreparedModel(
            version="",  # the platform's own business: a new version has a new name
            n_bytes=facts.resident_bytes + self._extra_bytes,
            downloaded_bytes=0,
            download_us=0,
            examine_us=(time.perf_counter_ns() - start) // 1000,
            document=document,
            facts=facts,
            pool=self._pool,
        )


def _single(documents: Sequence[bytes], facts: Sequence[Facts], uri: str) -> tuple[bytes, Facts]:
    if len(documents) != 1:
        raise ArtifactRefused(uri, f"it holds {len(documents)} boosters; ensembles are not served")
    return documents[0], facts[0]
