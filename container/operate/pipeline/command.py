"""`mme pipeline`: what the operator writes, handed to what does it.

Rule: the flags of `mme train` say what is trained; here is only what comes after it, and what starts it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from contextlib import closing

from container.operate.exits import CommandFailed, Exit
from container.operate.jobs.machines import add_machines, machines_of
from container.operate.pipeline import local
from container.operate.printing import complain, say
from container.operate.release import place
from container.operate.release.figures import Conditions
from container.operate.release.trouble import EXIT_CODES, told
from container.operate.stopping import stop_event
from container.operate.train import command as train
from container.operate.train import starting
from container.operate.troubles import Misused, NotNow

WATCH_S = 10.0


def add_command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], main: Callable[[Sequence[str]], int]
) -> None:
    """main: of all commands, for the loop on this machine."""
    pipeline = commands.add_parser("pipeline", help="train, judge and register when data arrive, here or on SageMaker")
    verbs = pipeline.add_subparsers(dest="verb", required=True, metavar="VERB")

    one = _verb(verbs, "show", "print the SageMaker Pipeline's definition", _show)
    _add_aws(one)
    one = _verb(verbs, "apply", "make it, and the rule that starts it when data arrive", _apply)
    _add_aws(one)
    one.add_argument(
        "--when",
        default="_SUCCESS",
        metavar="END",
        help="how the key ends that says data are whole; default %(default)s",
    )
    one = _verb(verbs, "run", "the same loop on this machine", lambda chosen: _run_local(chosen, main))
    one.add_argument(
        "--local", action="store_true", required=True, help="on this machine; SageMaker's are started by the rule"
    )
    one.add_argument("--url", metavar="URL", help="an endpoint of ours, to be verified after each approval")
    one.add_argument(
        "--watch",
        type=float,
        nargs="?",
        const=WATCH_S,
        metavar="S",
        help="again whenever the data change; looks each S seconds",
    )


def _verb(
    verbs: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    text: str,
    do: Callable[[argparse.Namespace], int],
) -> argparse.ArgumentParser:
    parser = verbs.add_parser(
        name,
        help=text,
        description=text[0].upper() + text[1:] + ". All flags of mme train say what is trained.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    train.add_learning(parser)
    parser.add_argument(
        "--condition", default="worse<=0.01", metavar="CONDITIONS", help="what must hold to go on; default %(default)s"
    )

    def run(chosen: argparse.Namespace) -> int:
        try:
            with told():
                return do(chosen)
        except CommandFailed as error:
            return complain(f"pipeline {name}", error)

    parser.set_defaults(run=run)
    return parser


def _add_aws(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("on SageMaker")
    group.add_argument(
        "--name", default="mme", metavar="NAME", help="of the pipeline and its rule; default %(default)s"
    )
    group.add_argument("--registry", required=True, metavar="GROUP", help="the model package group")
    add_machines(group)


def _definition(chosen: argparse.Namespace, opened: place.Place) -> str:
    from container.operate.pipeline.definition import Loop, definition_of

    if not chosen.data:
        raise Misused("--data: which rows?")
    train.asked_of(chosen)  # refused here rather than by the first job
    parser = argparse.ArgumentParser()
    train.add_learning(parser)
    loop = Loop(
        machines_of(chosen),
        starting.hyperparameters_of(chosen, parser),
        starting.put_params(opened, chosen.params),
        opened.location,
        chosen.releases,
        opened.shelf.uri(""),
        Conditions.parse(chosen.condition),
        chosen.registry,
    )
    return definition_of(loop)


def _show(chosen: argparse.Namespace) -> int:
    with closing(_opened(chosen)) as opened:
        print(_definition(chosen, opened))
    return Exit.OK


def _apply(chosen: argparse.Namespace) -> int:
    from container.operate.pipeline.applying import Clients, apply, pattern_of
    from handler import aws

    with closing(_opened(chosen)) as opened:
        definition = _definition(chosen, opened)
        pattern, bucket = pattern_of(chosen.data[0], chosen.when)
        patience = aws.Patience(2.0, 20.0, 3)
        clients = Clients(
            *(aws.client(name, patience, endpoint_url=opened.endpoint_url) for name in ("sagemaker", "events", "s3"))
        )
        done = apply(clients, chosen.name, definition, chosen.role, pattern, bucket)
    say("pipeline", done.arn, done.pipeline)
    say("rule", chosen.name, done.rule, f"starts it when an object *{chosen.when} comes to {chosen.data[0]}")
    say("bucket", bucket, f"sends its events to EventBridge, {done.bucket}")
    say("next", f"mme release follow --of {opened.named} --registry {chosen.registry} --print-rule")
    return Exit.OK


def _opened(chosen: argparse.Namespace) -> place.Place:
    if not chosen.live:
        raise Misused("--to: where do releases go?")
    return place.open_place(chosen, makes=True)


def _run_local(chosen: argparse.Namespace, main: Callable[[Sequence[str]], int]) -> int:
    from container.operate.tables.files import find

    conditions = Conditions.parse(chosen.condition)
    train.asked_of(chosen)
    if not chosen.data:
        raise Misused("--data: which rows?")
    with closing(_opened(chosen)) as opened:
        steps = _steps(chosen, opened)

        def once() -> bool:
            return local.run_once(steps, lambda release: _broken(conditions, opened, release), main)

        if chosen.watch is None:
            return Exit.OK if once() else Exit.FAILED

        def goes_on() -> None:
            try:
                once()
            except NotNow as error:
                complain("pipeline run", error)

        def look() -> tuple[object, ...]:
            return find(chosen.data, chosen.data_format, opened.endpoint_url)

        with stop_event() as stop:
            local.run_whenever(look, goes_on, stop, chosen.watch)  # type: ignore[arg-type]
    return Exit.OK


def _broken(conditions: Conditions, opened: place.Place, release: str) -> tuple[str, ...]:
    from container.operate.release import shelf
    from container.operate.release.choice import Choice
    from container.operate.release.diff import Gate, compare
    from container.operate.release.figures import figures_of
    from container.operate.release.live import settled

    manifest = shelf.manifest(opened.shelf, release)
    _, state = settled(opened)
    diff = compare(manifest, state, shelf.Manifests(opened.shelf, manifest), Gate(), Choice())
    return conditions.broken(figures_of(manifest, diff))


def _steps(chosen: argparse.Namespace, opened: place.Place) -> local.Steps:
    return local.Steps(
        ("train", *_words_of(chosen)),
        ("--of", opened.location, *opened.flags),
        f"mme pipeline: {chosen.condition}",
        chosen.url,
    )


def _words_of(chosen: argparse.Namespace) -> list[str]:
    """The flags of `mme train` among those that were written."""
    parser = argparse.ArgumentParser()
    train.add_learning(parser)
    words: list[str] = []
    for action in parser._actions:
        value = getattr(chosen, action.dest, None)
        if action.dest == "help" or value is None or value == action.default:
            continue
        words.append(action.option_strings[0])
        if isinstance(value, list):
            words += map(str, value)
        elif not isinstance(value, bool):
            words.append(str(value))
    return words
