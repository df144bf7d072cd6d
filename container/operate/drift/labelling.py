"""`mme labelled`: captured calls with what became true of them, as a table for `mme train`."""

from __future__ import annotations

import argparse
import json
import shlex
import sys

from container.operate.drift.command import guarded, opened_store
from container.operate.exits import Exit
from container.operate.printing import fact
from container.operate.release import place


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "labelled",
        help="join captured calls with labels by their InferenceId, into rows for mme train",
        description="Join captured calls (mme serve --capture) with labels in SageMaker's ground-truth form by the callers' "
        "InferenceId, and write rows for mme train: the segment, the features of what is live, when it came, the label.",
        epilog="exit codes: 0 written; 1 no row has a label; 2 misused; 5 a store is away",
    )
    parser.add_argument("--capture", required=True, metavar="LOC", help="as mme serve was told")
    parser.add_argument("--labels", required=True, metavar="LOC", help="where .jsonl files of ground truth are")
    place.add_arguments(parser, "--of")
    parser.add_argument("--out", required=True, metavar="FILE", help="the table, as CSV; - for stdout")
    parser.add_argument("--json", action="store_true", help="print the facts as JSON")
    parser.set_defaults(run=lambda chosen: guarded("labelled", _run, chosen))


def _run(chosen: argparse.Namespace) -> int:
    from container.operate.drift.command import Live
    from container.operate.drift.labelled import Joiner, read_labels

    opened = place.open_place(chosen)
    try:
        features = Live(opened).features
    finally:
        opened.close()
    with opened_store(chosen, chosen.labels) as store:
        labels, n_broken = read_labels(store)
    out = sys.stdout if chosen.out == "-" else open(chosen.out, "w", newline="")  # noqa: SIM115  closed below
    try:
        with opened_store(chosen, chosen.capture) as store:
            joined = Joiner(features, labels, out).join(store)
    finally:
        if out is not sys.stdout:
            out.close()
    facts = sys.stderr if chosen.out == "-" else sys.stdout
    if chosen.json:
        told = {"rows": joined.n_rows, "calls": joined.n_calls, "left_out": joined.left_out, "broken_labels": n_broken}
        print(json.dumps(told), file=facts)
    else:
        print(fact("written", f"{joined.n_rows:,} rows of {joined.n_calls:,} calls", chosen.out), file=facts)
        for why, n in sorted(joined.left_out.items(), key=lambda pair: -pair[1]):
            print(fact("left out", f"{n:,} calls: {why}"), file=facts)
        if n_broken:
            print(fact("left out", f"{n_broken:,} lines that are no labels"), file=facts)
        if joined.n_rows and chosen.out != "-":
            table = f"--data {shlex.quote(chosen.out)} --segment-column segment --label label --drop captured_at"
            print(fact("next", f"mme train {table} --to {opened.named}"), file=facts)
    return Exit.OK if joined.n_rows else Exit.FAILED
