"""Alarms against the two tables of CloudWatch's page on missing data."""

from __future__ import annotations

import pytest

from container.platform.scaling.evaluation import Missing, State, judge

# The page's tables: datapoints oldest first (0 within the threshold, X breaching, - missing), then the state for each of
# missing, ignore, breaching, notBreaching. "=" is: the state stays as it was.
THREE_OF_THREE = [
    ("0-X-X", "OOOO"),
    ("0----", "OOOO"),
    ("-----", "I=AO"),
    ("0XX-X", "AAAA"),
    ("--X--", "A=AO"),
]
TWO_OF_THREE = [
    ("0-X-X", "AAAA"),
    ("00X0X", "AAAA"),
    ("0-X--", "OOAO"),
    ("----0", "OOAO"),
    ("---X-", "A=AO"),
]
STATES: dict[str, State] = {"O": "OK", "A": "ALARM", "I": "INSUFFICIENT_DATA"}
TREATMENTS: list[Missing] = ["missing", "ignore", "breaching", "notBreaching"]


@pytest.mark.parametrize(
    ("n_to_alarm", "points", "expected"),
    [(3, *row) for row in THREE_OF_THREE] + [(2, *row) for row in TWO_OF_THREE],
)
@pytest.mark.parametrize("before", ["OK", "ALARM"])
def test_the_tables_of_cloudwatchs_page(n_to_alarm: int, points: str, expected: str, before: State) -> None:
    breaches = [{"0": False, "X": True, "-": None}[one] for one in points]
    for treatment, letter in zip(TREATMENTS, expected, strict=True):
        assert judge(breaches, 3, n_to_alarm, treatment, before) == STATES.get(letter, before), treatment


def test_one_breach_that_is_too_young_for_three_of_three_changes_nothing() -> None:
    assert judge([None, None, None, None, True], 3, 3, "missing", "OK") == "OK"


def test_one_of_one_goes_to_alarm_at_once_and_forgets_when_nothing_comes() -> None:
    """As the wake alarm is: missing is missing."""
    assert judge([None, None, True], 1, 1, "missing", "INSUFFICIENT_DATA") == "ALARM"
    assert judge([None, None, None], 1, 1, "missing", "ALARM") == "INSUFFICIENT_DATA"
