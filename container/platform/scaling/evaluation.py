"""The state of an alarm from the datapoints that it has.

Rule: no clock and no figures are read here.
Source: CloudWatch user guide, "Configuring how CloudWatch alarms treat missing data".
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

State = Literal["OK", "ALARM", "INSUFFICIENT_DATA"]
Missing = Literal["missing", "ignore", "breaching", "notBreaching"]


def looked_at(n_periods: int) -> int:
    """How many periods are looked at: more than an alarm asks for, so that late figures count.

    source   the page draws 5 for an alarm of 3; the same share for others is inferred
    """
    return n_periods + math.ceil(n_periods * 2 / 3)


COMPARISONS: Mapping[str, Callable[[float, float], bool]] = {
    "GreaterThanThreshold": operator.gt,
    "GreaterThanOrEqualToThreshold": operator.ge,
    "LessThanThreshold": operator.lt,
    "LessThanOrEqualToThreshold": operator.le,
}


def judge(breaches: Sequence[bool | None], n_periods: int, n_to_alarm: int, missing: Missing, before: State) -> State:
    """The state after an evaluation.

    breaches   one for each period of the evaluation range, oldest first; None where no figure came
    before     the state until now, kept where "ignore" or too few breaches say so
    """
    there = [one for one in breaches if one is not None]
    if len(there) >= n_periods:
        return "ALARM" if sum(there[-n_periods:]) >= n_to_alarm else "OK"
    n_missing = n_periods - len(there)
    n_breaching = sum(there)
    if missing == "breaching":
        return "ALARM" if n_breaching + n_missing >= n_to_alarm else "OK"
    if missing == "notBreaching" or n_breaching >= n_to_alarm:
        return "ALARM" if n_breaching >= n_to_alarm else "OK"
    if not there:
        return before if missing == "ignore" else "INSUFFICIENT_DATA"
    if n_breaching < len(there):
        return "OK"
    if missing == "ignore":
        return before
    oldest = next(i for i, one in enumerate(breaches) if one)
    return "ALARM" if len(breaches) - oldest >= n_to_alarm else before
