"""Metrics' readers put together: the beat, the alarms, Application Auto Scaling, and CloudWatch's API over them.

Rule: on a beat figures are published first, then alarms are looked at, then changes that have come are noted.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable

from container.platform.clock import Clock
from container.platform.metrics import Metrics
from container.platform.scaling.alarms import Alarms
from container.platform.scaling.autoscaling import AutoScaling
from container.platform.scaling.operations import Operations
from container.platform.scaling.pulse import Pulse
from container.platform.service.call import Operation
from container.platform.service.moto import Moto


class Scaling:
    """`auto.find` is to be set by whoever knows what can be scaled."""

    def __init__(self, clock: Clock, metrics: Metrics, moto: Moto, region: str, account: str) -> None:
        self.alarms = Alarms(clock, metrics, region, account)
        self.auto = AutoScaling(clock, self.alarms, region, account)
        self._operations = Operations(self.auto, self.alarms, clock)
        self._pulse = Pulse(clock)
        moto.on_first.append(lambda: _install(account, metrics, self.alarms))

    def operations(self) -> dict[tuple[str, str], Operation]:
        return self._operations.operations()

    def publish(self, part: Callable[[datetime.datetime], None]) -> None:
        """Call `part` on each beat, every ten seconds, before alarms are looked at: with the time that has just ended."""
        self._pulse.add(part)

    def start(self) -> None:
        """When every part is there."""
        self._pulse.add(self.alarms.look)
        self._pulse.add(self.auto.settle)
        self._pulse.start()


def _install(account: str, metrics: Metrics, alarms: Alarms) -> None:
    from container.platform.scaling.cloudwatch import install  # moto is imported when it is asked first

    install(account, metrics, alarms)
