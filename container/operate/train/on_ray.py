"""A run on a Ray cluster: a worker on each of its machines, which trains its share of the segments on all cores there.

    here: the question                 ->  a worker a machine: the same run, with a share as large as its cores
    the shelf: ledger, artifacts       <-  what each has done; the last one writes the release

Rule: Ray carries the question and counts, never a row. What a worker makes is what this machine would have made, so a run may
go on with a cluster or without one.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from container import environments
from container.operate.cluster import POLL_S, Cluster, machines_of, worker_on
from container.operate.exits import CommandFailed
from container.operate.release.place import place_at
from container.operate.release.trouble import told
from container.operate.train import run as running
from container.operate.train.asked import Asked
from container.operate.train.run import Share, Sources
from container.operate.troubles import NotNow


@dataclass(frozen=True, slots=True)
class Task:
    """What a worker must know. live, releases, endpoint_url: of the place."""

    live: str
    releases: str | None
    endpoint_url: str | None
    asked: Asked
    sources: Sources
    who: str
    note: str
    budget_bytes: int


def train(cluster: Cluster, task: Task, stop: threading.Event) -> int:
    """Train what is left of a run on the cluster's machines: how many segments. Raises CommandFailed."""
    with cluster.joined() as ray:
        machines = machines_of(ray)
        shares = shares_of([machine.n_cores for machine in machines])
        placed = zip(machines, shares, strict=True)
        return _follow(ray, [worker_on(ray, machine, Worker, task, share) for machine, share in placed], stop)


def shares_of(n_cores: Sequence[int]) -> list[Share]:
    """Each machine's, as large as its cores."""
    starts = [sum(n_cores[:at]) for at in range(len(n_cores))]
    return [Share(start, sum(n_cores), width=n) for start, n in zip(starts, n_cores, strict=True)]


class Worker:
    """One machine's share of a run."""

    def __init__(self, task: Task, share: Share) -> None:
        environments.let_openmp_sleep()
        self._task = task
        self._share = share
        self._stop = threading.Event()

    def work(self) -> int | CommandFailed:
        """How many segments it has trained; or why it has not, told and not raised: Ray would add its own words."""
        task = self._task
        try:
            with told("the same command goes on"):
                place = place_at(task.live, task.releases, task.endpoint_url)
                try:
                    return running.run(
                        place,
                        task.asked,
                        task.sources,
                        who=task.who,
                        note=task.note,
                        stop=self._stop,
                        share=self._share,
                        budget_bytes=task.budget_bytes,
                    ).n_trained
                finally:
                    place.close()
        except CommandFailed as error:
            return error

    def stop(self) -> None:
        self._stop.set()


def _follow(ray: Any, workers: Sequence[Any], stop: threading.Event) -> int:
    """Until all are done. The first that fails, or a signal, ends the others."""
    working = [worker.work.remote() for worker in workers]
    n_trained, failed, is_stopping = 0, None, False
    try:
        while working:
            done, working = ray.wait(working, num_returns=len(working), timeout=POLL_S)
            for came in ray.get(done):
                if isinstance(came, CommandFailed):
                    failed = failed or came
                else:
                    n_trained += came
            if (failed is not None or stop.is_set()) and not is_stopping:
                is_stopping = True
                for worker in workers:
                    worker.stop.remote()
    except (ray.exceptions.RayError, ConnectionError) as error:
        raise NotNow(f"a machine of the cluster is gone ({type(error).__name__}); the same command goes on") from error
    if failed is not None:
        raise failed
    return n_trained
