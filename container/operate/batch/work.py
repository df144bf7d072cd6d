"""The work of a run on one machine: files scored by all cores, and their parts put into the ledger.

Rule: threads take whole files. Between two windows each looks whether the run is to end; what it has in hand then is made
anew by the next run, and no half of it is seen.
"""

from __future__ import annotations

import contextlib
import gc
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import numpy as np

from container.limits import libc
from container.limits.cores import container_cores
from container.operate.batch.asked import Asked
from container.operate.batch.buckets import Bucket
from container.operate.batch.layout import Layout, without_model
from container.operate.batch.ledger import Entry, Ledger
from container.operate.batch.models import RunModels
from container.operate.batch.parts import Counts, error_table, score_part
from container.operate.batch.progress import Progress
from container.operate.batch.scoring import DoesNotFit, Faults, layout_of_first
from container.operate.batch.spilled import FilePutBy, SpilledFiles
from container.operate.batch.writing import PartWriter
from container.operate.tables.files import DataFile, FileUnusable, on_disk
from container.operate.tables.spill import look_for_room
from container.operate.tables.windows import MAX_WINDOW_ROWS, Window, windows
from container.operate.troubles import NotNow, Stopped
from container.settings import Settings

T = TypeVar("T")
# Of the work of a file whose rows are put by, as measured: to put them by, and to score them.
PUT_BY, SCORED = 0.6, 0.2
# More objects than this, since the garbage of circles was last looked for: Python's own is 700.
_OBJECTS_BETWEEN_COLLECTIONS = 10_000


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
        self._lock = threading.Lock()  # guards what follows
        self._n_loads_told = 0

    def find_layout(self) -> Layout:
        """Of the first model that the first readable file names."""
        for file in self._files:
            try:
                with on_disk(file, self._scratch, self._endpoint_url) as path:
                    layout = self._layout_of(path, file)
                    if layout is not None:
                        return layout
            except FileUnusable as error:
                if error.is_passing:
                    raise NotNow(f"{file.name}: {error.why}; the same command goes on") from error
        return without_model(self._asked.outputs)

    def _layout_of(self, path: Path, file: DataFile) -> Layout | None:
        """Of the first model that the file's first rows name, a few at a time: mostly the first row's is it."""
        n_looked_at = 0
        for window in windows(path, file, self._asked, max_bytes=0):
            if n_looked_at >= MAX_WINDOW_ROWS:
                break
            if isinstance(window, Window):
                layout = layout_of_first(window, file, self._asked, self._models)
                if layout is not None:
                    return layout
                n_looked_at += len(window.table)
        return None

    def score(self, files: Sequence[DataFile], layout: Layout, progress: Progress) -> None:
        """Raises CommandFailed."""
        self._each(files, lambda file: self._score_one(file, layout, progress))
        if self._postponed:
            self._score_spilled(layout, progress)
        if self._passing:
            raise NotNow(
                f"{len(self._passing)} files could not be had just now, first {self._passing[0]}; the same command goes on"
            )

    def _each(self, items: Sequence[T], work: Callable[[T], None], n_at_once: int | None = None) -> None:
        """On all cores, or so many. The first error ends it."""
        n_threads = max(1, min(len(items), n_at_once or _n_cores()))
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
        if self._models.is_full:  # to look at its rows to find that out would be to read them twice
            self._postponed.append(file)
            return
        with self._counted(file, progress) as (folder, began):
            part, errors = folder / "part", folder / "errors"
            counts = score_part(
                file, self._asked, layout, self._models, self._scratch,
                part=part, errors=errors, endpoint_url=self._endpoint_url, on_rows=on_rows,
            )  # fmt: skip
            self._put_part(file, part, errors, counts, time.perf_counter() - began)

    def _score_spilled(self, layout: Layout, progress: Progress) -> None:
        """Files whose models do not fit together. Those that are loaded stay until all files have gone by them."""
        look_for_room(self._scratch, sum(file.size for file in self._postponed))
        with contextlib.closing(
            SpilledFiles(
                self._asked, layout, self._models, self._scratch, self._endpoint_url,
                n_at_once=_n_cores(), check=self._check, on_rows=progress.rows,
            )
        ) as spilled:  # fmt: skip
            waiting: list[FilePutBy] = []

            def put_by(file: DataFile) -> None:
                one = spilled.file(file)
                with self._counted(file, progress, PUT_BY, is_last=False) as (_, began):
                    spilled.put_by(one)
                    one.seconds = time.perf_counter() - began
                    waiting.append(one)

            def finish(one: FilePutBy) -> None:
                with self._counted(one.file, progress, 1 - PUT_BY - SCORED) as (folder, began):
                    part, errors = folder / "part", folder / "errors"
                    counts = spilled.finish(one, part, errors)
                    self._put_part(one.file, part, errors, counts, one.seconds + time.perf_counter() - began)

            def score(bucket: Bucket) -> None:
                spilled.score(bucket)
                n_bytes = sum(one.file.size for one in waiting)
                progress.add(0, 0, int(SCORED * n_bytes / len(spilled.buckets)))

            self._each(sorted(self._postponed), put_by)
            self._each([bucket for bucket in spilled.buckets if bucket.is_loaded], score)
            self._models.let_go()
            if not self._models.is_all_kept:
                libc.trim()  # scoring buckets needs half of what putting rows by did, while examiners are at work
            self._each([bucket for bucket in spilled.buckets if not bucket.is_loaded], score, spilled.n_at_once)
            self._each(waiting, finish)

    def _put_part(self, file: DataFile, part: Path, errors: Path, counts: Counts, seconds: float) -> None:
        with self._lock:
            n_loads = self._models.n_loads - self._n_loads_told
            self._n_loads_told += n_loads
        self._ledger.put_part(file, part, errors, counts, seconds, n_loads)

    @contextmanager
    def _counted(
        self, file: DataFile, progress: Progress, share: float = 1.0, *, is_last: bool = True
    ) -> Iterator[tuple[Path, float]]:
        """A folder for a share of a file's work and when it began; what keeps the file from being scored is written down."""
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
                is_last = True
        progress.add(0, int(is_last), int(share * file.size))

    def _fail(self, file: DataFile, why: str, path: Path, seconds: float) -> Entry:
        """A file that cannot be scored is one error, without a row."""
        faults = Faults()
        faults.add(np.array([0]), None, why)
        table = error_table(file.name, faults)
        writer = PartWriter(path, self._asked.out_format, table.schema)
        writer.write(table)
        writer.close()
        return self._ledger.put_failure(file, why, path.read_bytes(), seconds)


def keep_heap() -> None:
    """A window's arrays lie where the last one's did, in pages that the kernel has cleared already: a twelfth of a run over
    ten million rows, for 30 MB. Of the whole process, so for whoever owns it to say."""
    libc.keep_heap(mmap_from_bytes=32 << 20, trim_from_bytes=1 << 30, grow_by_bytes=16 << 20)


def collect_rarely() -> None:
    """Garbage in circles is looked for less often, and not in what is here already: 0.1 s of a run over 20,000 segments,
    whose models are no garbage. Of the whole process, as `keep_heap`."""
    gc.freeze()
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS)


def _n_cores() -> int:
    return max(1, int(container_cores()))
