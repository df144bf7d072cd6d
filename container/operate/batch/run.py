"""A run: every file of the data that is not done yet, scored and written down.

Rule: threads take whole files. Between two windows each looks whether the run is to end; what it has in hand then is made
anew by the next run, and no half of it is seen.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from container import assembly
from container.limits.cores import container_cores
from container.operate.batch.asked import Asked
from container.operate.batch.layout import Layout, without_model
from container.operate.batch.ledger import Entry, Ledger
from container.operate.batch.models import RunModels
from container.operate.batch.parts import DoesNotFit, error_table, score_part
from container.operate.batch.passes import FileInPasses
from container.operate.batch.progress import Progress
from container.operate.batch.released import ReleasedStore
from container.operate.batch.scoring import Faults, layout_of_first
from container.operate.batch.share import Share
from container.operate.batch.writing import PartWriter
from container.operate.release.place import releases_beside
from container.operate.release.shelf import manifest
from container.operate.tables.contents import by_content, models_by_content
from container.operate.tables.files import DataFile, FileUnusable, find, on_disk, s3_of
from container.operate.tables.windows import Window, windows
from container.operate.troubles import Misused, NotNow, Stopped
from container.settings import Settings
from handler.errors import ArtifactError, StartRefused
from handler.stores import open_store
from handler.stores.writing import open_writing_store
from handler.telemetry.recorder import LiveRecorder

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Outcome:
    """summary: of the whole run once nothing is left to do by any host, else None. n_loads: models loaded here."""

    summary: dict[str, Any] | None
    n_loads: int
    n_parts: int
    n_done_before: int


@dataclass(frozen=True, slots=True)
class FromRelease:
    """A release whose models score, instead of those that are live. releases: where it lies; None is beside these."""

    id: str
    releases: str | None = None


class Models:
    """A run's models: those that were below the prefix when it began, or those of a release."""

    def __init__(
        self, settings: Settings, closing: ExitStack, scratch: Path, release: FromRelease | None = None
    ) -> None:
        try:
            store = None if release is None else _open_release(settings, release)
            models = assembly.models_of_store(
                settings, LiveRecorder(), closing, hooks=None, scratch=scratch, is_ready_at_once=False,
                n_preforked=int(container_cores()) + 1,  # each is 25 ms of work to have, and nobody waits for one of them
                store=store,
            )  # fmt: skip
            self.versions: Mapping[str, str] = {one.target: one.version for one in models.store.list()}
        except (StartRefused, ArtifactError) as error:
            raise Misused(f"--models {settings.artifacts.models}: {error}") from error
        if not self.versions:
            raise Misused(f"--models {settings.artifacts.models}: there are none")
        self.models = RunModels(
            models.loader,
            self.versions,
            models.parts.executor,
            assembly.memory_for_models(settings),
            models.store.uri("x")[:-1],
        )


def run(
    settings: Settings,
    asked: Asked,
    data: Sequence[str],
    out: str,
    *,
    share: Share | None = None,
    release: FromRelease | None = None,
    max_errors: int | None,
    stop: threading.Event,
) -> Outcome:
    """Score what is left of a run. Raises CommandFailed.

    share       a job's: what lies on this host is then known by its content; None is everything
    release     whose models score; None is what is live
    max_errors  with more there is no _SUCCESS; None is any number
    stop        set by whoever wants it to end soon
    """
    endpoint_url = settings.artifacts.endpoint_url
    _refuse_below(out, data)
    files = find(data, asked.data_format, endpoint_url)
    if share is not None:
        files = by_content(files)
    with ExitStack() as closing:
        scratch = Path(
            closing.enter_context(tempfile.TemporaryDirectory(prefix="mme-score-", dir=settings.front.scratch))
        )
        models = Models(settings, closing, scratch, release)
        try:
            store = open_writing_store(out, s3=s3_of(out, endpoint_url), makes=True)
        except (StartRefused, OSError) as error:
            raise Misused(f"--out {out}: {error}") from error
        closing.callback(store.close)
        versions = models.versions
        if share is not None and release is None:  # a release's are digests
            versions = models_by_content(settings.artifacts.models, versions)
        ledger = Ledger(store, asked, files, versions)
        try:
            work = _Work(settings, asked, files, models.models, ledger, scratch, stop)
            layout = ledger.read_layout() or ledger.begin(work.find_layout())
            done = {name for name, entry in ledger.entries().items() if not entry.failure}
            own = (share or Share()).files(files)
            mine = [file for file in own if file.name not in done]
            work.score(mine, layout)
            entries = ledger.entries()
            summary = None
            if len(entries) == len(files):
                summary = ledger.summary(entries)
                ledger.finish(summary, is_success=max_errors is None or summary["errors"] <= max_errors)
        except ArtifactError as error:
            raise NotNow(f"--out {out}: {error}; the same command goes on") from error
        return Outcome(summary, models.models.n_loads, len(mine), len(own) - len(mine))


class _Work:
    def __init__(
        self,
        settings: Settings,
        asked: Asked,
        files: Sequence[DataFile],
        models: RunModels,
        ledger: Ledger,
        scratch: Path,
        stop: threading.Event,
    ) -> None:
        self._endpoint_url = settings.artifacts.endpoint_url
        self._asked = asked
        self._files = files
        self._models = models
        self._ledger = ledger
        self._scratch = scratch
        self._stop = stop
        self._passing: list[str] = []
        self._postponed: list[DataFile] = []

    def find_layout(self) -> Layout:
        """Of the first model that the first readable file names."""
        for file in self._files:
            try:
                with on_disk(file, self._scratch, self._endpoint_url) as path:
                    for window in windows(path, file, self._asked):
                        if isinstance(window, Window):
                            layout = layout_of_first(window, file, self._asked, self._models)
                            if layout is not None:
                                return layout
                            break
            except FileUnusable as error:
                if error.is_passing:
                    raise NotNow(f"{file.name}: {error.why}; the same command goes on") from error
        return without_model(self._asked.outputs)

    def score(self, files: Sequence[DataFile], layout: Layout) -> None:
        progress = Progress(len(files), sum(file.size for file in files))
        try:
            self._each(files, lambda file: self._score_one(file, layout, progress))
            if self._postponed:
                self._score_in_passes(layout, progress)
        finally:
            progress.close()
        if self._passing:
            raise NotNow(
                f"{len(self._passing)} files could not be had just now, first {self._passing[0]}; the same command goes on"
            )

    def _each(self, items: Sequence[T], work: Callable[[T], None]) -> None:
        """On all cores. The first error ends it."""
        n_threads = max(1, min(len(items), int(container_cores())))
        with ThreadPoolExecutor(n_threads, thread_name_prefix="part") as threads:
            jobs = [threads.submit(work, item) for item in items]
            try:
                for job in jobs:
                    job.result()
            except BaseException:
                self._stop.set()
                threads.shutdown(wait=True, cancel_futures=True)
                raise

    def _check(self) -> None:
        if self._stop.is_set():
            raise Stopped("stopped; the same command goes on")

    def _score_one(self, file: DataFile, layout: Layout, progress: Progress) -> None:
        def on_rows(n_rows: int) -> None:
            self._check()
            progress.rows(n_rows)

        on_rows(0)
        with self._counted(file, progress) as (folder, began):
            part, errors = folder / "part", folder / "errors"
            counts = score_part(
                file, self._asked, layout, self._models, self._scratch,
                part=part, errors=errors, endpoint_url=self._endpoint_url, on_rows=on_rows,
            )  # fmt: skip
            self._ledger.put_part(file, part, errors, counts, time.perf_counter() - began)

    def _score_in_passes(self, layout: Layout, progress: Progress) -> None:
        """Files whose models do not fit together. The first pass goes on with those that are loaded."""
        with ExitStack() as closing:
            waiting: dict[str, FileInPasses] = {}
            for file in sorted(self._postponed):
                folder = Path(closing.enter_context(tempfile.TemporaryDirectory(dir=self._scratch)))
                waiting[file.name] = FileInPasses(file, self._asked, layout, folder, self._scratch, self._endpoint_url)

            def go_by(one: FileInPasses) -> None:
                with self._counted(one.file, progress, is_last=False) as (_, began):
                    is_done = False
                    try:
                        one.go_by(self._models, self._check)
                        is_done = True
                    finally:
                        one.seconds += time.perf_counter() - began
                        if not is_done:
                            del waiting[one.file.name]

            def finish(one: FileInPasses) -> None:
                with self._counted(one.file, progress) as (folder, began):
                    part, errors = folder / "part", folder / "errors"
                    counts = one.finish(part, errors, self._check)
                    progress.rows(counts.n_rows)
                    self._ledger.put_part(one.file, part, errors, counts, one.seconds + time.perf_counter() - began)

            is_more = True
            while is_more:
                self._each(list(waiting.values()), go_by)
                is_more = self._models.next_pass()
            self._each(list(waiting.values()), finish)

    @contextmanager
    def _counted(self, file: DataFile, progress: Progress, *, is_last: bool = True) -> Iterator[tuple[Path, float]]:
        """A folder for a file's work and when it began; what keeps the file from being scored is written down."""
        began = time.perf_counter()
        with tempfile.TemporaryDirectory(dir=self._scratch) as folder:
            try:
                yield Path(folder), began
            except DoesNotFit:
                self._postponed.append(file)
                return
            except FileUnusable as error:
                if error.is_passing:
                    self._passing.append(f"{file.name} ({error.why})")
                else:
                    self._fail(file, error.why, Path(folder, "errors"), time.perf_counter() - began)
        if is_last:
            progress.file_done(file.size)

    def _fail(self, file: DataFile, why: str, path: Path, seconds: float) -> Entry:
        """A file that cannot be scored is one error, without a row."""
        faults = Faults()
        faults.add(np.array([0]), None, why)
        table = error_table(file.name, faults)
        writer = PartWriter(path, self._asked.out_format, table.schema)
        writer.write(table)
        writer.close()
        return self._ledger.put_failure(file, why, path.read_bytes(), seconds)


def _open_release(settings: Settings, release: FromRelease) -> ReleasedStore:
    """Raises Misused; Refused when there is no such release."""
    artifacts = settings.artifacts
    where = release.releases or releases_beside(artifacts.models)
    s3 = s3_of(where, artifacts.endpoint_url)
    shelf = open_store(where, max_artifact_bytes=artifacts.max_artifact_bytes, s3=s3)
    return ReleasedStore(shelf, manifest(shelf, release.id))


def _refuse_below(out: str, data: Sequence[str]) -> None:
    """Parts among the data would be data of the next call."""
    for location in data:
        for inner, outer in ((out, location), (location, out)):
            if "://" not in inner and "://" not in outer:
                is_below = Path(inner).absolute().is_relative_to(Path(outer).absolute())
            else:
                is_below = f"{inner.rstrip('/')}/".startswith(f"{outer.rstrip('/')}/")
            if is_below:
                raise Misused(f"--out {out}: neither may lie below the other, --data {location}")
