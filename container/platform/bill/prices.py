"""What an instance costs by the hour, where.

Rule: what has no known price is an error, never 0.
"""

from __future__ import annotations

import datetime

from container.platform.instance_types import INSTANCE_TYPES

PRICES_OF = datetime.date(2026, 9, 28)
HOURS_PER_MONTH = 730  # as AWS's own calculator takes a month
# Serverless Inference in us-east-1, as several public copies of AWS's price page of 2025 and 2026 have it.
SERVERLESS_USD_PER_GB_S = 0.00002
_REFERENCE = "ml.m5.large"

# Other regions by what m5.large costs on EC2 there, from AWS's EC2 price page. SageMaker's own prices follow it: ml.m5.large
# is 0.115 in Virginia, 0.128 in Ireland, 0.138 in Frankfurt. For other types that is inferred, good to a few per cent.
_M5_LARGE_ON_EC2_USD = {
    "us-east-1": 0.096,
    "us-east-2": 0.096,
    "us-west-1": 0.112,
    "us-west-2": 0.096,
    "ca-central-1": 0.107,
    "sa-east-1": 0.153,
    "eu-west-1": 0.107,
    "eu-west-2": 0.111,
    "eu-west-3": 0.112,
    "eu-central-1": 0.115,
    "eu-north-1": 0.102,
    "ap-south-1": 0.101,
    "ap-southeast-1": 0.120,
    "ap-southeast-2": 0.120,
    "ap-northeast-1": 0.124,
    "ap-northeast-2": 0.118,
}
REGIONS = frozenset(_M5_LARGE_ON_EC2_USD)


class PriceUnknown(Exception):
    """The table of 28 September 2026 has no price for it."""

    def __init__(self, what: str) -> None:
        super().__init__(f"no price known for {what} (prices of {PRICES_OF})")
        self.what = what


def price_usd_per_hour(instance_type: str, region: str = "us-east-1") -> float:
    """One instance, on demand. Raises PriceUnknown."""
    if instance_type not in INSTANCE_TYPES:
        raise PriceUnknown(instance_type)
    if region not in _M5_LARGE_ON_EC2_USD:
        raise PriceUnknown(f"region {region}")
    ratio = _M5_LARGE_ON_EC2_USD[region] / _M5_LARGE_ON_EC2_USD["us-east-1"]
    return round(INSTANCE_TYPES[instance_type].usd_per_hour * ratio, 4)


def serverless_usd_per_gb_s(region: str = "us-east-1") -> float:
    """In the ratio of the region's machines: inferred. Raises PriceUnknown."""
    return SERVERLESS_USD_PER_GB_S * price_usd_per_hour(_REFERENCE, region) / price_usd_per_hour(_REFERENCE)
