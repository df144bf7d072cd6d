"""CloudWatch's metric alarms, really evaluated on the figures of the platform.

Rule: an alarm is looked at when a period of it has ended, with what was known then. A policy is told again each minute while
its alarm goes on, everyone else once. Source: CloudWatch user guide, "Alarm actions".
"""

from __future__ import annotations

import datetime
import json
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from container.platform.clock import Clock
from container.platform.metrics import MetricName, Metrics
from container.platform.scaling.evaluation import COMPARISONS, Missing, State, judge, looked_at
from container.platform.scaling.formulas import Formula

POLICY_ARN = "arn:aws:autoscaling:"
MAX_HISTORY = 200


@dataclass(frozen=True)
class Rule:
    """What an alarm watches. metric: or what is worked out of several, which have their statistics themselves."""

    name: str
    arn: str
    metric: MetricName | Formula
    statistic: str
    period_s: int
    n_periods: int
    n_to_alarm: int
    threshold: float
    comparison: str
    missing: Missing = "missing"
    alarm_actions: tuple[str, ...] = ()
    ok_actions: tuple[str, ...] = ()
    insufficient_actions: tuple[str, ...] = ()
    is_enabled: bool = True
    description: str | None = None
    unit: str | None = None

    @property
    def step_s(self) -> int:
        """How often it is looked at."""
        return min(self.period_s, 60)


@dataclass(frozen=True)
class Change:
    at: datetime.datetime
    before: State
    after: State
    reason: str


@dataclass
class Alarm:
    rule: Rule
    created: datetime.datetime
    state: State = "INSUFFICIENT_DATA"
    reason: str = "Unchecked: Initial alarm creation"
    reason_data: str = "{}"
    since: datetime.datetime = field(default_factory=lambda: datetime.datetime.now(datetime.UTC))
    told_at: datetime.datetime | None = None  # when policies last heard of it
    changes: list[Change] = field(default_factory=list)


@dataclass(frozen=True)
class Firing:
    """An alarm that goes on, as a policy hears of it.

    values   of the periods that were looked at, oldest first, without those that had none
    """

    rule: Rule
    at: datetime.datetime
    values: tuple[float, ...]


class Alarms:
    """All alarms of one platform. Any thread may ask."""

    def __init__(self, clock: Clock, metrics: Metrics, region: str, account: str) -> None:
        self._clock = clock
        self._metrics = metrics
        self._region = region
        self._account = account
        self._lock = threading.RLock()
        self._alarms: dict[str, Alarm] = {}
        self.on_policy: Callable[[str, Firing], None] = lambda _arn, _firing: None

    def arn(self, name: str) -> str:
        return f"arn:aws:cloudwatch:{self._region}:{self._account}:alarm:{name}"

    def put(self, rule: Rule) -> Alarm:
        """A new alarm has no data yet; a changed one keeps its state until it is looked at."""
        with self._lock:
            there = self._alarms.get(rule.name)
            if there is None:
                there = self._alarms[rule.name] = Alarm(rule, self._clock.now(), since=self._clock.now())
            there.rule = rule
            return there

    def delete(self, names: Iterable[str]) -> None:
        with self._lock:
            for name in names:
                self._alarms.pop(name, None)

    def enable(self, names: Iterable[str], is_enabled: bool) -> None:
        with self._lock:
            for name in names:
                if name in self._alarms:
                    self._alarms[name].rule = replace(self._alarms[name].rule, is_enabled=is_enabled)

    def find(self, name: str) -> Alarm | None:
        with self._lock:
            return self._alarms.get(name)

    def all(self) -> list[Alarm]:
        with self._lock:
            return [self._alarms[name] for name in sorted(self._alarms)]

    def state(self, name: str) -> State | None:
        """None when there is no such alarm."""
        found = self.find(name)
        return found.state if found else None

    def set_state(self, name: str, state: State, reason: str, reason_data: str = "{}") -> None:
        """By hand, until the next evaluation, actions and all. Raises KeyError."""
        with self._lock:
            alarm = self._alarms[name]
            self._change(alarm, state, reason, reason_data, self._clock.now())
        self._act(alarm, self._clock.now(), self.values(alarm.rule, self._clock.now()))

    def look(self, at: datetime.datetime) -> None:
        """Evaluate what is due at a beat."""
        second = int(at.timestamp())
        for alarm in self.all():
            if second % alarm.rule.step_s == 0 and at > alarm.created:
                self._look(alarm, at)

    def _look(self, alarm: Alarm, at: datetime.datetime) -> None:
        rule = alarm.rule
        values = self.values(rule, at)
        breaks = COMPARISONS[rule.comparison]
        breaches = [None if value is None else breaks(value, rule.threshold) for value in values]
        state = judge(breaches, rule.n_periods, rule.n_to_alarm, rule.missing, alarm.state)
        if state != alarm.state:
            reason, data = _reason(rule, state, values, at)
            with self._lock:
                self._change(alarm, state, reason, data, at)
            self._act(alarm, at, values)
        elif state == "ALARM" and alarm.told_at is not None and (at - alarm.told_at).total_seconds() >= 60:
            self._act(alarm, at, values)

    def values(self, rule: Rule, at: datetime.datetime) -> list[float | None]:
        """Of the periods before `at`, oldest first. High-resolution periods begin on the dot, longer ones end at `at`.

        An alarm that names a unit sees no figures of another.
        """
        end_s = int(at.timestamp())
        end_s -= end_s % rule.step_s
        n = looked_at(rule.n_periods)
        spans = [end_s - (i + 1) * rule.period_s for i in reversed(range(n))]
        metric = rule.metric
        if isinstance(metric, Formula):
            return [metric.value(self._metrics, start, start + rule.period_s) for start in spans]
        if rule.unit is not None and rule.unit != self._metrics.units.get(metric, "None"):
            return [None] * n
        return [self._metrics.value(metric, start, start + rule.period_s, rule.statistic) for start in spans]

    def _change(self, alarm: Alarm, state: State, reason: str, data: str, at: datetime.datetime) -> None:
        before, alarm.state, alarm.reason, alarm.reason_data = alarm.state, state, reason, data
        if before == state:
            return
        alarm.since, alarm.told_at = at, None
        alarm.changes = [*alarm.changes[1 - MAX_HISTORY :], Change(at, before, state, reason)]

    def _act(self, alarm: Alarm, at: datetime.datetime, values: Iterable[float | None]) -> None:
        """Tell the policies. The other kinds of action, such as SNS topics, are in README.md's table: nothing is sent."""
        if alarm.state != "ALARM" or not alarm.rule.is_enabled:
            return
        alarm.told_at = at
        firing = Firing(alarm.rule, at, tuple(value for value in values if value is not None))
        for arn in alarm.rule.alarm_actions:
            if arn.startswith(POLICY_ARN):
                self.on_policy(arn, firing)


def _reason(rule: Rule, state: State, values: Iterable[float | None], at: datetime.datetime) -> tuple[str, str]:
    """In CloudWatch's words, and the same for machines."""
    recent = [value for value in values if value is not None][-rule.n_periods :]
    data = json.dumps(
        {
            "version": "1.0",
            "queryDate": at.isoformat(),
            "statistic": rule.statistic,
            "period": rule.period_s,
            "recentDatapoints": recent,
            "threshold": rule.threshold,
        }
    )
    if state == "INSUFFICIENT_DATA":
        plural = "datapoint was" if rule.n_periods == 1 else "datapoints were"
        return f"Insufficient Data: {rule.n_periods} {plural} unknown.", data
    breaks = COMPARISONS[rule.comparison]
    n = sum(breaks(value, rule.threshold) == (state == "ALARM") for value in recent)
    what = "greater" if "Greater" in rule.comparison else "less"
    equal = " or equal to" if "OrEqual" in rule.comparison else ""
    negated = "was" if state == "ALARM" else "was not"
    shown = ", ".join(str(value) for value in recent)
    return (
        f"Threshold Crossed: {n} datapoint(s) [{shown}] {negated} {what} than{equal} the threshold ({rule.threshold}).",
        data,
    )
