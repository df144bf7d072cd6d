"""`mme publish` and `mme release`: what the operator writes, handed to what does it.

Rule: nothing is decided here. A command says what is, then what it did, and the next step last.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from container import settings
from container.operate.exits import CommandFailed, Exit
from container.operate.printing import complain, fact, lines_of, size_text
from container.operate.release import choice, place
from container.operate.release.trouble import AGAIN, EXIT_CODES, LOOK, NotWhole, told
from container.operate.stopping import stop_event
from container.operate.troubles import Misused, NotNow

if TYPE_CHECKING:
    from container.operate.endpoint.calling import Endpoint
    from container.operate.release.diff import Diff, Gate
    from container.operate.release.manifest import Judged, Manifest
    from container.operate.release.move import Moved
    from container.operate.release.place import Place
    from container.operate.release.registry import Registry

Do = Callable[[argparse.Namespace, "Place"], int]


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    _add_publish(commands)
    release = commands.add_parser("release", help="judge, approve, take back and verify releases of all segments")
    verbs = release.add_subparsers(dest="verb", required=True, metavar="VERB")

    one = _verb(verbs, "list", _list, "releases, and who did what with them")
    one.add_argument("--changes", type=_whole, default=20, metavar="N", help="how many; default %(default)s")

    one = _verb(verbs, "show", _show, "what is live and whether it is whole; or what is in a release")
    one.add_argument("release", nargs="?", metavar="RELEASE", help="a release's id; else what is live")

    one = _verb(verbs, "diff", _diff, "what would change if a release were approved")
    _add_release(one)
    one.add_argument(
        "--figures", type=Path, metavar="FILE", help="also write worse, worst, failed and drift into it, as JSON"
    )
    _add_gate(one)
    choice.add_arguments(one)

    one = _verb(verbs, "approve", _approve, "make a release live, all of it or some segments")
    _add_release(one)
    _add_gate(one)
    choice.add_arguments(one)
    _add_change(one)

    one = _verb(verbs, "register", _register, "register a release in SageMaker's Model Registry, pending")
    _add_release(one)
    one.add_argument("--registry", required=True, metavar="GROUP", help="the model package group")
    one.add_argument("--image", metavar="URI", help="the image that the registered package names")

    one = _verb(verbs, "reject", _reject, "note that a release is not to go live")
    one.add_argument("release", metavar="RELEASE", help="a release's id")
    one.add_argument("--note", default="", metavar="TEXT", help="why, for the history")

    one = _verb(verbs, "rollback", _rollback, "bring back what was live before, all of it or some segments")
    one.add_argument(
        "--to", metavar="RELEASE", help="what was live when this release went live; else before the last change"
    )
    choice.add_arguments(one)
    _add_change(one)

    one = _verb(verbs, "finish", _finish, "finish a change that broke off")
    one.add_argument("--undo", action="store_true", help="take back what was done of it instead")
    one.add_argument("--note", default="", metavar="TEXT", help="why, for the history")

    one = _verb(verbs, "verify", _verify, "hold a running endpoint's answers against what is live, bit for bit")
    where = one.add_mutually_exclusive_group(required=True)
    where.add_argument(
        "--url",
        action="append",
        metavar="URL",
        help="an endpoint of ours, such as http://127.0.0.1:8080; once for each replica of a fleet, which are asked in turn",
    )
    where.add_argument("--endpoint", metavar="NAME", help="a SageMaker endpoint")
    one.add_argument("--wait", type=_seconds, default=0.0, metavar="S", help="ask again until all is right, so long")
    choice.add_arguments(one)

    one = _verb(verbs, "gc", _gc, "say what of the shelf nobody needs any more, and take it away")
    one.add_argument(
        "--keep", type=_whole, default=10, metavar="N", help="newest releases and changes; default %(default)s"
    )
    one.add_argument("--delete", action="store_true", help="take it away; else it is only said")

    one = _verb(verbs, "follow", _follow, "act on approvals in SageMaker's Model Registry, told by a queue")
    one.add_argument("--registry", required=True, metavar="GROUP", help="the model package group")
    what = one.add_mutually_exclusive_group(required=True)
    what.add_argument("--queue", metavar="URL", help="the SQS queue that the rule sends to")
    what.add_argument("--print-rule", action="store_true", help="print a CloudFormation template of rule and queue")
    one.add_argument("--once", action="store_true", help="end when the queue is empty")
    _add_gate(one)


def _verb(
    verbs: argparse._SubParsersAction[argparse.ArgumentParser], name: str, do: Do, text: str
) -> argparse.ArgumentParser:
    parser = verbs.add_parser(
        name,
        help=text,
        description=text[0].upper() + text[1:] + ".",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    place.add_arguments(parser, "--of")
    parser.add_argument("--json", action="store_true", help="print the facts as JSON")
    parser.set_defaults(run=lambda chosen: _run(f"release {name}", do, chosen))
    return parser


def _add_publish(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    text = "make a candidate release out of artifacts that exist"
    parser = commands.add_parser(
        "publish",
        help=text,
        description=f"{text[0].upper()}{text[1:]}: files, directories, S3 objects and prefixes, of any format that is "
        "served. Each is examined where it can do no harm and written anew in the current format. Nothing goes live.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "paths", nargs="+", metavar="PATH", help="a file, a directory, s3://bucket/key or s3://bucket/prefix/"
    )
    place.add_arguments(parser, "--to")
    parser.add_argument("--as", dest="as_key", metavar="KEY", help="the key of the one artifact; else by its path")
    parser.add_argument("--metrics", type=Path, metavar="FILE", help="how candidate and live model did, JSON by key")
    parser.add_argument("--note", default="", metavar="TEXT", help="what this release is")
    parser.add_argument("--registry", metavar="GROUP", help="register it in SageMaker's Model Registry, pending")
    parser.add_argument("--image", metavar="URI", help="the image that the registered package names")
    parser.add_argument(
        "--ignore-code", dest="ignore_code", action="store_const", const="true",
        help="look past the code/ directory of archives that carry one",
    )  # fmt: skip
    parser.add_argument("--dry-run", action="store_true", help="examine all of it and say what would be written")
    parser.add_argument("--json", action="store_true", help="print the facts as JSON")
    parser.set_defaults(run=lambda chosen: _run("publish", _publish, chosen))


def _add_release(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("release", nargs="?", metavar="RELEASE", help="a release's id; else the newest")


def _add_gate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--max-worse",
        type=_share,
        metavar="SHARE",
        help="keep back segments that are worse by more, such as 5%% or 0.05",
    )
    parser.add_argument(
        "--features-may-differ", action="store_true", help="let models pass that want other features than the live ones"
    )


def _add_change(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--note", default="", metavar="TEXT", help="why, for the history")
    parser.add_argument("--force", action="store_true", help="also over what somebody changed by hand, which is kept")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done")


def _run(name: str, do: Do, chosen: argparse.Namespace) -> int:
    try:
        # A rollback whose last answer was lost is done, and another one would go further back.
        with (
            told(LOOK if do is _rollback else AGAIN),
            closing(place.open_place(chosen, makes=do is _publish)) as opened,
        ):
            return do(chosen, opened)
    except CommandFailed as error:
        if chosen.json:
            print(json.dumps({"error": type(error).__name__, "message": str(error)}))
        return complain(name, error)


def _publish(chosen: argparse.Namespace, opened: Place) -> int:
    from container.examine.quarantine import Quarantine  # numpy and libxgboost cost 0.2 s, which --help need not pay
    from container.limits.cores import container_cores
    from container.operate.release import publish, sources, telling
    from container.operate.release.who import who
    from handler.archives.limits import Limits

    if chosen.dry_run and chosen.registry is not None:
        raise Misused("--dry-run registers nothing; leave --registry out")
    judged = _metrics(chosen.metrics, opened)
    limits = _limits(chosen, Limits)
    found = sources.find(chosen.paths, chosen.as_key, limits, opened.endpoint_url)
    n_at_once = math.ceil(container_cores()) + 1  # one waits for the store while the others are examined
    began = time.monotonic()
    with closing(Quarantine(n_at_once, limits=limits)) as quarantine:
        quarantine.start()
        published = publish.publish(
            opened,
            found,
            quarantine,
            n_at_once=n_at_once,
            made_by=who(opened),
            made_from=chosen.paths,
            note=chosen.note,
            judged=judged,
            dry_run=chosen.dry_run,
        )
    manifest = published.manifest
    package = None if chosen.registry is None else _registry(opened).register(manifest, chosen.registry, chosen.image)
    if chosen.json:
        print(
            json.dumps(
                {
                    "release": manifest.id,
                    "package": package,
                    "is_new": published.is_new,
                    "dry_run": chosen.dry_run,
                    "n_segments": len(manifest.segments),
                    "n_uploaded": published.n_uploaded,
                    "n_uploaded_bytes": published.n_uploaded_bytes,
                    "refused": manifest.refused,
                    "took_s": round(time.monotonic() - began, 2),
                }
            )
        )
        return Exit.OK
    telling.printed(telling.manifest_lines(manifest))
    uploaded = f"{published.n_uploaded:,} artifacts, {size_text(published.n_uploaded_bytes)}"
    missing = uploaded if published.n_uploaded else "nothing: all of it is there"
    print(fact("to upload" if chosen.dry_run else "uploaded", missing))
    if not published.is_new:
        print(fact("the same", f"as {manifest.id}; no other release is made"))
    if chosen.dry_run:
        print(fact("dry run", "nothing was written; the release gets its name when it is"))
        return Exit.OK
    if package is not None:
        print(fact("package", package))
    print(fact("next", f"mme release diff {manifest.id} --of {opened.named}"))
    return Exit.OK


def _limits(chosen: argparse.Namespace, limits: Any) -> Any:
    try:
        return limits.of(
            settings.read_one("max_artifact_bytes", None),
            ignore_code=settings.read_one("ignore_code", chosen.ignore_code),
        )
    except settings.SettingInvalid as error:
        raise Misused(str(error)) from error


def _metrics(file: Path | None, opened: Place) -> dict[str, Judged]:
    """What `--metrics` says. Where it does not say against what, it is against what is live now."""
    from container.operate.release import live, telling

    if file is None:
        return {}
    try:
        judged = telling.judged_of(json.loads(file.read_bytes()))
    except OSError as error:
        raise Misused(f"cannot read {file}: {error.strerror}") from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise Misused(
            f'{file} is not {{"KEY": {{"metric": "rmse", "n_rows": 600, "candidate": 0.1, "live": 0.2}}}}: {error}'
        ) from error
    _, state = live.settled(opened)
    digests = {key: entry.digest for key, entry in state.entries.items()}
    return {
        key: one if one.against or one.live is None else replace(one, against=digests.get(key))
        for key, one in judged.items()
    }


def _list(chosen: argparse.Namespace, opened: Place) -> int:
    from container.operate.release import live, shelf, telling

    current = live.read_current(opened.shelf)
    state = live.read_state(opened.shelf, current.state)
    ids = shelf.release_ids(opened.shelf)
    changes = live.read_history(opened.shelf, current, chosen.changes)
    standing = {id: telling.standing(id, current, state) for id in ids}
    if chosen.json:
        print(json.dumps({"releases": standing, "changes": [asdict(change) for change in changes]}))
        return Exit.OK
    for id in ids:
        print(fact("release", id, standing[id]))
    if changes:
        print(lines_of("changes", *map(telling.change_line, changes)))
    if not current.is_settled:
        print(fact("next", f"mme release finish --of {opened.named}"))
    elif ids:
        print(fact("next", f"mme release diff --of {opened.named}"))
    else:
        print(fact("next", f"mme publish PATH --to {opened.named}"))
    return Exit.OK


def _show(chosen: argparse.Namespace, opened: Place) -> int:
    from container.operate.release import shelf, telling
    from container.operate.release.whole import wholeness

    if chosen.release is not None:
        manifest = shelf.manifest(opened.shelf, chosen.release)
        if chosen.json:
            print(manifest.to_json().decode())
        else:
            telling.printed(telling.manifest_lines(manifest))
            print(fact("next", f"mme release diff {manifest.id} --of {opened.named}"))
        return Exit.OK
    whole = wholeness(opened)
    if chosen.json:
        print(json.dumps(telling.whole_facts(whole, opened.location)))
    else:
        telling.printed(telling.whole_lines(whole, opened.location))
        if not whole.current.is_settled:
            print(fact("next", f"mme release finish --of {opened.named}"))
    return Exit.OK if whole.is_whole else Exit.FAILED


def _diff(chosen: argparse.Namespace, opened: Place) -> int:
    from container.operate.release import diff, live, shelf, telling

    manifest = _chosen(chosen.release, opened)
    _, state = live.settled(opened)
    seen = diff.compare(manifest, state, shelf.Manifests(opened.shelf, manifest), _gate(chosen), choice.of(chosen))
    if chosen.figures is not None:
        _write_figures(chosen.figures, manifest, seen)
    if chosen.json:
        print(json.dumps(telling.diff_facts(seen)))
        return Exit.OK
    telling.printed(telling.diff_lines(seen))
    if seen.passing:
        print(fact("next", f"mme release approve {manifest.id} --of {opened.named}{_again(chosen)}"))
    else:
        print(fact("next", f"nothing of it would change {opened.location}"))
    return Exit.OK


def _write_figures(file: Path, manifest: Manifest, seen: Diff) -> None:
    from container.operate.release.figures import NOT_MEASURED, figures_of

    figures = {name: NOT_MEASURED if one is None else one for name, one in figures_of(manifest, seen).items()}
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({"release": manifest.id, **figures}))
    except OSError as error:
        raise Misused(f"--figures {file}: {error.strerror}") from error


def _register(chosen: argparse.Namespace, opened: Place) -> int:
    manifest = _chosen(chosen.release, opened)
    package = _registry(opened).register(manifest, chosen.registry, chosen.image)
    if chosen.json:
        print(json.dumps({"release": manifest.id, "package": package}))
        return Exit.OK
    print(fact("package", package, manifest.id))
    print(fact("next", f"mme release follow --of {opened.named} --registry {chosen.registry} --print-rule"))
    return Exit.OK


def _approve(chosen: argparse.Namespace, opened: Place) -> int:
    from container.operate.release import telling
    from container.operate.release.approve import APPROVED, approve
    from container.operate.release.who import who

    manifest = _chosen(chosen.release, opened)
    finished = _finished(opened, APPROVED, manifest.id)
    if finished is not None:
        return _tell_moved(chosen, opened, finished)
    done = approve(
        opened,
        manifest,
        _gate(chosen),
        choice.of(chosen),
        who=who(opened),
        note=chosen.note,
        force=chosen.force,
        dry_run=chosen.dry_run,
    )
    if not chosen.json:
        telling.printed(telling.diff_lines(done.diff))
    if done.moved is None:
        n_passing = len(done.diff.passing)
        outcome = f"{n_passing:,} segments would be written" if n_passing else "nothing is to be done"
        if chosen.json:
            print(json.dumps(telling.diff_facts(done.diff) | {"change": None}))
        else:
            print(fact("dry run" if chosen.dry_run else "the same", outcome))
        return Exit.OK if n_passing or not done.diff.kept_back else Exit.REFUSED
    if done.adopted and not chosen.json:
        telling.printed(telling.some("kept", [f"{key}  as it was put there by hand" for key in done.adopted]))
    return _tell_moved(chosen, opened, done.moved)


def _reject(chosen: argparse.Namespace, opened: Place) -> int:
    from container.operate.release.approve import reject
    from container.operate.release.who import who

    manifest = _chosen(chosen.release, opened)
    _finished(opened, "", None)
    reject(opened, manifest, who(opened), chosen.note)
    if chosen.json:
        print(json.dumps({"release": manifest.id, "action": "reject"}))
    else:
        print(fact("rejected", manifest.id))
        print(fact("next", f"mme release list --of {opened.named}"))
    return Exit.OK


def _rollback(chosen: argparse.Namespace, opened: Place) -> int:
    from container.operate.release import telling
    from container.operate.release.rollback import ROLLBACK, rollback
    from container.operate.release.who import who

    finished = _finished(opened, ROLLBACK, None)
    if finished is not None:
        return _tell_moved(chosen, opened, finished)
    release, what, moved = rollback(
        opened,
        choice.of(chosen),
        to=chosen.to,
        who=who(opened),
        note=chosen.note,
        force=chosen.force,
        dry_run=chosen.dry_run,
    )
    if moved is not None:
        return _tell_moved(chosen, opened, moved)
    if chosen.json:
        print(json.dumps({"release": release, "segments": what, "change": None}))
    else:
        telling.printed(telling.some("segments", [f"{key}  would be {done}" for key, done in what.items()]))
        print(
            fact(
                "dry run" if what else "the same",
                f"as {telling.short(release)}" if not what else f"{len(what):,} segments",
            )
        )
    return Exit.OK


def _finish(chosen: argparse.Namespace, opened: Place) -> int:
    from container.operate.release.move import finish, undo
    from container.operate.release.who import who

    moved = undo(opened, who(opened), chosen.note) if chosen.undo else finish(opened)
    if moved is not None:
        return _tell_moved(chosen, opened, moved)
    print(json.dumps({"change": None}) if chosen.json else fact("whole", "nothing was broken off"))
    return Exit.OK


def _finished(opened: Place, action: str, release: str | None) -> Moved | None:
    """What was asked for had been begun and broke off, and is done now. Raises NotNow when it was something else."""
    from container.operate.release.move import finish

    moved = finish(opened)
    if moved is None:
        return None
    change = moved.change
    if change.action == action and release in (None, change.release):
        return moved
    raise NotNow(
        f"{change.action} of {change.release} by {change.who} had broken off, and is finished now; look at it "
        f"(mme release show --of {opened.named}) and call again"
    )


def _tell_moved(chosen: argparse.Namespace, opened: Place, moved: Moved) -> int:
    from container.operate.release import telling

    change = moved.change
    if chosen.json:
        print(json.dumps({"change": asdict(change), "stuck": list(moved.stuck)}))
    else:
        print(lines_of("done", telling.change_line(change)))
        where = "--url URL, or --endpoint NAME" if opened.is_s3 else "--url http://127.0.0.1:8080"
        print(fact("next", f"mme release verify --of {opened.named} {where}"))
    if moved.stuck:
        raise NotWhole(
            f"somebody else changed {len(moved.stuck)} keys meanwhile, and they are as they left them: "
            + ", ".join(moved.stuck[:5])
        )
    return Exit.OK


def _verify(chosen: argparse.Namespace, opened: Place) -> int:
    from container.operate.release import live, telling
    from container.operate.release.verify import FAILED, OLD, RIGHT, verify

    current, state = live.settled(opened)
    deadline = time.monotonic() + chosen.wait
    picked = choice.of(chosen)
    is_right = True
    segments = []
    for name, ask in _askers(chosen):
        found = verify(opened, current, state, ask, picked.has)
        while any(one.kind in (OLD, FAILED) for one in found) and time.monotonic() < deadline:
            time.sleep(min(1.0, max(0.0, deadline - time.monotonic())))
            found = verify(opened, current, state, ask, picked.has)
        is_right = is_right and all(one.kind == RIGHT for one in found)
        segments += [asdict(one) | ({"url": name} if name else {}) for one in found]
        if not chosen.json:
            telling.printed([*([fact("endpoint", name)] if name else []), *telling.found_lines(found)])
    if chosen.json:
        print(json.dumps({"is_right": is_right, "segments": segments}))
    else:
        print(fact("verified", "yes" if is_right else "no"))
    return Exit.OK if is_right else Exit.FAILED


def _askers(chosen: argparse.Namespace) -> list[tuple[str, Callable[[str, bytes], bytes]]]:
    """Whom to ask, each with a name where there are several."""
    from container.operate.endpoint.calling import Endpoint

    if not chosen.url:
        return [("", _asker(Endpoint.on_sagemaker(chosen.endpoint)))]
    endpoints = [Endpoint(url) for url in chosen.url]
    return [(one.url if len(endpoints) > 1 else "", _asker(one)) for one in endpoints]


def _asker(endpoint: Endpoint) -> Callable[[str, bytes], bytes]:
    return lambda target, body: endpoint.call(target, body, accept="text/csv").body


def _gc(chosen: argparse.Namespace, opened: Place) -> int:
    from container.operate.release import gc

    garbage = gc.find(opened, chosen.keep)
    counts = {
        "releases": len(garbage.releases),
        "states": len(garbage.states),
        "artifacts": len(garbage.artifacts),
        "n_bytes": garbage.n_bytes,
    }
    n_gone = gc.collect(opened, garbage) if chosen.delete else 0
    if chosen.json:
        print(json.dumps(counts | {"n_gone": n_gone}))
        return Exit.OK
    print(fact("kept", f"{garbage.n_kept_releases:,} releases, {garbage.n_kept_artifacts:,} artifacts"))
    what = f"{counts['releases']:,} releases, {counts['states']:,} states, {counts['artifacts']:,} artifacts"
    print(fact("removed" if chosen.delete else "not needed", what, size_text(garbage.n_bytes)))
    if not chosen.delete and garbage.n_bytes:
        print(fact("next", f"mme release gc --of {opened.named} --keep {chosen.keep} --delete"))
    return Exit.OK


def _follow(chosen: argparse.Namespace, opened: Place) -> int:
    from container.operate.release.follow import LOG, Follower, follow, rule_template
    from container.operate.release.who import who
    from handler import aws

    if chosen.print_rule:
        print(json.dumps(rule_template(chosen.registry), indent=2))
        return Exit.OK
    logging.basicConfig(level="WARNING", stream=sys.stderr, format="%(asctime)s %(levelname)-7s %(message)s")
    logging.getLogger(LOG).setLevel("INFO")  # botocore's tell where its credentials come from
    patience = aws.Patience(2.0, 20.0, 3)

    def say(word: str, text: str) -> None:
        print(json.dumps({"did": word, "what": text}) if chosen.json else fact(word, text), flush=True)

    with stop_event() as stop:  # the message in hand is finished
        follower = Follower(opened, _registry(opened), chosen.registry, who(opened), _gate(chosen), say)
        sqs = aws.client("sqs", patience, endpoint_url=opened.endpoint_url)
        n_failed = follow(sqs, chosen.queue, follower, stop.is_set, once=chosen.once, pause=stop.wait)
    return Exit.NOT_NOW if n_failed and chosen.once else Exit.OK


def _registry(opened: Place) -> Registry:
    from container.operate.release.registry import Registry
    from handler import aws

    # Another S3 than Amazon's is mme platform's or moto's, which have a registry at the same address.
    return Registry(aws.client("sagemaker", aws.Patience(2.0, 20.0, 3), endpoint_url=opened.endpoint_url), opened)


def _chosen(id: str | None, opened: Place) -> Manifest:
    from container.operate.release import shelf

    return shelf.newest(opened.shelf) if id is None else shelf.manifest(opened.shelf, id)


def _gate(chosen: argparse.Namespace) -> Gate:
    from container.operate.release.diff import Gate

    return Gate(chosen.max_worse, chosen.features_may_differ)


def _again(chosen: argparse.Namespace) -> str:
    """The flags of a diff, for the approve that means the same."""
    import shlex

    said = [("--only", chosen.only), ("--except", chosen.but), ("--max-worse", chosen.max_worse)]
    text: str = "".join(f" {flag} {shlex.quote(str(value))}" for flag, value in said if value is not None)
    return text + (" --features-may-differ" if chosen.features_may_differ else "")


def _share(text: str) -> float:
    share = _number(text.removesuffix("%"), "a share such as 5% or 0.05")
    return share / 100 if text.endswith("%") else share


def _whole(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1")
    return int(text)


def _seconds(text: str) -> float:
    return _number(text, "a number of seconds")


def _number(text: str, what: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 86_400:
        raise argparse.ArgumentTypeError(f"{text!r} is not {what}")
    return value
