"""What `mme deploy` prints: facts as aligned lines, or the same as one JSON document.

Rule: nothing here looks at anything; it is given facts and gives text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from container.operate.deploy.apply import component_text, endpoint_text
from container.operate.deploy.doctor import Finding
from container.operate.deploy.file import Wanted
from container.operate.deploy.names import ASKED, BEFORE, Json
from container.operate.deploy.plan import Plan
from container.operate.deploy.resources import alarm_word
from container.operate.deploy.there import There
from container.operate.printing import fact, lines_of


def plan_lines(wanted: Wanted, planned: Plan, there: There) -> list[str]:
    lines = [fact("endpoint", wanted.name, wanted.kind, there.region, now_text(there))]
    nothing = "none, since it is refused" if planned.refused else "nothing is to do"
    lines += _some("steps", [f"{n}. {step.what}" for n, step in enumerate(planned.steps, 1)] or [nothing])
    if planned.cost is not None:
        lines.append(fact("costs", planned.cost.text))
        is_update = any(step.operation == "UpdateEndpoint" for step in planned.steps)
        if is_update and planned.cost.update:
            lines.append(
                fact("", f"{planned.cost.update:,.2f} USD at most for the second fleet while this update runs")
            )
    lines += _some("notice", planned.notices)
    lines += _some("by hand", planned.drift)
    lines += _some("refused", planned.refused)
    lines += _some("unread", there.unread)
    return lines


def plan_facts(wanted: Wanted, planned: Plan, there: There) -> dict[str, Any]:
    return {
        "endpoint": wanted.name,
        "kind": wanted.kind,
        "region": there.region,
        "now": now_text(there),
        "steps": [asdict(step) for step in planned.steps],
        "cost": None if planned.cost is None else asdict(planned.cost),
        "notices": planned.notices,
        "drift": planned.drift,
        "refused": planned.refused,
        "unread": there.unread,
    }


def now_text(there: There) -> str:
    return "not there" if there.endpoint is None else endpoint_text(there.endpoint)


def status_lines(wanted: Wanted, planned: Plan, there: There) -> list[str]:
    lines = [fact("endpoint", wanted.name, wanted.kind, there.region, now_text(there))]
    if there.endpoint is not None:
        reason = there.endpoint.get("FailureReason")
        if reason:
            lines.append(fact("reason", reason))
        for variant in there.endpoint.get("ProductionVariants", ()):
            if "CurrentInstanceCount" in variant:
                now, desired = variant["CurrentInstanceCount"], variant.get("DesiredInstanceCount", "?")
                lines.append(fact("machines", f"{now} of {desired}"))
        tags = there.endpoint_tags
        lines.append(fact("asked", tags.get(ASKED, "by nobody here"), f"before it {tags.get(BEFORE, 'nothing')}"))
    lines += _some("component", [f"{one['InferenceComponentName']}: {component_text(one)}" for one in there.components])
    if there.target is not None:
        lines.append(fact("scales", f"{there.target['MinCapacity']} to {there.target['MaxCapacity']}"))
    lines += _some("alarms", [_alarm_text(wanted, name, one) for name, one in sorted(there.alarms.items())])
    lines += _some("kept", list(there.configs))
    lines += _some("by hand", planned.drift)
    if planned.cost is not None:
        lines.append(fact("costs", planned.cost.text))
    lines += _some("refused", planned.refused)
    to_do = "the file is refused" if planned.refused else f"{len(planned.steps)} steps are to do"
    is_as_asked = not planned.steps and not planned.refused
    lines.append(fact("as asked", "yes" if is_as_asked else f"no: {to_do}"))
    return lines


def _alarm_text(wanted: Wanted, name: str, alarm: Json) -> str:
    state = alarm["StateValue"]
    if alarm_word(name) == "idle" and state == "INSUFFICIENT_DATA":
        state = f"{state}: no call yet, or none for {wanted.alarms.idle_hours} h"
    return f"{name}  {state}"


def status_facts(wanted: Wanted, planned: Plan, there: There) -> dict[str, Any]:
    return {
        **plan_facts(wanted, planned, there),
        "is_as_asked": not planned.steps and not planned.refused,
        "endpoint_told": there.endpoint,
        "components": there.components,
        "target": there.target,
        "alarms": {name: one["StateValue"] for name, one in there.alarms.items()},
        "kept": list(there.configs),
    }


def finding_lines(findings: Sequence[Finding]) -> list[str]:
    lines = []
    for one in findings:
        lines += [
            fact("found", one.check, one.what),
            fact("", f"costs {one.costs}"),
            fact("", f"{'--fix does' if one.is_safe else 'mend'}: {one.mend}"),
        ]
    return lines


def _some(word: str, lines: Sequence[str]) -> list[str]:
    return [lines_of(word, *lines)] if lines else []
