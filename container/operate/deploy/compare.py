"""What a month costs before and after: an endpoint for each model, all on one, at zero, serverless, or a job every night.

Rule: arithmetic only. Every figure that goes in is an argument with its meaning said, and prices are the table's.

Held against AWS's own sum (blog "Save on inference costs by using Amazon SageMaker multi-model endpoints", 2019): 1,000
models of 10 MB cost 171,360 USD a month on an endpoint each and 1,017 USD on one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from container.platform.bill.prices import HOURS_PER_MONTH, SERVERLESS_USD_PER_GB_S

GIB = 1 << 30
DAYS_PER_MONTH = HOURS_PER_MONTH / 24
IDLE_TAIL_H = (
    25 / 60
)  # 15 minutes until the last copy goes and 10 until its machine does: AWS's blog on scaling to zero


@dataclass(frozen=True, slots=True)
class Load:
    """n_models       all of them
    model_bytes    of one, in memory
    share_busy     of the models that are in memory at one time; the rest is fetched when it is called
    calls_a_day    of all models
    ms_a_call      that one call keeps a serverless worker
    awake_h        hours of a day in which somebody calls
    n_wakes        times a day that somebody calls after nobody did for half an hour
    job_h          hours of one machine that a night's batch takes
    """

    n_models: int
    model_bytes: int = 1 << 20
    share_busy: float = 1.0
    calls_a_day: float = 10_000
    ms_a_call: float = 20.0
    awake_h: float = 8.0
    n_wakes: float = 1.0
    job_h: float = 0.5


@dataclass(frozen=True, slots=True)
class Machines:
    """USD an hour. each: of a machine that holds one model; shared: of one that holds many, with so much memory for models;
    n_least: machines that an endpoint has at least."""

    each_usd: float
    shared_usd: float
    shared_bytes: int
    n_least: int = 2
    hours_a_month: float = HOURS_PER_MONTH


@dataclass(frozen=True, slots=True)
class Line:
    """usd: a month; how: the sum in words."""

    name: str
    usd: float
    how: str


def compared(load: Load, machines: Machines, serverless_gb: int = 3) -> tuple[Line, ...]:
    resident = load.n_models * load.model_bytes * load.share_busy
    n_shared = max(1, math.ceil(resident / machines.shared_bytes))
    n_up = max(machines.n_least, n_shared)
    hours = machines.hours_a_month
    n_each = load.n_models * machines.n_least
    awake_h = min(24.0, load.awake_h + load.n_wakes * IDLE_TAIL_H) * DAYS_PER_MONTH
    gb_s = load.calls_a_day * DAYS_PER_MONTH * load.ms_a_call / 1000 * serverless_gb
    return (
        Line(
            "an endpoint each", n_each * machines.each_usd * hours,
            f"{n_each:,} machines of {machines.each_usd:g} USD an hour",
        ),
        Line(
            "multi-model", n_up * machines.shared_usd * hours,
            f"{n_up:,} machines of {machines.shared_usd:g} USD an hour",
        ),
        Line(
            "zero", n_shared * machines.shared_usd * awake_h,
            f"{n_shared:,} of those for {awake_h:,.0f} hours a month",
        ),
        Line(
            "serverless", gb_s * SERVERLESS_USD_PER_GB_S,
            f"{gb_s:,.0f} GB and seconds; first calls wait for cold starts",
        ),
        Line(
            "nightly batch", machines.shared_usd * load.job_h * DAYS_PER_MONTH,
            f"one machine for {load.job_h:g} hours a night; answers are a day old",
        ),
    )  # fmt: skip


WIDTH, ROW, LEFT, BAR = 760, 34, 150, 430


def picture(lines: tuple[Line, ...], title: str) -> str:
    """An SVG of bars, each ten times as long as a tenth of its cost would be on a scale of powers of ten."""
    low = math.floor(math.log10(max(0.01, min(line.usd for line in lines))))
    high = math.ceil(math.log10(max(1.0, *(line.usd for line in lines))))
    scale = BAR / max(1, high - low)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{ROW * (len(lines) + 2)}" '
        'font-family="sans-serif" font-size="14">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="12" y="24" font-weight="bold">{_escaped(title)}</text>',
    ]
    for n, line in enumerate(lines):
        y = ROW * (n + 1) + 12
        length = max(2.0, (math.log10(max(0.01, line.usd)) - low) * scale)
        parts += [
            f'<text x="12" y="{y + 16}">{_escaped(line.name)}</text>',
            f'<rect x="{LEFT}" y="{y}" width="{length:.1f}" height="22" fill="{"#888" if n == 0 else "#2a78b8"}"/>',
            f'<text x="{LEFT + length + 8:.1f}" y="{y + 16}">{line.usd:,.0f} USD</text>',
        ]
    foot = ROW * (len(lines) + 1) + 24
    parts.append(f'<text x="12" y="{foot}" font-size="11" fill="#555">USD a month, powers of ten</text></svg>')
    return "\n".join(parts) + "\n"


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
