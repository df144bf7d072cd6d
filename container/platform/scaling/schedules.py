"""When a scheduled action is due: at(...), rate(...) and cron(...) as Application Auto Scaling reads them.

Rule: a time is one of the clock on the wall in the action's own zone; what no clock there shows, in a
night that skips an hour, does not happen.
Source: its user guide, "Schedule recurring scaling actions using cron expressions".
"""

from __future__ import annotations

import calendar
import datetime
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

_AT = re.compile(r"at\((\d{4}-\d{2}-\d{2}T\d{2}:\d{2}(?::\d{2})?)\)", re.ASCII)
_RATE = re.compile(r"rate\(([1-9]\d{0,5}) (minute|minutes|hour|hours|day|days)\)", re.ASCII)
_CRON = re.compile(r"cron\(([^()]{9,256})\)")
_RATE_S = {"minute": 60, "hour": 3600, "day": 86_400}
_MONTHS = {name.upper(): n for n, name in enumerate(calendar.month_abbr) if name}
_DAYS = {name: n for n, name in enumerate(("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"), 1)}
_LAST_YEAR = 2199
MAX_DAYS_AHEAD = 366 * 8  # a 29th of February is at most so far away


class ScheduleInvalid(ValueError):
    """It is no schedule, and why."""


@dataclass(frozen=True)
class Schedule:
    """next_after(when) is the first time after `when`, None when there is none."""

    next_after: Callable[[datetime.datetime], datetime.datetime | None]


def parse(text: str, zone: str | None, began: datetime.datetime) -> Schedule:
    """began   what a rate counts from. Raises ScheduleInvalid."""
    try:
        tz = ZoneInfo(zone or "UTC")
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise ScheduleInvalid(f"{zone} is no time zone") from error
    if found := _AT.fullmatch(text):
        return _once(found[1], tz)
    if found := _RATE.fullmatch(text):
        return _every(int(found[1]) * _RATE_S[found[2].rstrip("s")], began)
    if found := _CRON.fullmatch(text):
        return _Cron(found[1], tz).schedule()
    raise ScheduleInvalid(f"{text} is none of at(yyyy-mm-ddThh:mm:ss), rate(value unit), cron(fields)")


def _once(text: str, tz: ZoneInfo) -> Schedule:
    try:
        when = datetime.datetime.fromisoformat(text).replace(tzinfo=tz).astimezone(datetime.UTC)
    except ValueError as error:
        raise ScheduleInvalid(f"{text} is no time") from error
    return Schedule(lambda after: when if when > after else None)


def _every(period_s: int, began: datetime.datetime) -> Schedule:
    def next_after(after: datetime.datetime) -> datetime.datetime:
        passed_s = max(0.0, (after - began).total_seconds())
        return began + datetime.timedelta(seconds=(passed_s // period_s + 1) * period_s)

    return Schedule(next_after)


class _Cron:
    """Minutes Hours Day-of-month Month Day-of-week [Year]. Raises ScheduleInvalid."""

    def __init__(self, text: str, tz: ZoneInfo) -> None:
        fields = text.upper().split()
        if len(fields) != 6:
            raise ScheduleInvalid(f"cron({text}) has {len(fields)} fields, not 6")
        self._tz = tz
        self._minutes = sorted(_numbers(fields[0], 0, 59, {}))
        self._hours = sorted(_numbers(fields[1], 0, 23, {}))
        self._day, self._weekday = fields[2], fields[4]
        self._months = _numbers(fields[3], 1, 12, _MONTHS)
        self._years = _numbers(fields[5], 1970, _LAST_YEAR, {})
        if (self._day == "?") == (self._weekday == "?"):
            raise ScheduleInvalid(f"cron({text}) needs ? in one of day-of-month and day-of-week, and in one only")
        self._days_of(2026, 1)  # that the day field can be read

    def schedule(self) -> Schedule:
        return Schedule(self._next_after)

    def _next_after(self, after: datetime.datetime) -> datetime.datetime | None:
        local = after.astimezone(self._tz)
        for ahead in range(-1, MAX_DAYS_AHEAD):
            day = local.date() + datetime.timedelta(days=ahead)
            if day.year in self._years and day.month in self._months and day.day in self._days_of(day.year, day.month):
                for when in self._times(day):
                    if when > after:
                        return when
        return None

    def _times(self, day: datetime.date) -> Iterator[datetime.datetime]:
        for hour in self._hours:
            for minute in self._minutes:
                local = datetime.datetime(day.year, day.month, day.day, hour, minute, tzinfo=self._tz)
                when = local.astimezone(datetime.UTC)
                if when.astimezone(self._tz).replace(fold=0) == local:
                    yield when

    def _days_of(self, year: int, month: int) -> set[int]:
        last = calendar.monthrange(year, month)[1]
        if self._weekday == "?":
            return _days_of_month(self._day, year, month, last)
        return {day for part in self._weekday.split(",") for day in _weekdays(part, year, month, last)}


def _days_of_month(field: str, year: int, month: int, last: int) -> set[int]:
    if field == "L":
        return {last}
    if field == "LW":
        return {_nearest_workday(last, year, month, last)}
    if field.endswith("W") and field[:-1].isdecimal():
        return {_nearest_workday(min(int(field[:-1]), last), year, month, last)}
    return {day for day in _numbers(field, 1, 31, {}) if day <= last}


def _weekdays(part: str, year: int, month: int, last: int) -> set[int]:
    name, hash_sign, nth = part.partition("#")
    if hash_sign:
        if nth not in {"1", "2", "3", "4", "5"}:
            raise ScheduleInvalid(f"{part} is no day of a week of a month")
        days = [day for day in range(1, last + 1) if _weekday(year, month, day) in _numbers(name, 1, 7, _DAYS)]
        return set(days[int(nth) - 1 : int(nth)])
    if part == "L":
        part = "7"
    elif part.endswith("L"):
        wanted = _numbers(part[:-1], 1, 7, _DAYS)
        return {day for day in range(last - 6, last + 1) if _weekday(year, month, day) in wanted}
    wanted = _numbers(part, 1, 7, _DAYS)
    return {day for day in range(1, last + 1) if _weekday(year, month, day) in wanted}


def _weekday(year: int, month: int, day: int) -> int:
    """Sunday is 1."""
    return (datetime.date(year, month, day).weekday() + 1) % 7 + 1


def _nearest_workday(day: int, year: int, month: int, last: int) -> int:
    """Inside the month."""
    match datetime.date(year, month, day).weekday():
        case 5:
            return day - 1 if day > 1 else day + 2
        case 6:
            return day + 1 if day < last else day - 2
    return day


def _numbers(field: str, lowest: int, highest: int, names: dict[str, int]) -> set[int]:
    """`*`, `5`, `1-5`, `MON,FRI`, `0/15`, `*/2`."""
    found: set[int] = set()
    for part in field.split(","):
        span, _, step = part.partition("/")
        first, dash, end = span.partition("-")
        try:
            if span in {"*", "?"}:
                low, high = lowest, highest
            else:
                low = names[first] if first in names else int(first)
                high = (names[end] if end in names else int(end)) if dash else (highest if step else low)
            by = int(step) if step else 1
        except ValueError as error:
            raise ScheduleInvalid(f"{part} is no number of a cron expression") from error
        if not lowest <= low <= highest or not lowest <= high <= highest or by < 1:
            raise ScheduleInvalid(f"{part} is not within {lowest}-{highest}")
        span_of = range(low, high + 1) if low <= high else [*range(low, highest + 1), *range(lowest, high + 1)]
        found.update(list(span_of)[::by])
    return found
