"""Policies' arithmetic against the examples of Application Auto Scaling's user guide."""

from __future__ import annotations

import pytest

from container.platform.scaling.arithmetic import adjusted, step_adjustment, steps_wrong, tracked

# The guide's step policies for scaling out and in, at an alarm threshold of 60 and 40.
OUT = [
    {"MetricIntervalLowerBound": 0, "MetricIntervalUpperBound": 10, "ScalingAdjustment": 0},
    {"MetricIntervalLowerBound": 10, "MetricIntervalUpperBound": 20, "ScalingAdjustment": 10},
    {"MetricIntervalLowerBound": 20, "ScalingAdjustment": 30},
]
IN = [
    {"MetricIntervalLowerBound": -10, "MetricIntervalUpperBound": 0, "ScalingAdjustment": 0},
    {"MetricIntervalLowerBound": -20, "MetricIntervalUpperBound": -10, "ScalingAdjustment": -10},
    {"MetricIntervalUpperBound": -20, "ScalingAdjustment": -30},
]


@pytest.mark.parametrize(
    ("beyond", "expected"), [(0, 0), (9.9, 0), (10, 10), (19.9, 10), (20, 30), (400, 30), (-1, None)]
)
def test_lower_bounds_above_the_threshold_are_inside_their_step(beyond: float, expected: int | None) -> None:
    assert step_adjustment(OUT, beyond) == expected


@pytest.mark.parametrize(("beyond", "expected"), [(0, 0), (-9.9, 0), (-10, -10), (-19.9, -10), (-20, -30), (-99, -30)])
def test_upper_bounds_below_the_threshold_are_inside_their_step(beyond: float, expected: int) -> None:
    assert step_adjustment(IN, beyond) == expected


def test_a_step_without_bounds_takes_everything() -> None:
    assert step_adjustment([{"ScalingAdjustment": 1}], -5) == 1


@pytest.mark.parametrize(
    ("base", "percent", "expected"),
    # the guide: 10 + 10 % = 11, + 30 % of 11 = 3.3 rounded down = 14; in: -10 % of 11 -> 10, then -30 % of 10 -> 7
    [(10, 10, 11), (11, 30, 14), (11, -10, 10), (10, -30, 7), (1, 20, 2), (2, -20, 1), (20, -33, 14), (0, 50, 0)],
)
def test_percentages_round_as_the_guide_says(base: int, percent: int, expected: int) -> None:
    assert adjusted(base, percent, "PercentChangeInCapacity") == expected


def test_a_percentage_changes_by_the_least_magnitude_at_least() -> None:
    assert adjusted(4, 25, "PercentChangeInCapacity", 2) == 6
    assert adjusted(4, -25, "PercentChangeInCapacity", 2) == 2


def test_counts_are_added_or_set() -> None:
    assert adjusted(0, 1, "ChangeInCapacity") == 1
    assert adjusted(1, -3, "ChangeInCapacity") == 0
    assert adjusted(7, 3, "ExactCapacity") == 3


@pytest.mark.parametrize(
    ("base", "value", "target", "expected"),
    [(1, 100, 50, 2), (2, 75, 50, 3), (3, 10, 50, 1), (1, 0, 5, 0), (3, 0.1 + 0.2, 0.3, 3), (0, 9, 5, 0)],
)
def test_tracking_is_proportional_and_never_short(base: int, value: float, target: float, expected: int) -> None:
    assert tracked(base, value, target) == expected


@pytest.mark.parametrize(
    "steps",
    [
        [{"MetricIntervalLowerBound": 0, "MetricIntervalUpperBound": 10}, {"MetricIntervalLowerBound": 20}],
        [{"MetricIntervalLowerBound": 0, "MetricIntervalUpperBound": 10}, {"MetricIntervalLowerBound": 5}],
        [{"MetricIntervalLowerBound": 10, "MetricIntervalUpperBound": 0}],
        [{}, {"MetricIntervalLowerBound": 5}],
    ],
)
def test_steps_with_gaps_or_overlaps_are_refused(steps: list[dict[str, float]]) -> None:
    assert steps_wrong(steps)
    assert steps_wrong(OUT) is None
    assert steps_wrong(IN) is None
