"""Schedules of scheduled actions: the forms that the user guide shows, and the nights when clocks change."""

from __future__ import annotations

import datetime

import pytest

from container.platform.scaling.schedules import ScheduleInvalid, parse

NOON = datetime.datetime(2026, 11, 29, 12, 0, tzinfo=datetime.UTC)  # a Sunday


@pytest.mark.parametrize(
    ("text", "zone", "expected"),
    [
        ("at(2026-11-30T09:00:00)", None, "2026-11-30T09:00"),
        ("at(2026-11-30T09:00)", "America/New_York", "2026-11-30T14:00"),
        ("rate(5 minutes)", None, "2026-11-29T12:05"),
        ("rate(1 day)", None, "2026-11-30T12:00"),
        ("cron(0 9 * * ? *)", None, "2026-11-30T09:00"),
        ("cron(0 9 ? * MON-FRI *)", "Europe/Berlin", "2026-11-30T08:00"),
        ("cron(0/15 * * * ? *)", None, "2026-11-29T12:15"),
        ("cron(30 18 L * ? *)", None, "2026-11-30T18:30"),
        ("cron(0 8 1W * ? *)", None, "2026-12-01T08:00"),
        ("cron(0 8 ? * 6#3 *)", None, "2026-12-18T08:00"),
        ("cron(0 8 ? * 6L *)", None, "2026-12-25T08:00"),
        ("cron(0 0 29 2 ? *)", None, "2028-02-29T00:00"),
        ("cron(0 0 ? JAN,MAR SUN 2027)", None, "2027-01-03T00:00"),
        ("cron(0 22 ? * SAT-SUN *)", None, "2026-11-29T22:00"),
    ],
)
def test_the_next_time_after_a_sunday_noon(text: str, zone: str | None, expected: str) -> None:
    when = parse(text, zone, NOON).next_after(NOON)
    assert when is not None
    assert when.isoformat().startswith(expected)


def test_an_hour_that_the_night_skips_does_not_happen() -> None:
    """Berlin, 29 March 2026: 02:30 is on no clock."""
    before = datetime.datetime(2026, 3, 28, 12, 0, tzinfo=datetime.UTC)
    when = parse("cron(30 2 * * ? *)", "Europe/Berlin", before).next_after(before)
    assert when == datetime.datetime(2026, 3, 30, 0, 30, tzinfo=datetime.UTC)


def test_what_has_been_does_not_come_again() -> None:
    assert parse("at(2020-01-01T00:00:00)", None, NOON).next_after(NOON) is None
    assert parse("cron(0 0 1 1 ? 2020)", None, NOON).next_after(NOON) is None


@pytest.mark.parametrize(
    "text",
    [
        *("", "cron()", "every day", "cron(0 9 * * *)", "cron(0 9 * * * *)", "cron(0 9 ? * ? *)", "cron(61 9 * * ? *)"),
        *("cron(x 9 * * ? *)", "cron(0 9 ? * 6#9 *)", "rate(0 minutes)", "rate(5 weeks)", "at(2026-13-01T00:00:00)"),
    ],
)
def test_what_is_no_schedule_is_refused(text: str) -> None:
    with pytest.raises(ScheduleInvalid):
        parse(text, None, NOON)


def test_a_zone_that_is_none_is_refused() -> None:
    with pytest.raises(ScheduleInvalid, match="Mars"):
        parse("rate(1 day)", "Mars/Olympus", NOON)
