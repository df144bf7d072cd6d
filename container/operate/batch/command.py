"""`mme score`: score the rows of all segments where they lie.

Rule: what the same rows would get from the endpoint, to the last bit; what it would refuse is told and counted.
"""

from __future__ import annotations

import argparse
import json
import logging
import shlex
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from container import environments, settings
from container.operate.batch.asked import Asked
from container.operate.batch.jobs import ROOT, Job, JobParser, job_at, with_flags
from container.operate.cluster import Cluster
from container.operate.exits import CommandFailed, Exit
from container.operate.jobs import order as jobs
from container.operate.printing import complain, say
from container.operate.stopping import stop_event
from container.operate.tables.reading import FORMATS
from container.operate.troubles import Misused
from handler.errors import StartRefused
from handler.outputs import parse_outputs

if TYPE_CHECKING:
    from container.operate.batch.opened import FromRelease
    from container.operate.batch.run import Outcome
    from container.settings import Settings


class NotGoodEnough(CommandFailed):
    """The run is done, and is a failure all the same."""

    exit = Exit.MODEL_ERROR


EPILOG = """\
exit codes
  0    done, with no more errors than --strict and --max-errors allow
  1    anything that is not below
  2    the command cannot be understood, or --out holds another run
  4    done, with more errors than allowed, or with no row scored: there is no _SUCCESS
  5    something could not be had just now: the same command goes on
  130  stopped by a signal: the same command goes on
"""


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "score",
        help="score rows of all segments where they lie, without an endpoint",
        description="Score rows of all segments with the endpoint's own models and code, without HTTP.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_arguments(parser)
    parser.set_defaults(run=run)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--models", help="where the artifacts are: s3://bucket/prefix/ or a directory")
    parser.add_argument(
        "--data", nargs="+", metavar="LOCATION",
        help="files, directories, S3 prefixes or objects, or a SageMaker manifest (.manifest, .json)",
    )  # fmt: skip
    parser.add_argument("--out", metavar="LOCATION", help="the run's place: s3://bucket/prefix/ or a directory")
    parser.add_argument(
        "--release", metavar="ID", help="with the models of a release, live or not; else with what is live"
    )
    parser.add_argument(
        "--releases", metavar="LOCATION", help="where releases lie; else beside --models, MODELS.releases"
    )
    which = parser.add_argument_group("which model scores a row")
    which.add_argument("--segment-column", metavar="C", help="the column whose value is the target without .tar.gz")
    which.add_argument("--target", metavar="T", help="the target, with columns in braces: 'us/{city}.tar.gz'")
    which.add_argument(
        "--target-from", choices=("path",),
        help="the file's path says it: {path}.tar.gz, or --target with {path}, {folder}, {name}, or {key} of key=value",
    )  # fmt: skip
    what = parser.add_argument_group("what is written")
    what.add_argument("--output", metavar="NAMES", help="such as probabilities,margin,contribs; else the score")
    what.add_argument(
        "--iterations",
        choices=("all", "best"),
        help="boosting rounds that answer; else as whoever wrote the model does",
    )
    what.add_argument("--keep", metavar="NAMES", help="columns to carry along, such as id")
    what.add_argument("--format", choices=FORMATS, default="parquet", help="of parts and errors (default parquet)")
    how = parser.add_argument_group("how data is read")
    how.add_argument("--data-format", choices=FORMATS, help="of files whose names do not say")
    how.add_argument("--no-header", action="store_true", help="CSV without names; columns are called 0, 1, ...")
    parser.add_argument(
        "--on", metavar="WHERE",
        help="ray: on all machines of the Ray cluster that this one is part of, or of a cluster of this machine; "
        "ray://HOST:PORT: on that cluster",
    )  # fmt: skip
    parser.add_argument("--sample", type=int, metavar="N", help="look at N rows of the first file and write nothing")
    parser.add_argument("--strict", action="store_true", help="any error makes the run a failure")
    parser.add_argument(
        "--max-errors",
        type=int,
        metavar="N",
        help="more than N make the run a failure; without it only a run that scores no row is one",
    )
    parser.add_argument("--memory", help="memory for models, such as 2GiB; else what the machine's limit leaves")
    parser.add_argument("--disk-dir", help="directory in which examined models are kept between runs")
    parser.add_argument(
        "--scratch", metavar="DIR",
        help="where rows wait whose models do not fit into memory together; else MME_SCRATCH, TMPDIR or the system's",
    )  # fmt: skip
    parser.add_argument("--s3-endpoint-url", dest="endpoint_url", help="another S3 than Amazon's")
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")
    jobs.add_arguments(parser)
    parser.add_argument(
        "--opt-ml", type=Path, default=ROOT, metavar="DIR",
        help="where SageMaker puts a job's files (default /opt/ml); a job's hyperparameters are flags by their names",
    )  # fmt: skip


def run(chosen: argparse.Namespace) -> int:
    logging.basicConfig(level="WARNING", stream=sys.stderr, format="%(levelname)-7s %(name)s: %(message)s")
    with stop_event() as stop:
        return _run_or_say_why(chosen, stop)


def _run_or_say_why(chosen: argparse.Namespace, stop: threading.Event) -> int:
    job: Job | None = None
    try:
        job = job_at(chosen.opt_ml)
        if job is not None:
            chosen = with_flags(chosen, _parser(), job.flags)
        return _run(chosen, job, stop)
    except (CommandFailed, StartRefused) as error:
        if job is not None:
            job.say_why(str(error))
        return complain("score", error if isinstance(error, CommandFailed) else Misused(str(error)))
    except Exception as error:
        if job is not None:
            job.say_why(f"{type(error).__name__}: {error}")
        raise


def _run(chosen: argparse.Namespace, job: Job | None, stop: threading.Event) -> int:
    if not chosen.data:
        raise Misused("--data: which rows?")
    asked = asked_of(chosen)
    chosen_settings = settings_of(chosen)
    if chosen.job:
        from container.operate.batch.submit import run_as_job

        return run_as_job(chosen, _parser(), stop)
    if chosen.plan:
        raise Misused("--plan shows the request of a --job; which kind?")
    _need_pyarrow()
    if chosen.sample is not None:
        return _sample(chosen, chosen_settings, asked)
    return _score(chosen, chosen_settings, asked, job, stop)


def _parser() -> JobParser:
    parser = JobParser()
    add_arguments(parser)
    return parser


def asked_of(chosen: argparse.Namespace) -> Asked:
    """Raises Misused."""
    is_from_path = chosen.target_from == "path"
    if is_from_path and chosen.segment_column:
        raise Misused("--segment-column and --target-from: which of them says the model?")
    template = chosen.target
    if template is None:
        if not (is_from_path or chosen.segment_column):
            raise Misused("which model scores a row? use --segment-column, --target or --target-from path")
        template = f"{{{'path' if is_from_path else chosen.segment_column}}}.tar.gz"
    asked = Asked(
        target_template=template,
        is_from_path=is_from_path,
        keep=tuple(name for name in (chosen.keep or "").split(",") if name),
        outputs=parse_outputs(chosen.output or ""),
        iterations=chosen.iterations,
        out_format=chosen.format,
        data_format=chosen.data_format,
        has_header=not chosen.no_header,
    )
    if chosen.segment_column and chosen.segment_column not in asked.fields:
        raise Misused(f"--target {template!r} does not name --segment-column {chosen.segment_column!r}")
    clash = set(asked.keep) & set(asked.outputs or ("score",))
    if clash or len(set(asked.keep)) < len(asked.keep):
        raise Misused(f"--keep {chosen.keep}: two columns would have one name")
    return asked


def settings_of(chosen: argparse.Namespace) -> Settings:
    """Models are not looked for anew while a run lasts. Raises StartRefused."""
    given = {name: getattr(chosen, name) for name in ("models", "memory", "disk_dir", "endpoint_url", "scratch")}
    flags = {("memory_bytes" if name == "memory" else name): value for name, value in given.items()}
    return settings.read({**flags, "max_age_s": "0"})


def _release_of(chosen: argparse.Namespace) -> FromRelease | None:
    from container.operate.batch.opened import FromRelease

    if chosen.releases and not chosen.release:
        raise Misused("--releases says where --release ID lies; which one?")
    return FromRelease(chosen.release, chosen.releases) if chosen.release else None


def _cluster_of(chosen: argparse.Namespace, job: Job | None) -> Cluster | None:
    if chosen.on and job is not None:
        raise Misused("--on: a job has hosts of its own")
    return Cluster.parse(chosen.on) if chosen.on else None


def _need_pyarrow() -> None:
    environments.let_arrow_use_malloc()
    try:
        import pyarrow  # noqa: F401 - to see whether it is there
    except ImportError as error:
        raise Misused(
            "there is no pyarrow here: pip install 'multi-model-endpoint[arrow]'; an image has it when it was built with "
            "`./build.sh image --arrow`"
        ) from error


def _score(
    chosen: argparse.Namespace, chosen_settings: Settings, asked: Asked, job: Job | None, stop: threading.Event
) -> int:
    from container.operate.batch.run import run as run_all
    from container.operate.batch.work import collect_rarely, keep_heap

    if not chosen.out:
        raise Misused("--out: where should the run lie?")
    keep_heap()
    collect_rarely()
    max_errors = 0 if chosen.strict else chosen.max_errors
    began = time.monotonic()
    outcome = run_all(
        chosen_settings,
        asked,
        chosen.data,
        chosen.out,
        max_errors=max_errors,
        stop=stop,
        share=job.share if job else None,
        release=_release_of(chosen),
        cluster=_cluster_of(chosen, job),
    )
    _tell(chosen, outcome, time.monotonic() - began)
    if not outcome.failure:
        return Exit.OK
    failed = NotGoodEnough(f"{outcome.failure}; the errors are below {chosen.out}")
    if job is not None:
        job.say_why(str(failed))
    return complain("score", failed)


def _tell(chosen: argparse.Namespace, outcome: Outcome, took_s: float) -> None:
    summary: dict[str, Any] = outcome.summary or {}
    if chosen.json:
        print(json.dumps({name: value for name, value in summary.items() if name != "models"}))
        return
    if not summary:
        say("scored", f"{outcome.n_parts} parts", f"{took_s:.1f} s", "others have theirs to do")
        return
    say("scored", f"{summary['scored']:,} rows", f"{summary['segments']:,} segments", f"{took_s:.1f} s")
    say("parts", str(outcome.n_parts), *([f"{outcome.n_done_before} were done before"] * bool(outcome.n_done_before)))
    if summary["errors"]:
        say("errors", f"{summary['errors']:,}", f"{len(summary['missing'])} segments without a model", chosen.out)
        for name, why in list(summary["failed"].items())[:10]:
            say("failed", name, why)
    listing = "aws s3 ls" if chosen.out.startswith("s3://") else "ls"
    say("next", f"{listing} {shlex.quote(chosen.out)}")


def _sample(chosen: argparse.Namespace, chosen_settings: Settings, asked: Asked) -> int:
    from container.operate.batch.sample import look

    seen = look(chosen_settings, asked, chosen.data, max(1, chosen.sample), _release_of(chosen))
    if chosen.json:
        print(json.dumps(seen.facts))
        return Exit.OK
    say("file", seen.facts["file"], f"{seen.facts['rows']} rows looked at", f"{seen.facts['files']} files in all")
    say("columns", ", ".join(f"{name} ({kind})" for name, kind in seen.facts["columns"].items()))
    say("segments", str(seen.facts["segments"]), f"{len(seen.facts['missing'])} without a model")
    for target in seen.facts["missing"][:10]:
        say("missing", target)
    for why, n_rows in list(seen.facts["errors"].items())[:10]:
        say("errors", f"{n_rows} rows", why)
    for line in seen.first_rows:
        say("row", line)
    say("next", "the same without --sample")
    return Exit.OK
