"""`mme deploy`: what the operator writes, handed to what does it.

Rule: nothing is decided here. A command says what is, then what it did, and the next step last.
"""

from __future__ import annotations

import argparse
import json
import math
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from container.operate.deploy.trouble import EXIT_CODES
from container.operate.exits import CommandFailed, Exit
from container.operate.printing import complain, fact
from container.operate.troubles import Misused, Refused

if TYPE_CHECKING:
    from container.operate.deploy.apply import Pace
    from container.operate.deploy.aws import Aws
    from container.operate.deploy.file import Wanted

Do = Callable[[argparse.Namespace, "Aws", "Wanted"], int]
IAM_KINDS = ("deployer", "execution", "caller")
ROOM_FOR_MODELS = 0.7  # of a machine's memory; the rest is the container's own, bodies, and the system's
# Named here, too, so that --help needs no look into the file's rows; a test holds them against those.
KINDS = ("multi-model", "zero", "serverless")


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    deploy = commands.add_parser(
        "deploy", help="an endpoint on SageMaker out of one file: plan, apply, look after, take down"
    )
    verbs = deploy.add_subparsers(dest="verb", required=True, metavar="VERB")

    one = verbs.add_parser("init", help="write a commented file to begin with")
    one.add_argument("kind", choices=KINDS)
    one.set_defaults(run=_init)

    _add_costs(verbs)
    _verb(verbs, "plan", _plan, "what would be done, in which order, and what a month costs at least and at most")

    one = _verb(verbs, "apply", _apply, "make it so; called again, it goes on")
    one.add_argument("--yes", action="store_true", help="do not ask")
    one.add_argument("--over-drift", action="store_true", help="also over what somebody changed by hand")

    _verb(verbs, "status", _status, "what is there, and whether it is what the file says")

    one = _verb(verbs, "doctor", _doctor, "what costs money or answers without anybody wanting it; changes nothing")
    one.add_argument("--fix", action="store_true", help="make those mends that disturb nobody")
    one.add_argument("--every", type=_duration, metavar="1h", help="again and again, for ever")

    one = _verb(verbs, "rollback", _rollback, "back to the config that was there before")
    one.add_argument("--to", metavar="NAME", help="back to this one, of those that status lists as kept")
    one.add_argument("--yes", action="store_true", help="do not ask")

    one = _verb(verbs, "delete", _delete, "take down all of it, in the order that AWS wants")
    one.add_argument("--not-ours", action="store_true", help="also when it was not made here")
    one.add_argument("--yes", action="store_true", help="do not ask")

    one = _verb(
        verbs,
        "trial",
        _trial,
        "all of it once on this account, under names of its own, and taken down whatever happens",
    )
    one.add_argument("--most-usd", type=_positive, required=True, metavar="USD", help="what it may cost at most")
    one.add_argument("--report", type=Path, metavar="FILE.json", help="write what was seen")
    one.add_argument("--yes", action="store_true", help="do not ask")

    one = _verb(verbs, "template", _template, "the same as CloudFormation, or the IAM policies, as JSON")
    one.add_argument("--iam", choices=IAM_KINDS, help="print one policy instead")
    one.add_argument(
        "--target", action="append", metavar="PATTERN", help="with --iam caller: targets that may be called"
    )
    one.add_argument("--use-role", action="store_true", help="name the file's role instead of making one")
    one.add_argument("--mail", default="", metavar="ADDRESS", help="whom the budget tells")
    one.add_argument(
        "--memory", type=int, default=1024, metavar="MIB", help="what a copy reserves where the file says auto"
    )


def _add_costs(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    text = "what a month of your models costs, an endpoint each, all on one, at zero, serverless or as a nightly job"
    one = verbs.add_parser("costs", help=text, description=text[0].upper() + text[1:] + ".")
    one.add_argument("--models", type=int, required=True, metavar="N", help="how many models")
    one.add_argument("--kib", type=float, default=70.0, metavar="KIB", help="of one in memory; default %(default)s")
    one.add_argument("--busy", type=float, default=1.0, metavar="SHARE", help="share in memory at a time; default all")
    one.add_argument("--calls-a-day", type=float, default=10_000, metavar="N", help="default %(default)s")
    one.add_argument(
        "--awake", type=float, default=8.0, metavar="H", help="hours a day with calls; default %(default)s"
    )
    one.add_argument("--wakes", type=float, default=1.0, metavar="N", help="first calls a day; default %(default)s")
    one.add_argument("--job", type=float, default=0.5, metavar="H", help="hours of a nightly job; default %(default)s")
    one.add_argument("--type", default="ml.m5.large", help="the machine that holds many; default %(default)s")
    one.add_argument("--each-type", default="ml.t2.medium", metavar="TYPE", help="that holds one; default %(default)s")
    one.add_argument("--least", type=int, default=1, metavar="N", help="machines of an endpoint; default %(default)s")
    one.add_argument("--region", default="us-east-1", help="default %(default)s")
    one.add_argument("--picture", type=Path, metavar="FILE.svg", help="draw it, too")
    one.add_argument("--json", action="store_true", help="print the facts as JSON")
    one.set_defaults(run=_costs)


def _costs(chosen: argparse.Namespace) -> int:
    from container.operate.deploy.compare import Load, Machines, compared, picture
    from container.platform.bill.prices import PRICES_OF, PriceUnknown, price_usd_per_hour
    from container.platform.instance_types import INSTANCE_TYPES

    load = Load(
        chosen.models, int(chosen.kib * 1024), chosen.busy, chosen.calls_a_day,
        awake_h=chosen.awake, n_wakes=chosen.wakes, job_h=chosen.job,
    )  # fmt: skip
    try:
        each, shared = (price_usd_per_hour(one, chosen.region) for one in (chosen.each_type, chosen.type))
    except PriceUnknown as error:
        return complain("deploy costs", Misused(str(error)))
    room = int(INSTANCE_TYPES[chosen.type].memory_bytes * ROOM_FOR_MODELS)
    lines = compared(load, Machines(each, shared, room, chosen.least))
    if chosen.picture is not None:
        drawn = picture(lines, f"{chosen.models:,} models, {chosen.region}, prices of {PRICES_OF}")
        try:
            _write(chosen.picture, drawn)
        except Misused as error:
            return complain("deploy costs", error)
    facts = {"prices_of": str(PRICES_OF), "lines": [asdict(line) for line in lines]}
    _print(chosen, facts, [f"{line.name:<18}{line.usd:>12,.2f} USD a month  {line.how}" for line in lines])
    _next(chosen, "mme deploy init zero > prices.toml")
    return Exit.OK


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
    parser.add_argument("file", type=Path, metavar="FILE.toml", help="what should be; mme deploy init writes one")
    parser.add_argument("--json", action="store_true", help="print the facts as JSON")
    parser.add_argument(
        "--poll", type=_positive, default=10.0, metavar="S", help="seconds between looks; default %(default)s"
    )
    parser.set_defaults(run=lambda chosen: _run(f"deploy {name}", do, chosen))
    return parser


def _run(name: str, do: Do, chosen: argparse.Namespace) -> int:
    from container.operate.deploy.aws import Aws  # boto3 costs 0.2 s, which --help need not pay
    from container.operate.deploy.file import read

    try:
        wanted = read(chosen.file)
        return do(chosen, Aws(wanted.region), wanted)
    except CommandFailed as error:
        if chosen.json:
            print(json.dumps({"error": type(error).__name__, "message": str(error)}))
        return complain(name, error)
    except KeyboardInterrupt:
        print(
            f"mme {name}: interrupted; what AWS has begun goes on; call again, it goes on from there", file=sys.stderr
        )
        return Exit.INTERRUPTED


def _init(chosen: argparse.Namespace) -> int:
    from container.operate.deploy.starting import file_of

    print(file_of(chosen.kind), end="")
    return Exit.OK


def _plan(chosen: argparse.Namespace, aws: Aws, wanted: Wanted) -> int:
    from container.operate.deploy import telling
    from container.operate.deploy.doctor import preflight
    from container.operate.deploy.health import examine

    health = examine(aws, wanted)
    there = health.there
    planned = preflight(wanted, health)
    _print(chosen, telling.plan_facts(wanted, planned, there), telling.plan_lines(wanted, planned, there))
    if planned.refused or planned.drift:
        return Exit.REFUSED
    _next(chosen, f"mme deploy apply {chosen.file}" if planned.steps else f"mme deploy doctor {chosen.file}")
    return Exit.OK


def _apply(chosen: argparse.Namespace, aws: Aws, wanted: Wanted) -> int:
    from container.operate.deploy import apply, telling
    from container.operate.deploy.doctor import diagnose, preflight
    from container.operate.deploy.health import examine
    from container.operate.deploy.warming import warmer

    health = examine(aws, wanted)
    there = health.there
    planned = preflight(wanted, health)
    if not chosen.json:
        _lines(telling.plan_lines(wanted, planned, there))
    apply.refuse(planned, over_drift=chosen.over_drift)
    if planned.steps:
        _ask(chosen, f"do these {len(planned.steps)} steps?")
    began = time.monotonic()
    applied = apply.apply(
        aws,
        wanted,
        tell=_progress,
        pace=_pace(chosen),
        over_drift=chosen.over_drift,
        warm=warmer(aws, wanted, _progress),
    )
    took_s = time.monotonic() - began
    findings = diagnose(wanted, examine(aws, wanted))
    facts = {
        "endpoint": wanted.name,
        "n_calls": applied.n_calls,
        "took_s": round(took_s, 1),
        "now": telling.now_text(applied.there),
        "found": [asdict(one) for one in findings],
    }
    lines = [
        fact("done", f"{applied.n_calls} calls in {took_s:.0f} s" if applied.n_calls else "nothing was to do"),
        fact("endpoint", wanted.name, telling.now_text(applied.there)),
        *telling.finding_lines(findings),
    ]
    _print(chosen, facts, lines)
    _next(chosen, _first_call(wanted))
    return Exit.OK


def _status(chosen: argparse.Namespace, aws: Aws, wanted: Wanted) -> int:
    from container.operate.deploy import telling
    from container.operate.deploy.look import look
    from container.operate.deploy.plan import plan

    there = look(aws, wanted)
    planned = plan(wanted, there)
    _print(chosen, telling.status_facts(wanted, planned, there), telling.status_lines(wanted, planned, there))
    return Exit.OK if not planned.steps and not planned.refused else Exit.FAILED


def _doctor(chosen: argparse.Namespace, aws: Aws, wanted: Wanted) -> int:
    if chosen.every is None:
        return _doctor_once(chosen, aws, wanted)
    try:
        with _ended_by_sigterm():
            while True:
                _doctor_once(chosen, aws, wanted)
                sys.stdout.flush()
                time.sleep(chosen.every)
    except KeyboardInterrupt:  # its usual end, of which nothing is to be told
        return Exit.INTERRUPTED


def _doctor_once(chosen: argparse.Namespace, aws: Aws, wanted: Wanted) -> int:
    from container.operate.deploy import telling
    from container.operate.deploy.apply import Carrier
    from container.operate.deploy.doctor import diagnose, safe_steps
    from container.operate.deploy.health import examine

    try:
        health = examine(aws, wanted)
        if chosen.fix and (steps := safe_steps(wanted, health)):
            Carrier(aws, wanted, _progress, _pace(chosen)).carry_out(steps)
            health = examine(aws, wanted)
        findings = diagnose(wanted, health)
    except CommandFailed as error:
        if chosen.every is None:
            raise
        return complain("deploy doctor", error)  # the next look may be luckier
    facts = {"endpoint": wanted.name, "found": [asdict(one) for one in findings], "unread": health.unread}
    lines = telling.finding_lines(findings) or [fact("found", "nothing wrong")]
    _print(chosen, facts, [*lines, *(fact("unread", one) for one in health.unread)])
    if any(one.is_safe for one in findings):
        _next(chosen, f"mme deploy doctor --fix {chosen.file}")
    return Exit.FAILED if findings else Exit.OK


def _rollback(chosen: argparse.Namespace, aws: Aws, wanted: Wanted) -> int:
    from container.operate.deploy.apply import Carrier
    from container.operate.deploy.back import rollback_steps
    from container.operate.deploy.look import look
    from container.operate.deploy.warming import warmer

    steps = rollback_steps(wanted, look(aws, wanted), chosen.to)
    if not chosen.json:
        _lines([fact("steps" if n == 1 else "", f"{n}. {step.what}") for n, step in enumerate(steps, 1)])
    _ask(chosen, f"do these {len(steps)} steps?")
    n_calls = Carrier(aws, wanted, _progress, _pace(chosen), warmer(aws, wanted, _progress)).carry_out(steps)
    from container.operate.deploy import telling

    now = telling.now_text(look(aws, wanted))
    _print(chosen, {"endpoint": wanted.name, "n_calls": n_calls, "now": now}, [fact("endpoint", wanted.name, now)])
    _next(chosen, f"change {chosen.file}, too: mme deploy apply brings back what it says")
    return Exit.OK


def _delete(chosen: argparse.Namespace, aws: Aws, wanted: Wanted) -> int:
    from container.operate.deploy.back import delete, delete_steps
    from container.operate.deploy.look import look

    steps = delete_steps(wanted, look(aws, wanted), also_foreign=chosen.not_ours)
    if not chosen.json:
        _lines([fact("steps" if n == 1 else "", f"{n}. {step.what}") for n, step in enumerate(steps, 1)])
    if steps:
        _ask(chosen, f"do these {len(steps)} steps?")
    n_calls = delete(aws, wanted, tell=_progress, pace=_pace(chosen), also_foreign=chosen.not_ours)
    _print(
        chosen, {"endpoint": wanted.name, "n_calls": n_calls, "left": []}, [fact("left", f"nothing of {wanted.name}")]
    )
    return Exit.OK


def _trial(chosen: argparse.Namespace, aws: Aws, wanted: Wanted) -> int:
    from container.operate.deploy import trial

    usd = trial.refuse_cost(wanted, aws.region, chosen.most_usd)
    _ask(
        chosen, f"make an endpoint like {wanted.name} in {aws.region} for at most {trial.MOST_H:g} h and {usd:.2f} USD?"
    )
    if chosen.report is not None:
        _write(chosen.report, "")  # before anything is paid for
    models, body, answers = trial.made_up()
    try:
        with _ended_by_sigterm():  # it is taken down then, too
            report = trial.trial(
                aws, wanted, most_usd=chosen.most_usd, models=models, body=body, answers=answers,
                tell=_progress, pace=_pace(chosen),
            )  # fmt: skip
    except KeyboardInterrupt:
        print("mme deploy trial: interrupted; it was taken down but for what is said above to be left", file=sys.stderr)
        return Exit.INTERRUPTED
    if chosen.report is not None:
        _write(chosen.report, json.dumps(report.facts(), indent=2))
    _print(chosen, report.facts(), trial.report_lines(report))
    return Exit.OK if report.is_as_expected else Exit.FAILED


def _template(chosen: argparse.Namespace, aws: Aws, wanted: Wanted) -> int:  # noqa: ARG001  every verb is given it
    from container.operate.deploy import policies
    from container.operate.deploy.template import template

    if chosen.target and chosen.iam != "caller":
        raise Misused("--target goes with --iam caller")
    if chosen.target and wanted.kind != "multi-model":
        _progress("--target limits nothing here: AWS knows the targets of multi-model endpoints alone")
    documents = {
        "deployer": lambda: policies.deployer_policy(wanted),
        "execution": lambda: policies.execution_policy(wanted),
        "caller": lambda: policies.caller_policy(wanted, chosen.target),
    }
    memory = wanted.zero.memory if wanted.zero is not None and wanted.zero.memory else chosen.memory
    made = documents[chosen.iam]() if chosen.iam else template(
        wanted, memory, with_role=not chosen.use_role, mail=chosen.mail
    )  # fmt: skip
    print(json.dumps(made, indent=2))
    return Exit.OK


# small things


def _write(path: Path, text: str) -> None:
    """Raises Misused."""
    try:
        path.write_text(text)
    except OSError as error:
        raise Misused(f"{path} cannot be written: {error.strerror}") from error


def _pace(chosen: argparse.Namespace) -> Pace:
    from container.operate.deploy.apply import Pace

    return Pace(poll_s=chosen.poll)


def _ask(chosen: argparse.Namespace, question: str) -> None:
    """Raises Refused unless the person says yes."""
    if chosen.yes:
        return
    if not sys.stdin.isatty():
        raise Misused("nobody is there to ask; --yes does it")
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise Refused("nothing was done")


def _first_call(wanted: Wanted) -> str:
    how = {"zero": f" --component {wanted.name} --wake", "serverless": " --in-attributes"}.get(wanted.kind, "")
    return f"mme invoke --endpoint {wanted.name}{how} --target KEY 1.0,2.0,3.0"


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """SIGTERM is what Ctrl-C is: KeyboardInterrupt."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _next(chosen: argparse.Namespace, what: str) -> None:
    if not chosen.json:
        _lines([fact("next", what)])


def _print(chosen: argparse.Namespace, facts: dict[str, Any], lines: list[str]) -> None:
    if chosen.json:
        print(json.dumps(facts, default=str), flush=True)
    else:
        _lines(lines)


def _lines(lines: list[str]) -> None:
    for line in lines:
        print(line, flush=True)


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def _duration(text: str) -> float:
    units = {"s": 1, "m": 60, "h": 3600}
    number, unit = (text[:-1], units[text[-1]]) if text[-1:] in units else (text, 1)
    try:
        seconds = float(number) * unit
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time such as 30s, 10m or 1h") from None
    if not 1 <= seconds <= 7 * 86_400:
        raise argparse.ArgumentTypeError(f"{text!r} is not from 1s to 168h")
    return seconds
