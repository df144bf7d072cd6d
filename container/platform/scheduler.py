"""EventBridge Scheduler's schedules, carried out: moto keeps them, this calls what they target when they are due.

Rule: only calls of SageMaker and Application Auto Scaling are made, as `arn:aws:scheduler:::aws-sdk:SERVICE:ACTION` names
them; other targets are named in the log when they are due. A call that is refused is not tried again.
"""

from __future__ import annotations

import datetime
import logging
from typing import Any

from container.platform.scaling.schedules import ScheduleInvalid, parse
from container.platform.service.inside import Inside
from container.platform.service.moto import Moto

log = logging.getLogger("mme.platform")

UNIVERSAL = "arn:aws:scheduler:::aws-sdk:"
SERVICES = {"sagemaker": "sagemaker", "applicationautoscaling": "application-autoscaling"}


class Scheduler:
    def __init__(self, moto: Moto, region: str, inside: Inside) -> None:
        self._moto = moto
        self._region = region
        self._inside = inside
        self._began: dict[str, datetime.datetime] = {}  # when a schedule was seen first, by its ARN
        self._last: datetime.datetime | None = None

    def look(self, at: datetime.datetime) -> None:
        """On each beat. Looks once a minute, since no schedule is finer."""
        if int(at.timestamp()) % 60 or not self._moto.is_awake:
            return
        last, self._last = self._last or at, at
        groups = self._moto.backend("scheduler", self._region).schedule_groups
        for schedule in [one for group in list(groups.values()) for one in list(group.schedules.values())]:
            began = self._began.setdefault(schedule.arn, at)
            if schedule.state == "ENABLED" and self._is_due(schedule, max(began, last), at):
                self._carry_out(schedule)

    def _is_due(self, schedule: Any, before: datetime.datetime, at: datetime.datetime) -> bool:
        start, end = _time(schedule.start_date), _time(schedule.end_date)
        began = start or self._began[schedule.arn]
        try:
            when = parse(schedule.schedule_expression, schedule.schedule_expression_timezone, began)
        except ScheduleInvalid as error:
            log.warning("schedule %s: %s", schedule.name, error)
            return False
        due = when.next_after(before)
        return due is not None and due <= at and (start is None or due >= start) and (end is None or due <= end)

    def _carry_out(self, schedule: Any) -> None:
        target = schedule.target["Arn"]
        service, _, action = target.removeprefix(UNIVERSAL).partition(":")
        if not target.startswith(UNIVERSAL) or service not in SERVICES:
            log.warning("schedule %s is due, and mme platform does not play its target %s", schedule.name, target)
            return
        operation = f"{action[:1].upper()}{action[1:]}"
        answer = self._inside.send(SERVICES[service], operation, schedule.target.get("Input", "{}").encode())
        log.info("schedule %s: %s is answered %d", schedule.name, action, answer.status)
        if answer.status >= 400:
            log.warning("schedule %s: %s", schedule.name, answer.body.decode(errors="replace"))


def _time(value: Any) -> datetime.datetime | None:
    return None if value is None else datetime.datetime.fromtimestamp(float(value), datetime.UTC)
