"""What CloudWatch says of an alarm, as deployments ask.

Rule: the alarm lives in moto's CloudWatch, where PutMetricAlarm and SetAlarmState put it; evaluating it is another room's.
"""

from __future__ import annotations

from container.platform.service.moto import Moto


class CloudWatchAlarms:
    """Asked in this process, for it is asked often."""

    def __init__(self, moto: Moto, region: str) -> None:
        self._moto = moto
        self._region = region

    def state(self, name: str) -> str | None:
        alarms = self._moto.backend("cloudwatch", self._region).alarms
        return str(alarms[name].state_value) if name in alarms else None
