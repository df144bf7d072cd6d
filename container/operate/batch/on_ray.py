"""A run on a Ray cluster: a worker on each of its machines, which scores its share of the files on all cores there.

    here: files, models' versions, run.json, summary    ->  a worker a machine: the same Work, parts and ledger as here

Rule: Ray carries names and counts, never a row. What a worker writes is what this machine would have written, so a run may go
on with a cluster or without one.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from container.operate.batch.asked import Asked
from container.operate.batch.layout import Layout
from container.operate.batch.ledger import Ledger
from container.operate.batch.opened import FromRelease, Models
from container.operate.batch.work import Work, keep_heap
from container.operate.cluster import POLL_S, Cluster, machines_of, worker_on
from container.operate.exits import CommandFailed
from container.operate.tables.files import DataFile, find_parts, s3_of
from container.operate.tables.spill import full_is_said, scratch_folder
from container.operate.troubles import Misused, NotNow
from container.settings import Settings
from handler.errors import ArtifactError, StartRefused
from handler.stores.writing import open_writing_store

if TYPE_CHECKING:
    from container.operate.batch.progress import Progress


@dataclass(frozen=True, slots=True)
class Task:
    """What a worker must know. files: all of the run's, as they were found here; versions: of all models."""

    settings: Settings
    asked: Asked
    data: tuple[str, ...]
    out: str
    release: FromRelease | None
    files: tuple[DataFile, ...]
    versions: Mapping[str, str]
    layout: Layout


def score(cluster: Cluster, task: Task, files: Sequence[DataFile], progress: Progress, stop: threading.Event) -> None:
    """Score files on the cluster's machines. Raises CommandFailed."""
    if not files:
        return
    with cluster.joined() as ray:
        machines = machines_of(ray)
        shares = shared_out(files, [machine.n_cores for machine in machines])
        placed = [(machine, share) for machine, share in zip(machines, shares, strict=True) if share]
        _follow(ray, [worker_on(ray, machine, Worker, task, share) for machine, share in placed], progress, stop)


def shared_out(files: Sequence[DataFile], n_cores: Sequence[int]) -> list[list[DataFile]]:
    """Each machine's files: the largest first, to where most is left of its cores."""
    shares: list[list[DataFile]] = [[] for _ in n_cores]
    n_bytes = [0.0] * len(n_cores)
    for file in sorted(files, key=lambda one: (-one.size, one.name)):
        least = min(range(len(n_cores)), key=lambda at: (n_bytes[at] + file.size) / n_cores[at])
        shares[least].append(file)
        n_bytes[least] += file.size
    return shares


class Worker:
    """One machine's share of a run, which tells how far it is while it works."""

    def __init__(self, task: Task, files: Sequence[DataFile]) -> None:
        from container.operate.batch.progress import Progress

        self._task = task
        self._files = files
        self._stop = threading.Event()
        self._progress = Progress(len(files), sum(file.size for file in files), file=io.StringIO())

    def work(self) -> CommandFailed | None:
        """Why it is not done, told and not raised: Ray would add its own words."""
        try:
            self._work()
        except CommandFailed as error:
            return error
        except (ArtifactError, StartRefused) as error:
            return NotNow(f"{error}; the same command goes on")
        return None

    def done(self) -> tuple[int, int, int]:
        """Rows, files and bytes of these."""
        return self._progress.n_rows, self._progress.n_files_done, self._progress.n_bytes_done

    def stop(self) -> None:
        self._stop.set()

    def _work(self) -> None:
        keep_heap()
        task = self._task
        endpoint_url = task.settings.artifacts.endpoint_url
        if any("://" not in location for location in task.data) and task.files != find_parts(
            task.data, task.asked.data_format, endpoint_url
        ):
            raise Misused("a machine of the cluster sees other files in --data: use S3, or a file system that all have")
        with ExitStack() as closing:
            scratch = closing.enter_context(scratch_folder(task.settings.front.scratch))
            models = Models(task.settings, closing, scratch, task.release)
            if models.versions != task.versions:
                raise Misused("a machine of the cluster sees other models: use S3, or a file system that all have")
            store = open_writing_store(task.out, s3=s3_of(task.out, endpoint_url))
            closing.callback(store.close)
            ledger = Ledger(store, task.asked, task.files, task.versions)
            if ledger.read_layout() != task.layout:
                raise Misused("a machine of the cluster sees no run at --out: use S3, or a file system that all have")
            ledger.entries()  # which had failed before, and may leave an error behind
            work = Work(task.settings, task.asked, task.files, models.models, ledger, scratch, self._stop)
            with full_is_said(scratch):
                work.score(self._files, task.layout, self._progress)


def _follow(ray: Any, workers: Sequence[Any], progress: Progress, stop: threading.Event) -> None:
    """Until all are done. The first that fails, or a signal, ends the others at their next window."""
    working = [worker.work.remote() for worker in workers]
    told = [(0, 0, 0)] * len(workers)
    failed: CommandFailed | None = None
    is_stopping = False
    try:
        while working:
            done, working = ray.wait(working, num_returns=len(working), timeout=POLL_S)
            failed = next((error for error in [failed, *ray.get(done)] if error is not None), None)
            if (failed is not None or stop.is_set()) and not is_stopping:
                is_stopping = True
                for worker in workers:
                    worker.stop.remote()
            for at, now in enumerate(ray.get([worker.done.remote() for worker in workers])):
                progress.add(*(new - old for new, old in zip(now, told[at], strict=True)))
                told[at] = now
    except (ray.exceptions.RayError, ConnectionError) as error:
        raise NotNow(f"a machine of the cluster is gone ({type(error).__name__}); the same command goes on") from error
    if failed is not None:
        raise failed
