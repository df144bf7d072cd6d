"""Instance types that endpoints and jobs may ask for here: processors, memory, and what an hour costs in us-east-1.

Rule: a price is from a source named below or is derived by a rule stated here, never a guess; a type that is not in the
table has no price, and whoever adds up says so.

Processors and memory are EC2's (DescribeInstanceTypes of the type without `ml.`). Prices are those of real-time inference
on demand. USE1-Host:ml.m5.xlarge 0.23 and USE1-Host:ml.m5.2xlarge 0.461 were read from AWS's Price List API by others on
28 September 2026; t2, m5, c5, r5, g4dn and g5 are as several public copies of AWS's price page agree on them. All of m5, c5
and r5 cost 1.2 x their EC2 price, so the newer c6i, m6i, r6i, c7i and m7i, for which no copy was found, are taken as 1.2 x
theirs: inferred. Processing and training cost the same by the hour for these types.
"""

from __future__ import annotations

from dataclasses import dataclass

GIB = 1 << 30
SAGEMAKER_OVER_EC2 = 1.2


@dataclass(frozen=True)
class InstanceType:
    name: str
    vcpus: int
    memory_bytes: int
    usd_per_hour: float  # in us-east-1
    n_accelerators: int = 0


# Family -> its size `large`: USD per hour on EC2, GiB of memory. Two virtual processors; larger sizes are multiples of it.
_LARGE = {
    "m5": (0.096, 8),
    "c5": (0.085, 4),
    "r5": (0.126, 16),
    "m6i": (0.096, 8),
    "c6i": (0.085, 4),
    "r6i": (0.126, 16),
    "m7i": (0.1008, 8),
    "c7i": (0.08925, 4),
}
_SIZES = {
    "5": {"large": 1, "xlarge": 2, "2xlarge": 4, "4xlarge": 8, "12xlarge": 24, "24xlarge": 48},
    "c5": {"large": 1, "xlarge": 2, "2xlarge": 4, "4xlarge": 8, "9xlarge": 18, "18xlarge": 36},
    "i": {
        "large": 1,
        "xlarge": 2,
        "2xlarge": 4,
        "4xlarge": 8,
        "8xlarge": 16,
        "12xlarge": 24,
        "16xlarge": 32,
        "24xlarge": 48,
    },
}
_OTHERS = [
    InstanceType("ml.t2.medium", 2, 4 * GIB, 0.056),
    InstanceType("ml.t2.large", 2, 8 * GIB, 0.111),
    InstanceType("ml.t2.xlarge", 4, 16 * GIB, 0.223),
    InstanceType("ml.t2.2xlarge", 8, 32 * GIB, 0.445),
    InstanceType("ml.g4dn.xlarge", 4, 16 * GIB, 0.736, 1),
    InstanceType("ml.g5.xlarge", 4, 16 * GIB, 1.408, 1),
]


def _family(family: str) -> list[InstanceType]:
    usd, gib = _LARGE[family]
    sizes = _SIZES.get(family) or _SIZES[family[-1]]
    return [
        InstanceType(f"ml.{family}.{size}", 2 * n, gib * n * GIB, round(SAGEMAKER_OVER_EC2 * usd * n, 3))
        for size, n in sizes.items()
    ]


INSTANCE_TYPES: dict[str, InstanceType] = {
    one.name: one for one in [*(one for family in _LARGE for one in _family(family)), *_OTHERS]
}
