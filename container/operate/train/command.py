"""`mme train`: what the operator or a job writes, handed to what does it.

Rule: nothing is decided here. A command says what is, then what it did, and the next step last.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import threading
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from container import environments
from container.operate.batch.jobs import ROOT, JobParser, with_flags
from container.operate.cluster import Cluster
from container.operate.exits import CommandFailed, Exit
from container.operate.jobs.machines import machines_of
from container.operate.printing import complain, fact, say, size_text
from container.operate.release import place
from container.operate.release.trouble import told
from container.operate.stopping import stop_event
from container.operate.tables.reading import FORMATS
from container.operate.train import starting
from container.operate.train.job import TrainingJob, training_job_at
from container.operate.troubles import Misused
from handler.errors import StartRefused

if TYPE_CHECKING:
    from container.operate.release.manifest import Manifest
    from container.operate.release.place import Place
    from container.operate.train.approving import Verdict
    from container.operate.train.asked import Asked
    from container.operate.train.run import Outcome, Sources

EPILOG = """\
exit codes
  0    done: a candidate release is there (and is live, where --approve-if let it)
  1    done, and --approve-if kept it from going live
  2    the command cannot be understood
  3    refused: data that cannot be read, no rows, no such bucket or credentials, or it may not be read or written
  4    no segment has got a model
  5    something could not be had just now: the same command goes on
  130  stopped by a signal: the same command goes on
"""
N_SHOWN = 10


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "train",
        help="train a model for each segment, judge it beside the live one, and make a candidate release",
        description="Train a model for each segment of the data on all cores, judge each on rows it has not seen beside the "
        "live model, and make a candidate release. Nothing goes live, but with --approve-if.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_arguments(parser)
    parser.set_defaults(run=run)


def add_learning(parser: argparse.ArgumentParser) -> None:
    """What says what is trained of what, wherever it is: here, in a job, in a pipeline."""
    parser.add_argument(
        "--data", nargs="+", metavar="LOCATION",
        help="files, directories, S3 prefixes or objects, or a SageMaker manifest (.manifest, .json)",
    )  # fmt: skip
    place.add_arguments(parser, "--to", is_required=False)
    which = parser.add_argument_group("what is learned of what")
    which.add_argument("--segment-column", metavar="C", help="the column whose value is the target without .tar.gz")
    which.add_argument("--target", metavar="T", help="the target, with columns in braces: 'us/{city}.tar.gz'")
    which.add_argument(
        "--target-from", choices=("path",),
        help="the file's path says it: {path}.tar.gz, or --target with {path}, {folder}, {name}, or {key} of key=value",
    )  # fmt: skip
    which.add_argument("--label", metavar="C", help="the column to be predicted; the first of CSV without names")
    which.add_argument(
        "--features", metavar="NAMES", help="columns to learn from, in this order; else all that hold numbers"
    )
    which.add_argument("--drop", metavar="NAMES", help="columns that are no features")
    which.add_argument("--categories", metavar="NAMES", help="columns of words that are features")
    which.add_argument("--weight", metavar="C", help="the column that says a row's weight")
    which.add_argument("--group", metavar="C", help="the column that says which query a row of a ranking belongs to")
    which.add_argument("--date", metavar="C", help="a column whose first and last value go into the release")
    how = parser.add_argument_group("how it is learned")
    how.add_argument(
        "--params", type=Path, metavar="FILE",
        help="hyperparameters by XGBoost's names, TOML or JSON; those below [us/*] are for these segments",
    )  # fmt: skip
    how.add_argument(
        "--set", nargs="+", default=[], metavar="NAME=VALUE", help="a hyperparameter for all, such as eta=0.1"
    )
    how.add_argument(
        "--search", nargs="+", default=[], metavar="NAME=VALUE,VALUE", help="try all combinations for each segment"
    )
    how.add_argument("--trials", type=int, metavar="N", help="of --search, so many drawn with the seed")
    how.add_argument("--min-rows", type=int, default=20, metavar="N", help="fewer to train on are too few; default 20")
    judge = parser.add_argument_group("how it is judged")
    judge.add_argument(
        "--holdout", type=float, default=0.2, metavar="SHARE", help="of each segment's rows; default 0.2"
    )
    judge.add_argument("--holdout-column", metavar="C", help="rows where this column is not 0 judge")
    judge.add_argument("--validation", nargs="+", metavar="LOCATION", help="rows of these files judge")
    judge.add_argument(
        "--metrics", metavar="NAMES", help="XGBoost's names; the first compares, the objective's own else"
    )
    judge.add_argument(
        "--fallback-below", type=int, metavar="N",
        help="fewer rows than N, or no better than a constant: no model, and one over all rows, _default, covers them",
    )  # fmt: skip
    read = parser.add_argument_group("how data is read")
    read.add_argument("--data-format", choices=FORMATS, help="of files whose names do not say")
    read.add_argument("--no-header", action="store_true", help="CSV without names; columns are called 0, 1, ...")
    parser.add_argument("--note", default="", metavar="TEXT", help="what this release is")
    parser.add_argument(
        "--memory", metavar="SIZE", help="for rows, such as 1GiB, before they go to disk; default 256MiB"
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_learning(parser)
    parser.add_argument(
        "--approve-if", metavar="CONDITIONS",
        help="make it live if all hold, such as 'worse<=0.01,failed<=0.05'; see README",
    )  # fmt: skip
    parser.add_argument(
        "--id-file", type=Path, metavar="FILE", help="write the release's id into it, for what comes after"
    )
    parser.add_argument(
        "--on", metavar="WHERE",
        help="ray: on all machines of the Ray cluster that this one is part of, or of a cluster of this machine; "
        "ray://HOST:PORT: on that cluster",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print the facts as JSON")
    starting.add_arguments(parser)
    parser.add_argument(
        "--opt-ml", type=Path, default=ROOT, metavar="DIR",
        help="where SageMaker puts a job's files (default /opt/ml); a job's hyperparameters are flags and XGBoost's names",
    )  # fmt: skip


def run(chosen: argparse.Namespace) -> int:
    logging.basicConfig(level="WARNING", stream=sys.stderr, format="%(levelname)-7s %(name)s: %(message)s")
    environments.let_openmp_sleep()
    environments.let_arrow_use_malloc()
    with stop_event() as stop:
        return _run_or_say_why(chosen, stop)


def _run_or_say_why(chosen: argparse.Namespace, stop: threading.Event) -> int:
    job: TrainingJob | None = None
    try:
        job = training_job_at(chosen.opt_ml)
        if job is not None:
            chosen = _with_flags_of(job, chosen)
        return _run(chosen, job, stop)
    except (CommandFailed, StartRefused) as error:
        if job is not None:
            job.say_why(str(error))
        if chosen.json:
            print(json.dumps({"error": type(error).__name__, "message": str(error)}))
        return complain("train", error if isinstance(error, CommandFailed) else Misused(str(error)))
    except Exception as error:
        if job is not None:
            job.say_why(f"{type(error).__name__}: {error}")
        raise


def _with_flags_of(job: TrainingJob, chosen: argparse.Namespace) -> argparse.Namespace:
    parser = JobParser()
    add_arguments(parser)
    names = frozenset(
        action.option_strings[0][2:] for action in parser._actions if action.option_strings[0][:2] == "--"
    )
    return with_flags(chosen, parser, job.flags(names))


def _run(chosen: argparse.Namespace, job: TrainingJob | None, stop: threading.Event) -> int:
    from container.operate.release.figures import Conditions
    from container.operate.train import run as running
    from container.operate.train.approving import approve_if
    from container.operate.train.rows import BUDGET_BYTES

    if not chosen.data:
        raise Misused("--data: which rows?")
    if not chosen.live:
        raise Misused("--to: where do releases go?")
    asked = asked_of(chosen)
    conditions = None if chosen.approve_if is None else Conditions.parse(chosen.approve_if)
    if chosen.id_file is not None and not chosen.id_file.absolute().parent.is_dir():
        raise Misused(f"--id-file {chosen.id_file}: there is no such directory")  # now, not when all is trained
    if chosen.job or chosen.plan:
        return _start(chosen, stop)
    _need_pyarrow()
    began = time.monotonic()
    with told("the same command goes on"), closing(place.open_place(chosen, makes=True)) as opened:
        from container.operate.release.who import who

        me = who(opened)
        sources = running.Sources(tuple(chosen.data), tuple(chosen.validation or ()))
        budget_bytes = _memory(chosen.memory, BUDGET_BYTES)
        n_elsewhere = 0
        if chosen.on is not None:
            n_elsewhere = _on_cluster(chosen, job, opened, asked, sources, me, budget_bytes, stop)
        outcome = running.run(
            opened,
            asked,
            sources,
            who=me,
            note=chosen.note,
            stop=stop,
            share=None if job is None else running.Share(job.share.number, job.share.of, is_job=True),
            budget_bytes=budget_bytes,
        )
        if n_elsewhere:
            outcome = replace(outcome, n_trained=n_elsewhere + outcome.n_trained, is_new=True)
        verdict = None
        if conditions is not None and outcome.manifest is not None:
            verdict = approve_if(conditions, opened, outcome.manifest, me)
        if chosen.id_file is not None and outcome.manifest is not None:
            chosen.id_file.write_text(outcome.manifest.id)
        _tell(chosen, opened, outcome, verdict, time.monotonic() - began)
        if verdict is None or not verdict.broken:
            return Exit.OK
        if job is not None:
            job.say_why(f"{verdict.release} is not live: {'; '.join(verdict.broken)}")
        return Exit.FAILED


def _on_cluster(
    chosen: argparse.Namespace,
    job: TrainingJob | None,
    opened: Place,
    asked: Asked,
    sources: Sources,
    me: str,
    budget_bytes: int,
    stop: threading.Event,
) -> int:
    """What a cluster's machines trained; what they made lies on the shelf."""
    from container.operate.train import on_ray

    if job is not None:
        raise Misused("--on: a job has hosts of its own")
    task = on_ray.Task(chosen.live, chosen.releases, opened.endpoint_url, asked, sources, me, chosen.note, budget_bytes)
    return on_ray.train(Cluster.parse(chosen.on), task, stop)


def _start(chosen: argparse.Namespace, stop: threading.Event) -> int:
    machines = machines_of(chosen)
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    parameters = starting.hyperparameters_of(chosen, parser)
    with told("call again"), closing(place.open_place(chosen, makes=True)) as opened:
        params = starting.put_params(opened, chosen.params)
        request = starting.training_request(machines, parameters, params, opened.shelf.uri("jobs/"))
        name = starting.name_of(chosen.job_name)
        if chosen.plan:
            print(json.dumps({"TrainingJobName": name, **request}, indent=1))
            return Exit.OK
        from handler import aws

        client = aws.client("sagemaker", aws.Patience(2.0, 20.0, 3), endpoint_url=opened.endpoint_url)
        say("started", starting.start(client, name, request))
        starting.follow(client, name, stop)
        say("next", f"mme release diff --of {opened.named}")
    return Exit.OK


def _need_pyarrow() -> None:
    try:
        import pyarrow  # noqa: F401 - to see whether it is there
    except ImportError as error:
        raise Misused("it needs pyarrow: pip install 'multi-model-endpoint[arrow]'") from error


def asked_of(chosen: argparse.Namespace) -> Asked:
    """Raises Misused."""
    from container.operate.train.asked import Asked
    from container.operate.train.parameters import read

    label = chosen.label
    if label is None and chosen.no_header:
        label = "0"  # SageMaker's convention
    if label is None:
        raise Misused("--label: which column is to be predicted?")
    asked = Asked(
        target_template=template_of(chosen),
        is_from_path=chosen.target_from == "path",
        data_format=chosen.data_format,
        has_header=not chosen.no_header,
        label=label,
        weight=chosen.weight,
        group=chosen.group,
        date=chosen.date,
        features=_names(chosen.features),
        drop=_names(chosen.drop),
        categories=_names(chosen.categories),
        holdout=chosen.holdout,
        holdout_column=chosen.holdout_column,
        has_validation=bool(chosen.validation),
        metrics=_names(chosen.metrics),
        min_rows=chosen.min_rows,
        fallback_below=chosen.fallback_below,
        parameters=read(chosen.params, chosen.set, chosen.search, chosen.trials),
    )
    asked.check()
    return asked


def template_of(chosen: argparse.Namespace) -> str:
    """Which model a row is of. Raises Misused."""
    is_from_path = chosen.target_from == "path"
    if is_from_path and chosen.segment_column:
        raise Misused("--segment-column and --target-from: which of them says the model?")
    if chosen.target is not None:
        template: str = chosen.target
    elif is_from_path:
        template = "{path}.tar.gz"
    elif chosen.segment_column:
        template = f"{{{chosen.segment_column}}}.tar.gz"
    else:
        raise Misused("which model is a row of? use --segment-column, --target or --target-from path")
    if not template.endswith(".tar.gz"):
        raise Misused(f"--target {template!r}: what goes live is a .tar.gz, and named so")
    return template


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(name.strip() for name in (text or "").split(",") if name.strip())


def _memory(text: str | None, otherwise: int) -> int:
    from container import settings

    if text is None:
        return otherwise
    n_bytes = settings.read_one("memory_bytes", text, environ={})
    return otherwise if n_bytes is None else int(n_bytes)


def _tell(chosen: argparse.Namespace, opened: Place, outcome: Outcome, verdict: Verdict | None, took_s: float) -> None:
    manifest = outcome.manifest
    if chosen.json:
        judged = {} if verdict is None else {"approved": not verdict.broken, "broken": list(verdict.broken)}
        print(json.dumps({**facts_of(outcome, took_s), **judged}))
        return
    before = [f"{outcome.n_before:,} were done before"] * bool(outcome.n_before)
    say("trained", f"{outcome.n_trained:,} segments", *before, f"{outcome.n_rows:,} rows", f"{took_s:.1f} s")
    if outcome.unused:
        say("unused", "columns of words: " + ", ".join(outcome.unused), "--categories takes them")
    for why, n_rows in sorted(outcome.unplaced.items(), key=lambda one: -one[1])[:N_SHOWN]:
        say("left out", f"{n_rows:,} rows: {why}")
    if manifest is None:
        say("next", "other hosts have theirs to do; the release is written by the last")
        return
    for line in manifest_lines(manifest):
        print(line)
    if not outcome.is_new:
        say("the same", f"as {manifest.id}; no other release was made")
    if verdict is not None and not verdict.broken:
        say("approved", manifest.id, "every condition holds")
        return
    for why in () if verdict is None else verdict.broken:
        say("not live", why)
    say("next", f"mme release diff {manifest.id} --of {opened.named}")


def manifest_lines(manifest: Manifest) -> list[str]:
    """What a release of trained models is, in a few lines."""
    from container.operate.release.diff import FAR
    from container.operate.release.telling import refused_lines, some

    n_bytes = n_rows = 0
    first = last = ""
    low: list[str] = []
    moved: list[tuple[float, str, str]] = []
    for key in sorted(manifest.segments):
        segment = manifest.segments[key]
        trained = segment.trained
        n_bytes += segment.n_bytes
        if trained is None:
            continue
        n_rows += trained.n_rows
        first = min(filter(None, (first, trained.first)), default="")
        last = max(last, trained.last)
        if trained.is_above_floor is False:
            low.append(f"{key}: than a constant")
        if trained.drift is not None and trained.drift >= FAR:
            moved.append((trained.drift, key, trained.drift_feature))
    dates = [f"{first} to {last}"] * bool(first)
    lines = [
        fact("release", manifest.id, f"{len(manifest.segments):,} segments", size_text(n_bytes)),
        fact("data", f"{n_rows:,} rows", *dates),
    ]
    lines += some("no better", low)
    lines += some("drift", [f"{key}  {feature} {drift:.2f}" for drift, key, feature in sorted(moved, reverse=True)])
    return [*lines, *refused_lines(manifest.refused)]


def facts_of(outcome: Outcome, took_s: float) -> dict[str, Any]:
    manifest = outcome.manifest
    facts: dict[str, Any] = {
        "release": None if manifest is None else manifest.id,
        "is_new": outcome.is_new,
        "n_trained": outcome.n_trained,
        "n_before": outcome.n_before,
        "n_rows": outcome.n_rows,
        "left_out": dict(outcome.unplaced),
        "unused": list(outcome.unused),
        "took_s": round(took_s, 2),
    }
    if manifest is not None:
        facts |= {"n_segments": len(manifest.segments), "refused": manifest.refused}
    return facts
