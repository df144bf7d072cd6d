"""What a month of a deployment costs, at least and at most, and what an update costs besides.

Rule: the upper bound is what AWS could bill while the file is kept: every machine that may run, all month. What has no known
price is said to have none, and a plan without a bound is refused.

Serverless Inference is 0.00002 USD for a GB and second in us-east-1 (AWS's price page, SageMaker, Serverless Inference, as
several public copies of 2025 and 2026 have it); other regions are taken in the ratio of their machines: inferred. Left out:
storage, traffic, logs, alarms (0.10 USD each) and requests to S3.
"""

from __future__ import annotations

from dataclasses import dataclass

from container.operate.deploy.file import SERVERLESS, ZERO, Wanted
from container.platform.bill.prices import HOURS_PER_MONTH, PRICES_OF, price_usd_per_hour, serverless_usd_per_gb_s


@dataclass(frozen=True, slots=True)
class Cost:
    """USD. update: what the second fleet of one update costs at most, while both run."""

    least_month: float
    most_month: float
    update: float
    how: str

    @property
    def text(self) -> str:
        return f"{self.least_month:,.2f} to {self.most_month:,.2f} USD a month ({self.how}; prices of {PRICES_OF})"


def cost_of(wanted: Wanted, region: str) -> Cost:
    """Raises PriceUnknown."""
    if wanted.kind == SERVERLESS:
        assert wanted.serverless is not None
        per_s = serverless_usd_per_gb_s(region) * wanted.serverless.memory_gb
        most = per_s * wanted.serverless.concurrency * HOURS_PER_MONTH * 3600
        how = f"{per_s:.6f} USD a second of each call, {wanted.serverless.concurrency} at once at most"
        return Cost(0.0, most, 0.0, how)
    assert wanted.instances is not None
    per_hour = price_usd_per_hour(wanted.instances.type, region)
    least, most = wanted.instances.least * per_hour, wanted.instances.most * per_hour
    awake = 1.0 if wanted.zero is None else 1 - _hours_asleep(wanted.zero.nights) / 24
    update_h = wanted.update.most_s / 3600
    how = f"{wanted.instances.least} to {wanted.instances.most} {wanted.instances.type} of {per_hour:g} USD an hour"
    if awake < 1:
        how += f", none from {wanted.zero.nights.replace('-', ' to ') if wanted.zero else ''}"
    second_fleet = 0.0 if wanted.kind == ZERO else most * update_h
    return Cost(least * HOURS_PER_MONTH, most * HOURS_PER_MONTH * awake, second_fleet, how)


def _hours_asleep(nights: str) -> int:
    if not nights:
        return 0
    off, on = (int(hour) for hour in nights.split("-"))
    return (on - off) % 24
