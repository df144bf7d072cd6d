"""What ran from when to when, and what that would have cost.

Rule: a second that an instance is there is paid for, used or not. What has no known price is named, not left out.
Source: SageMaker's price page: instances are billed by the second, with no upfront commitment.
"""

from __future__ import annotations

import datetime
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from container.platform.bill.prices import PriceUnknown, price_usd_per_hour
from container.platform.clock import Clock

Kind = Literal["endpoint", "training", "processing", "transform"]


@dataclass
class Meter:
    """One instance, running while `ended` is None.

    what    whose it is, such as `shop/AllTraffic`, or a job's name
    share   of the price that is paid
    """

    kind: Kind
    what: str
    instance_type: str
    instance_id: str
    began: datetime.datetime
    ended: datetime.datetime | None = None
    share: float = 1.0

    def seconds(self, now: datetime.datetime) -> float:
        return ((self.ended or now) - self.began).total_seconds()


@dataclass(frozen=True)
class Line:
    """Of a bill. `usd` is None where the price is not known."""

    kind: Kind
    what: str
    instance_type: str
    seconds: float
    usd: float | None
    n_running: int


@dataclass(frozen=True)
class Bill:
    """usd   of the lines whose price is known
    usd_per_hour   that goes on as things are now
    """

    at: datetime.datetime
    lines: tuple[Line, ...]
    usd: float
    usd_per_hour: float
    unknown: tuple[str, ...]


class Ledger:
    """All meters of one platform. Any thread may ask."""

    def __init__(self, clock: Clock, region: str) -> None:
        self._clock = clock
        self._region = region
        self._lock = threading.Lock()
        self._meters: list[Meter] = []
        self.began = clock.now()

    def start(self, kind: Kind, what: str, instance_type: str, instance_id: str, share: float = 1.0) -> Meter:
        meter = Meter(kind, what, instance_type, instance_id, self._clock.now(), share=share)
        with self._lock:
            self._meters.append(meter)
        return meter

    def stop(self, meter: Meter) -> None:
        """Once; a second time changes nothing."""
        meter.ended = meter.ended or self._clock.now()

    def meters(self) -> list[Meter]:
        with self._lock:
            return list(self._meters)

    def bill(self) -> Bill:
        now = self._clock.now()
        groups: dict[tuple[Kind, str, str], list[Meter]] = {}
        for meter in self.meters():
            groups.setdefault((meter.kind, meter.what, meter.instance_type), []).append(meter)
        lines = tuple(self._line(*key, meters, now) for key, meters in sorted(groups.items()))
        running = [meter for meter in self.meters() if meter.ended is None]
        prices = [(price, meter.share) for meter in running if (price := self._price(meter.instance_type)) is not None]
        return Bill(
            now,
            lines,
            sum(line.usd or 0.0 for line in lines),
            sum(price * share for price, share in prices),
            tuple(sorted({line.instance_type for line in lines if line.usd is None})),
        )

    def dump(self) -> Any:
        """What has ended, and what runs as if it ended now."""
        now = self._clock.now()
        return [
            {
                "kind": one.kind,
                "what": one.what,
                "type": one.instance_type,
                "id": one.instance_id,
                "began": one.began.timestamp(),
                "ended": (one.ended or now).timestamp(),
                "share": one.share,
            }
            for one in self.meters()
        ]

    def restore(self, value: Any) -> None:
        with self._lock:
            self._meters = [
                Meter(
                    one["kind"], one["what"], one["type"], one["id"], _at(one["began"]), _at(one["ended"]), one["share"]
                )
                for one in value
            ]

    def _line(self, kind: Kind, what: str, instance_type: str, meters: Iterable[Meter], now: datetime.datetime) -> Line:
        meters = list(meters)
        price = self._price(instance_type)
        seconds = sum(meter.seconds(now) for meter in meters)
        usd = None if price is None else sum(meter.seconds(now) / 3600 * price * meter.share for meter in meters)
        return Line(kind, what, instance_type, seconds, usd, sum(meter.ended is None for meter in meters))

    def _price(self, instance_type: str) -> float | None:
        try:
            return price_usd_per_hour(instance_type, self._region)
        except PriceUnknown:
            return None


def _at(second: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(second, datetime.UTC)
