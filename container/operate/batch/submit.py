"""`mme score --job`: the run as a job on SageMaker, and how far it is by its ledger.

Rule: what the job is told is what this command was told, word for word, but for what is about the job itself.
"""

from __future__ import annotations

import argparse
import json
import threading
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import Any

from container.operate.batch.ledger import RUN, SUCCESS, SUMMARY, Entry
from container.operate.documents import read_as
from container.operate.exits import CommandFailed, Exit
from container.operate.jobs.following import COMPLETED, POLL_S, STOPPED, Job
from container.operate.jobs.order import FLAGS, Order, ordered
from container.operate.printing import say
from container.operate.troubles import Misused, NotNow
from handler import aws
from handler.errors import ArtifactError, ArtifactMissing
from handler.stores import Store
from handler.stores.s3 import S3Settings
from handler.stores.writing import open_writing_store

COMMAND = "score"
LEDGER = "ledger/"
# Names of the namespace whose flag is called otherwise.
_CALLED = {"endpoint_url": "s3-endpoint-url"}
_NOT_FOR_JOBS = (*FLAGS, "command", "run", "sample", "json", "opt_ml")


class JobFailed(CommandFailed):
    """It ended otherwise than well, and how."""


class JobWithErrors(JobFailed):
    exit = Exit.MODEL_ERROR


def order_of(chosen: argparse.Namespace, parser: argparse.ArgumentParser) -> Order:
    """parser: of all flags, for what they are without being said. Raises Misused."""
    if not chosen.out:
        raise Misused("--out: where should the run lie?")
    if chosen.sample is not None:
        raise Misused("--sample looks at the first rows from here; it is no job")
    locations = {"--models": [chosen.models or ""], "--data": chosen.data, "--out": [chosen.out]}
    if chosen.releases:
        locations["--releases"] = [chosen.releases]
    return ordered(chosen, COMMAND, words_of(chosen, parser), chosen.out, locations)


def words_of(chosen: argparse.Namespace, parser: argparse.ArgumentParser) -> list[str]:
    """The command line again, without what is the same unsaid."""
    words: list[str] = []
    for name, value in vars(chosen).items():
        if name in _NOT_FOR_JOBS or value == parser.get_default(name):
            continue
        flag = f"--{_CALLED.get(name, name).replace('_', '-')}"
        if value is True:
            words.append(flag)
        elif isinstance(value, list):
            words += [flag, *value]
        else:
            words.append(f"{flag}={value}")
    return words


def run_as_job(chosen: argparse.Namespace, parser: argparse.ArgumentParser, stop: threading.Event) -> int:
    """Raises CommandFailed."""
    order = order_of(chosen, parser)
    if chosen.plan:
        print(json.dumps(order.request(f"{order.base}-1"), indent=2))
        return Exit.OK
    job = Job(aws.client("sagemaker", aws.Patience(read_s=20.0, attempts=3)), order)
    with closing(open_writing_store(chosen.out, s3=S3Settings(endpoint_url=chosen.endpoint_url))) as store:
        name, is_new = job.start()
        say("started" if is_new else "found", name, f"log {job.log_group} {name}/")
        seen = job.follow(name, Watch(store).text, stop, poll_s=POLL_S)
        summary = _read(store, SUMMARY)
        if seen.status == COMPLETED:
            return _tell(chosen, name, summary)
        if seen.status == STOPPED:
            raise NotNow(f"{name} was stopped; the same command goes on")
        is_scored = summary is not None and _read(store, SUCCESS) is None
        raise (JobWithErrors if is_scored else JobFailed)(f"{name}: {seen.why}; its log is {job.log_group} {name}/")


@dataclass(frozen=True, slots=True)
class _Run:
    n_files: int


class Watch:
    """How far a run is, by the entries of its ledger, each of which is read once."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: set[str] = set()
        self._n_files = 0
        self._n_rows = 0
        self._n_errors = 0

    def text(self) -> str:
        """Raises NotNow, and Refused where a document is not as it was written."""
        try:
            self._look()
        except ArtifactError as error:
            raise NotNow(str(error)) from error
        if not self._n_files:
            return ""
        return f"{len(self._known):,} of {self._n_files:,} files  {self._n_rows:,} rows  {self._n_errors:,} errors"

    def _look(self) -> None:
        if not self._n_files:
            with suppress(ArtifactMissing):
                run = self._store.fetch(RUN)
                self._n_files = read_as(_Run, run.data, run.uri).n_files
        for one in self._store.list(LEDGER):
            if one.target not in self._known:
                fetched = self._store.fetch(one.target)
                entry = read_as(Entry, fetched.data, fetched.uri)
                self._known.add(one.target)
                self._n_rows += entry.n_rows
                self._n_errors += entry.n_errors


def _read(store: Store, name: str) -> dict[str, Any] | None:
    """None when it is not there. Raises Refused."""
    with suppress(ArtifactMissing):
        fetched = store.fetch(name)
        return read_as(dict[str, Any], fetched.data, fetched.uri) if fetched.data else {}
    return None


def _tell(chosen: argparse.Namespace, name: str, summary: dict[str, Any] | None) -> int:
    summary = summary or {}
    if chosen.json:
        print(json.dumps({"job": name, **{key: value for key, value in summary.items() if key != "models"}}))
        return Exit.OK
    say("scored", f"{summary.get('scored', 0):,} rows", f"{summary.get('segments', 0):,} segments")
    if summary.get("errors"):
        say("errors", f"{summary['errors']:,}", f"{len(summary['missing'])} segments without a model", chosen.out)
    say("next", f"aws s3 ls {chosen.out}")
    return Exit.OK
