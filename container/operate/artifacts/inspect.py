"""`mme inspect`: what an archive is, told without serving it.

Rule: what is said here is what an endpoint would find; a refusal comes in the endpoint's own words.
"""

from __future__ import annotations

import argparse
import json
import shlex
import textwrap
from typing import TYPE_CHECKING, Any

from container.operate.artifacts import archive
from container.operate.artifacts.archive import Archive, ArchiveUnusable
from container.operate.exits import Exit
from container.operate.printing import complain, say, size_text

if TYPE_CHECKING:
    from container.examine.quarantine import Examined
    from handler.importer import Stated

COLUMNS = 110  # of a line of feature names
MAX_NAMES_SHOWN = 60  # --json has them all


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "inspect",
        help="say what an archive is: format, features, trees, memory, corrections",
        description="Say what an archive is. It is opened in a throw-away process, as an endpoint would.",
        epilog=archive.EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    archive.add_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print the facts as JSON")
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> int:
    try:
        access = archive.read_settings(chosen)
        found = archive.fetch(chosen, access)
        with archive.Bench(access.limits) as bench:
            examined = bench.examine(found)
    except ArchiveUnusable as error:
        if chosen.json:
            print(json.dumps({"archive": chosen.archive, "error": error.name, "message": str(error)}))
        return complain("inspect", error)
    if chosen.json:
        print(json.dumps(facts_of(found, examined)))
    else:
        _print(found, examined, chosen)
    return Exit.OK


def facts_of(found: Archive, examined: Examined) -> dict[str, Any]:
    """All there is to know, as plain values; `boosters` has one entry, or one for each fold."""
    return {
        "archive": found.uri,
        "n_bytes": len(found.data),
        "sha256": found.sha256,
        "resident_bytes": sum(facts.resident_bytes for facts in examined.facts),
        "boosters": [
            {
                "member": origin.member,
                "n_bytes": origin.n_bytes,
                "resident_bytes": facts.resident_bytes,
                "is_walked": facts.is_forest,
                "format": origin.stated.format,
                "release": _release(origin.stated),
                "objective": origin.stated.objective,
                "booster": origin.stated.booster,
                "n_features": origin.stated.n_features,
                "feature_names": list(origin.stated.feature_names),
                "feature_types": list(origin.stated.feature_types),
                "n_trees": origin.stated.n_trees,
                "n_rounds": origin.stated.n_rounds,
                "n_classes": origin.stated.n_classes,
                "n_targets": origin.stated.n_targets,
                "n_outputs": origin.stated.n_outputs,
                "best_iteration": origin.stated.best_iteration,
                "writer": origin.stated.predicting.writer,
                "rounds_used": _rounds_used(origin.stated),
                "missing": facts.missing,
                "labels": list(facts.labels),
                "categories": {str(feature): list(names) for feature, names in facts.categories},
                "base_score": list(origin.stated.base_score),
                "is_categorical": origin.stated.is_categorical,
                "corrections": list(origin.stated.corrections),
            }
            for origin, facts in zip(examined.origins, examined.facts, strict=True)
        ],
    }


def _print(found: Archive, examined: Examined, chosen: argparse.Namespace) -> None:
    say("archive", found.uri, size_text(len(found.data)), f"sha256 {found.sha256[:8]}")
    for origin, facts in zip(examined.origins, examined.facts, strict=True):
        stated = origin.stated
        release = _release(stated)
        wrote = f"XGBoost {release}" if release else "a release it does not name"
        say("member", origin.member, f"{stated.format}, written by {wrote}", size_text(origin.n_bytes))
        say("objective", stated.objective, _outputs(stated), stated.booster)
        say("features", *_features(stated))
        say("trees", _trees(stated))
        for told in _predicting(stated):
            say("predicts", told)
        by = "packed and walked" if facts.is_forest else "as XGBoost's own booster"
        say("memory", f"{size_text(facts.resident_bytes)} once loaded", by)
        for correction in stated.corrections:
            say("corrected", correction)
    if len(examined.facts) > 1:
        total = sum(facts.resident_bytes for facts in examined.facts)
        how = "the class most of them say" if examined.facts[0].votes else "their mean"
        say("together", f"{len(examined.facts)} folds answer as one: {how}", f"{size_text(total)} once loaded")
    if any(_needs_converting(origin.stated) for origin in examined.origins):
        named = [shlex.quote(chosen.archive)]
        if chosen.models is not None:
            named += ["--models", shlex.quote(chosen.models)]
        say("next", f"mme convert {' '.join(named)} -o converted.tar.gz")
    else:
        target = chosen.archive if chosen.models is not None else found.uri.rpartition("/")[2]
        location = chosen.models if chosen.models is not None else found.uri.rpartition("/")[0] or "."
        say("next", f"mme serve --models {shlex.quote(location)}", f"and call {shlex.quote(target)}")


def _release(stated: Stated) -> str | None:
    return ".".join(map(str, stated.release)) if stated.release else None


def _needs_converting(stated: Stated) -> bool:
    """Whether something in it is older than the format we write; serving it works all the same."""
    return stated.format != "ubj" or bool(stated.corrections)


def _outputs(stated: Stated) -> str:
    if stated.n_classes > 1:
        return f"{stated.n_classes} classes"
    if stated.n_targets > 1:
        return f"{stated.n_targets} targets"
    return "one output"


def _features(stated: Stated) -> list[str]:
    if not stated.feature_names:
        types = sorted(set(stated.feature_types))
        return [f"{stated.n_features} without names", *([f"types {', '.join(types)}"] if types else [])]
    types_of = stated.feature_types or ("",) * stated.n_features
    named = [f"{name} ({kind})" if kind else name for name, kind in zip(stated.feature_names, types_of, strict=True)]
    if len(named) > MAX_NAMES_SHOWN:
        named = [*named[:MAX_NAMES_SHOWN], f"and {len(named) - MAX_NAMES_SHOWN} more"]
    lines = textwrap.wrap(", ".join(named), COLUMNS - 16, break_long_words=False, break_on_hyphens=False)
    return [str(stated.n_features), f"\n{'':16}".join(lines)]


def _trees(stated: Stated) -> str:
    rounds = f" in {stated.n_rounds} round{'s' * (stated.n_rounds != 1)}" if stated.n_rounds else ""
    return f"none, it is linear{rounds}" if stated.booster == "gblinear" else f"{stated.n_trees}{rounds}"


def _rounds_used(stated: Stated) -> int | None:
    """Boosting rounds that answer when nobody asks for others; None where somebody has to."""
    says = stated.predicting
    if says.is_undecided:
        return None
    return says.best_rounds if says.stops_early and says.best_rounds is not None else stated.n_rounds


def _predicting(stated: Stated) -> list[str]:
    """What its writer says about predicting, a line each."""
    says, told = stated.predicting, []
    by = f"as {says.writer}.predict of its release"
    if says.best_rounds is not None:
        some = f"the {says.best_rounds} rounds up to the best of {stated.n_rounds}"
        if says.is_undecided:
            told.append(f"{some}, or all: nothing says which, so Iterations=all or Iterations=best must")
        elif says.stops_early:
            told.append(f"{some}, {by}; all with Iterations=all")
        else:
            told.append(f"all {stated.n_rounds} rounds, {by}; {some} with Iterations=best")
    elif says.why_unknown:
        told.append(f"all rounds, {by}; not the best alone: {says.why_unknown}")
    if says.missing is not None:
        told.append(f"{says.missing:g} is missing, as NaN is ({says.writer}, missing)")
    if says.labels:
        told.append(f"labels {_shortened(says.labels)} ({says.writer})")
    told += [f"categories of feature {feature}: {_shortened(names)}" for feature, names in stated.categories]
    return told


def _shortened(values: tuple[str | int | float | bool, ...]) -> str:
    shown = ", ".join(map(repr, values[:MAX_NAMES_SHOWN]))
    return f"{shown} and {len(values) - MAX_NAMES_SHOWN} more" if len(values) > MAX_NAMES_SHOWN else shown
