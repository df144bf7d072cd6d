"""How many there should be: what a policy makes of a figure.

Rule: numbers in, a number out; limits of the target, cooldowns and suspensions are autoscaling.py's.
Sources: Application Auto Scaling user guide, "Step scaling policies", "Target tracking scaling policies".
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

LOW_SHARE = 0.9  # the alarm for scaling in is set at so much of the target value, as the alarms that AWS makes show


def step_adjustment(steps: Sequence[Mapping[str, Any]], beyond: float) -> int | None:
    """The adjustment of the step that a figure falls into; None when it falls into none.

    beyond   the figure less the alarm's threshold. A lower bound belongs to a step above the threshold, an upper one to a
             step below it.
    """
    for step in steps:
        lower = step.get("MetricIntervalLowerBound", -math.inf)
        upper = step.get("MetricIntervalUpperBound", math.inf)
        is_above = lower >= 0
        if (lower <= beyond < upper) if is_above else (lower < beyond <= upper):
            return int(step["ScalingAdjustment"])
    return None


def adjusted(base: int, adjustment: int, adjustment_type: str, min_magnitude: int | None = None) -> int:
    """Percentages round towards nothing, but never to nothing: 1.6 is 1, 0.3 is 1, -0.3 is -1, -6.67 is -6."""
    if adjustment_type == "ExactCapacity":
        return adjustment
    if adjustment_type == "ChangeInCapacity":
        return max(0, base + adjustment)
    exact = base * adjustment / 100
    change = math.trunc(exact)
    if exact and not change:
        change = 1 if exact > 0 else -1
    if min_magnitude and adjustment:
        change = max(change, min_magnitude) if adjustment > 0 else min(change, -min_magnitude)
    return max(0, base + change)


def tracked(base: int, value: float, target: float) -> int:
    """In proportion, never short of the target: what `base` of them met at `value` each, spread at `target` each."""
    return math.ceil(round(base * value / target, 9))


def steps_wrong(steps: Sequence[Mapping[str, Any]]) -> str | None:
    """Why a list of steps cannot be one. None when it can."""
    spans = sorted(
        (one.get("MetricIntervalLowerBound", -math.inf), one.get("MetricIntervalUpperBound", math.inf)) for one in steps
    )
    if any(lower == -math.inf and upper == math.inf for lower, upper in spans) and len(spans) > 1:
        return "At least one of the bounds must be specified when there is more than one step adjustment"
    if any(lower >= upper for lower, upper in spans):
        return "Step adjustment lower bound must be less than its upper bound"
    for (_, upper), (lower, _) in itertools.pairwise(spans):
        if lower < upper:
            return "Step adjustment intervals can't overlap"
        if lower > upper:
            return "There can't be gaps between step adjustment intervals"
    return None
