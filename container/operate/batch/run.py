"""A run: every file of the data that is not done yet, scored and written down, here or on a cluster.

Rule: what is done is in the ledger, and what a run is in its run.json; so whoever calls it again, with more machines or with
fewer, goes on and ends with the same bytes.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from container.operate.batch import on_ray
from container.operate.batch.asked import Asked
from container.operate.batch.ledger import Ledger
from container.operate.batch.opened import FromRelease, Models
from container.operate.batch.progress import Progress
from container.operate.batch.share import Share
from container.operate.batch.work import Work
from container.operate.cluster import Cluster
from container.operate.tables.contents import by_content, models_by_content
from container.operate.tables.files import find_parts, s3_of
from container.operate.tables.spill import full_is_said, scratch_folder
from container.operate.troubles import Misused, NotNow
from container.settings import Settings
from handler.errors import ArtifactError, StartRefused
from handler.stores.writing import open_writing_store


@dataclass(frozen=True, slots=True)
class Outcome:
    """summary: of the whole run once nothing is left to do by any host, else None. failure: why it is one though it is done;
    empty where it is none. n_loads: models loaded here."""

    summary: dict[str, Any] | None
    n_loads: int
    n_parts: int
    n_done_before: int
    failure: str = ""


def run(
    settings: Settings,
    asked: Asked,
    data: Sequence[str],
    out: str,
    *,
    share: Share | None = None,
    release: FromRelease | None = None,
    cluster: Cluster | None = None,
    max_errors: int | None,
    stop: threading.Event,
) -> Outcome:
    """Score what is left of a run. Raises CommandFailed.

    share       a job's: what lies on this host is then known by its content; None is everything
    release     whose models score; None is what is live
    cluster     of Ray, whose machines do the work; None is this one
    max_errors  with more there is no _SUCCESS; None is any number as long as something was scored
    stop        set by whoever wants it to end soon
    """
    endpoint_url = settings.artifacts.endpoint_url
    _refuse_below(out, data)
    files = find_parts(data, asked.data_format, endpoint_url)
    if share is not None:
        files = by_content(files)
    with ExitStack() as closing:
        scratch = closing.enter_context(scratch_folder(settings.front.scratch))
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
            work = Work(settings, asked, files, models.models, ledger, scratch, stop)
            layout = ledger.read_layout() or ledger.begin(work.find_layout())
            done = {name for name, entry in ledger.entries().items() if not entry.failure}
            own = (share or Share()).files(files)
            mine = [file for file in own if file.name not in done]
            progress = Progress(len(mine), sum(file.size for file in mine))
            with contextlib.closing(progress):
                if cluster is None:
                    with full_is_said(scratch):
                        work.score(mine, layout, progress)
                else:
                    task = on_ray.Task(settings, asked, tuple(data), out, release, files, versions, layout)
                    on_ray.score(cluster, task, mine, progress, stop)
            entries = ledger.entries()
            summary, failure = None, ""
            if len(entries) == len(files):
                summary = ledger.summary(entries)
                failure = _failure(summary, max_errors)
                ledger.finish(summary, is_success=not failure)
        except ArtifactError as error:
            raise NotNow(f"--out {out}: {error}; the same command goes on") from error
        return Outcome(summary, models.models.n_loads, len(mine), len(own) - len(mine), failure)


def _failure(summary: Mapping[str, Any], max_errors: int | None) -> str:
    """Why a run that is done is a failure. One that has scored nothing is: whoever comes next would take it for answers."""
    n_errors = summary["errors"]
    if max_errors is not None:
        return f"{n_errors} errors, {max_errors} are allowed" if n_errors > max_errors else ""
    is_for_nothing = n_errors and not summary["scored"]
    return f"none of {summary['rows']:,} rows was scored; --max-errors may allow it" if is_for_nothing else ""


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
