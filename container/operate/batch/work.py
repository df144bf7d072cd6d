"""The work of a run on one machine: files scored by all cores, and their parts put into the ledger.

Rule: threads take whole files. Between two windows each looks whether the run is to end; what it has in hand then is made
anew by the next run, and no half of it is seen.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TypeVar

import numpy as np

from container.limits.cores import container_cores
from container.operate.batch.asked import Asked
from container.operate.batch.layout import Layout, without_model
from container.operate.batch.ledger import Entry, Ledger
from container.operate.batch.models import RunModels
from container.operate.batch.parts import DoesNotFit, error_table, score_part
from container.operate.batch.passes import FileInPasses
from container.operate.batch.progress import Progress
from container.operate.batch.scoring import Faults, layout_of_first
from container.operate.batch.writing import PartWriter
from container.operate.tables.files import DataFile, FileUnusable, on_disk
from container.operate.tables.windows import Window, windows
from container.operate.troubles import NotNow, Stopped
from container.settings import Settings

T = TypeVar("T")


class Work:
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
        models.check = self._check
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

    def score(self, files: Sequence[DataFile], layout: Layout, progress: Progress) -> None:
        """Raises CommandFailed."""
        self._each(files, lambda file: self._score_one(file, layout, progress))
        if self._postponed:
            self._score_in_passes(layout, progress)
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
