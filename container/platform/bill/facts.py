"""What the page shows and the end of a run prints: the bill, what runs, what was scaled and why.

Rule: the judgement is made here, where it is tested; the page only draws it.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from container.platform.bill.jobs import Job, jobs
from container.platform.bill.ledger import Bill, Ledger, Line, Meter
from container.platform.bill.prices import HOURS_PER_MONTH, PRICES_OF, PriceUnknown, price_usd_per_hour
from container.platform.bill.serverless import ServerlessMeters
from container.platform.bus import Bus, Event
from container.platform.clock import Clock
from container.platform.components.components import Components
from container.platform.endpoints.endpoints import Endpoints
from container.platform.endpoints.sides import Endpoint
from container.platform.metrics import MetricName, Metrics
from container.platform.scaling.records import Activity
from container.platform.scaling.room import Scaling
from container.platform.traps import Traps

IDLE_S = 3600.0  # without a call, after which an instance is worth a word
ROWS = 50
MAX_STEPS = 1000  # of one line of the chart
NOT_COUNTED = "Instances only: no storage, data, requests, alarms, logs."


@dataclass(frozen=True)
class Parts:
    """Of a platform."""

    clock: Clock
    region: str
    ledger: Ledger
    metrics: Metrics
    bus: Bus
    traps: Traps
    endpoints: Endpoints
    components: Components
    scaling: Scaling
    serverless: ServerlessMeters


def whole_bill(ledger: Ledger, events: Iterable[Event], region: str, serverless: Iterable[Line] = ()) -> Bill:
    """Of endpoints and jobs."""
    bill, told = ledger.bill(), jobs(events)
    lines = [*bill.lines, *serverless, *(_job_line(job, bill.at, region) for job in told)]
    running = [job for job in told if job.began and not job.ended]
    per_hour = sum(
        price * job.n_instances for job in running if (price := _price(job.instance_type, region)) is not None
    )
    return replace(
        bill,
        lines=tuple(lines),
        usd=sum(line.usd or 0.0 for line in lines),
        usd_per_hour=bill.usd_per_hour + per_hour,
        unknown=tuple(sorted({line.instance_type for line in lines if line.usd is None})),
    )


def facts(parts: Parts) -> dict[str, Any]:
    """Plain JSON values. Times are seconds since 1970, platform time."""
    bill = whole_bill(parts.ledger, parts.bus.sent, parts.region, parts.serverless.lines())
    idle = _idle(parts, bill.at)
    return {
        "at": bill.at.timestamp(),
        "began": parts.ledger.began.timestamp(),
        "speed": parts.clock.speed,
        "region": parts.region,
        "prices_of": PRICES_OF.isoformat(),
        "not_counted": NOT_COUNTED,
        "traps": parts.traps.names,
        "verdict": _verdict(bill, idle),
        "usd": bill.usd,
        "usd_per_hour": bill.usd_per_hour,
        "usd_per_month": bill.usd_per_hour * HOURS_PER_MONTH,
        "lines": [
            {
                "kind": line.kind,
                "what": line.what,
                "instance_type": line.instance_type,
                "hours": line.seconds / 3600,
                "usd": line.usd,
                "n_running": line.n_running,
            }
            for line in bill.lines
        ],
        "idle": idle,
        "endpoints": [_endpoint(endpoint, parts) for endpoint in parts.endpoints.all()],
        "chart": _chart(parts.ledger.meters(), bill.at),
        "activities": [_activity(one) for one in parts.scaling.auto.activities()[:ROWS]],
        "alarms": [
            {"name": one.rule.name, "state": one.state, "since": one.since.timestamp(), "reason": one.reason}
            for one in parts.scaling.alarms.all()
        ],
        "jobs": [_job(one, bill.at) for one in jobs(parts.bus.sent)][-ROWS:][::-1],
        "events": [_event(one) for one in parts.bus.sent[-ROWS:][::-1]],
    }


def told(bill: Bill) -> list[str]:
    """The bill as lines of text: what, on what, hours, USD; the sum, and what is not in it."""
    rows = [
        (f"{line.kind} {line.what}", line.instance_type, f"{line.seconds / 3600:.2f} h", _usd(line.usd))
        for line in bill.lines
    ]
    rows.append(("all of it would have cost", "", "", _usd(bill.usd)))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    aligned = [
        f"{what:<{widths[0]}}  {kind:<{widths[1]}}  {hours:>{widths[2]}}  {usd:>{widths[3]}}".rstrip()
        for what, kind, hours, usd in rows
    ]
    return [*aligned, f"prices of {PRICES_OF}. {NOT_COUNTED}"]


def _usd(usd: float | None) -> str:
    return "no price known" if usd is None else f"{usd:.2f} USD"


def _verdict(bill: Bill, idle: Sequence[str]) -> dict[str, str]:
    detail = f"{bill.usd_per_hour:.3f} USD an hour as it is now, {bill.usd_per_hour * HOURS_PER_MONTH:,.0f} a month."
    if bill.unknown:
        detail += f" Without {', '.join(bill.unknown)}, of which no price is known."
    if idle:
        detail = f"{'; '.join(idle)}. {detail}"
    level = "warn" if idle or bill.unknown else "good"
    return {"level": level, "headline": f"{bill.usd:,.2f} USD", "detail": detail}


def _idle(parts: Parts, now: datetime.datetime) -> list[str]:
    """Variants that cost and that nobody calls."""
    found = []
    for endpoint in parts.endpoints.all():
        for variant in endpoint.blue.variants.values():
            began = min((one.started_at for one in variant.instances), default=now)
            since = max(_last_call(parts.metrics, variant.dimensions, now), began)
            idle_s = (now - since).total_seconds()
            if variant.instances and variant.serverless is None and idle_s >= IDLE_S:
                n = len(variant.instances)
                plural = "" if n == 1 else "s"
                found.append(f"{endpoint.name}/{variant.name}: {n} instance{plural}, no call for {idle_s / 3600:.0f} h")
    return found


def _last_call(metrics: Metrics, dimensions: dict[str, str], now: datetime.datetime) -> datetime.datetime:
    """An idle minute is written as 0. Looked for a day back, an hour at a time."""
    second = int(now.timestamp()) + 1
    metric = MetricName.of("AWS/SageMaker", "Invocations", dimensions)
    for hours in range(24):
        end = second - hours * 3600
        if metrics.value(metric, end - 3600, end, "Sum"):
            return datetime.datetime.fromtimestamp(end - 3600, datetime.UTC) if hours else now
    return datetime.datetime.fromtimestamp(0, datetime.UTC)


def _endpoint(endpoint: Endpoint, parts: Parts) -> dict[str, Any]:
    return {
        "name": endpoint.name,
        "status": endpoint.status,
        "config": endpoint.blue.config_name,
        "reason": endpoint.failure,
        "variants": [
            {
                "name": variant.name,
                "instance_type": variant.config.get("InstanceType", "serverless"),
                "n": len(variant.instances),
                "desired": variant.desired,
            }
            for side in endpoint.sides()
            for variant in side.variants.values()
        ],
        "components": [
            {
                "name": one.name,
                "status": one.status,
                "n": len(one.ready),
                "desired": one.desired,
                "reason": one.reason,
            }
            for one in parts.components.all()
            if one.endpoint == endpoint.name
        ],
    }


def _chart(meters: Iterable[Meter], now: datetime.datetime) -> list[dict[str, Any]]:
    """For each that has instances, how many from when on."""
    changes: dict[str, list[tuple[float, int]]] = {}
    for meter in meters:
        own = changes.setdefault(meter.what, [])
        own.append((meter.began.timestamp(), 1))
        if meter.ended is not None:
            own.append((meter.ended.timestamp(), -1))
    return [{"name": what, "steps": _steps(own, now.timestamp())} for what, own in sorted(changes.items())]


def _steps(changes: list[tuple[float, int]], now_s: float) -> list[list[float]]:
    n = 0
    steps: list[list[float]] = []
    for at, change in sorted(changes):
        n += change
        if steps and steps[-1][0] == at:
            steps[-1][1] = n
        else:
            steps.append([at, n])
    return [*steps[-MAX_STEPS:], [now_s, n]]


def _activity(activity: Activity) -> dict[str, Any]:
    not_scaled = activity.not_scaled
    return {
        "at": activity.start.timestamp(),
        "what": activity.address.resource_id,
        "description": activity.description,
        "cause": activity.cause,
        "status": activity.status,
        "message": not_scaled["Code"] if not_scaled else activity.message,
    }


def _job(job: Job, now: datetime.datetime) -> dict[str, Any]:
    return {
        "kind": job.kind,
        "name": job.name,
        "status": job.status,
        "on": f"{job.n_instances} x {job.instance_type}" + (" (spot)" if job.is_spot else ""),
        "hours": job.seconds(now) / 3600,
    }


def _event(event: Event) -> dict[str, Any]:
    detail = event.detail
    status = next((str(detail[name]) for name in detail if name.endswith("Status")), "")
    return {
        "at": event.at.timestamp(),
        "what": event.detail_type,
        "status": status,
        "of": event.resources[0] if event.resources else "",
    }


def _job_line(job: Job, now: datetime.datetime, region: str) -> Line:
    price, seconds = _price(job.instance_type, region), job.seconds(now)
    usd = None if price is None else seconds / 3600 * price
    return Line(job.kind, job.name, job.instance_type, seconds, usd, int(job.began is not None and job.ended is None))


def _price(instance_type: str, region: str) -> float | None:
    try:
        return price_usd_per_hour(instance_type, region)
    except PriceUnknown:
        return None
