"""One page and a few pictures of what the other benchmarks have found: `python -m benchmarks.report`.

Reads out/*.json and prices.toml, writes out/report.html and out/*.png. What was not measured is not in it.
"""

from __future__ import annotations

import html
import math
import statistics
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")  # pictures, not windows
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from benchmarks import record
from benchmarks.segments import OUT

PRICES = Path(__file__).with_name("prices.toml")
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # Okabe and Ito's, told apart by everyone
GIB = 2**30
PERCENTILES = {"p50": "p50_us", "p90": "p90_us", "p99": "p99_us", "p99.9": "p999_us"}


def main() -> int:
    plt.rcParams.update({"figure.figsize": (7.5, 3.6), "figure.dpi": 130, "axes.spines.top": False})
    plt.rcParams.update({"axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.25, "font.size": 9})
    sections = [section for draw in SECTIONS if (section := draw()) is not None]
    if not sections:
        print("nothing was measured yet; begin with: python -m benchmarks.throughput", file=sys.stderr)
        return 1
    page = OUT / "report.html"
    page.write_text(_PAGE.format(sections="\n".join(sections)))
    print(f"written  {page}")
    return 0


def _latencies() -> str | None:
    """Percentiles of warm calls of each server, and of cold ones."""
    found = record.load("compare")
    if found is None:
        return None
    figure, (warm, cold) = plt.subplots(1, 2)
    for colour, (name, one) in zip(COLOURS, found["servers"].items(), strict=False):
        values = [statistics.median(run["many"][key] for run in one["runs"]) / 1e3 for key in PERCENTILES.values()]
        warm.plot(list(PERCENTILES), values, "o-", color=colour, label=name)
        shares = (50, 75, 90, 95)
        cold.plot([f"p{share}" for share in shares], np.percentile(one["cold_ms"], shares), "o-", color=colour)
    warm.set(yscale="log", title="warm, 8 connections", ylabel="milliseconds")
    cold.set(yscale="log", title="cold, one at a time")
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    return _section("Latency", "latency", figure, found)


def _throughput() -> str | None:
    found = record.load("compare")
    if found is None:
        return None
    figure, (many, cpu) = plt.subplots(1, 2, sharey=True)
    names = list(found["servers"])
    runs = [one["runs"] for one in found["servers"].values()]
    per_s = [statistics.median(run["many"]["requests_per_s"] for run in each) for each in runs]
    cpu_us = [statistics.median(run["cpu_us"] for run in each) for each in runs]
    _bars(many, names, per_s, "{:,.0f}/s")
    many.set(title="requests a second, 8 connections")
    _bars(cpu, names, cpu_us, "{:,.0f} us")
    cpu.set(title="CPU of the server for each request")
    return _section("Throughput", "throughput", figure, found)


def _memory() -> str | None:
    found = record.load("compare")
    if found is None:
        return None
    figure, (tree, model) = plt.subplots(1, 2, sharey=True)
    names = [f"{name}, {one['models']} models" for name, one in found["servers"].items()]
    servers = found["servers"].values()
    _bars(tree, names, [one["busy_mb"] for one in servers], "{:,.0f} MB")
    tree.set(title="PSS of the whole process tree")
    _bars(model, names, [one["model_mb"] for one in servers], "{:,.2f} MB")
    model.set(title="of that, for each model", xscale="log")
    return _section("Memory", "memory", figure, found)


def _members() -> str | None:
    """Where the endpoint's own memory is."""
    found = record.load("memory")
    if found is None:
        return None
    figure, axes = plt.subplots()
    states = {"at start": "start", f"{found['segments']} models": "loaded", "emptied": "emptied"}
    left = np.zeros(len(states))
    for colour, member in zip(COLOURS, ("runtime", "JVM", "examiner", "supervisor", "stubs"), strict=False):
        values = np.array([found[state].get(member, 0) / 1e6 for state in states.values()])
        axes.barh(list(states), values, left=left, color=colour, label=member)
        left += values
    axes.invert_yaxis()
    axes.set(xlabel="MB (PSS)")
    axes.legend(frameon=False, ncols=5, loc="upper center", bbox_to_anchor=(0.5, -0.15))
    return _section("Memory by process", "members", figure, found)


def _residence() -> str | None:
    """Hit ratio and loaded models over time, with a working set of three times the memory."""
    found = record.load("thrash")
    if found is None:
        return None
    timeline = found["storm"]["timeline"]
    at_s = [point["at_s"] for point in timeline]
    figure, (ratio, loaded) = plt.subplots(2, 1, sharex=True)
    ratio.plot(at_s, _window_ratio(timeline), color=COLOURS[0])
    ratio.set(ylim=(0, 1), ylabel="hit ratio")
    loaded.plot(at_s, [point["loaded_models"] for point in timeline], color=COLOURS[1])
    loaded.set(ylim=(0, None), ylabel="models loaded", xlabel="seconds")
    what = f"{found['segments']} segments, a budget of {found['budget_bytes'] / 1e6:.1f} MB, {found['storm']['calls']} calls"
    return _section(f"Working set over memory: {what}", "residence", figure, found)


def _window_ratio(timeline: list[dict[str, float]], looks: int = 20) -> list[float]:
    """Hits of all calls in the last so many looks."""
    ratios = []
    for at, point in enumerate(timeline):
        earlier = timeline[max(0, at - looks)]
        hits, misses = point["hits"] - earlier["hits"], point["misses"] - earlier["misses"]
        ratios.append(hits / (hits + misses) if hits + misses else math.nan)
    return ratios


def _cost() -> str | None:
    """A month of N models: on endpoints like ours, and on one endpoint for each."""
    found = record.load("memory")
    if found is None:
        return None
    prices = tomllib.loads(PRICES.read_text())
    numbers = prices["models"]
    fixed = sum(found["start"].values())
    each = (sum(found["loaded"].values()) - fixed) / found["segments"]
    figure, axes = plt.subplots()
    rows = []
    for colour, instance in zip(COLOURS, prices["instance"], strict=False):
        room = instance["memory_gib"] * GIB * (1 - prices["reserve"]) - fixed
        counts = [max(prices["instances_at_least"], math.ceil(number * each / room)) for number in numbers]
        costs = [count * instance["per_hour"] * prices["hours_per_month"] for count in counts]
        axes.plot(numbers, costs, "o-", color=colour, label=f"all on one endpoint, {instance['name']}")
        rows.append((instance["name"], costs))
    single = prices["single"]
    costs = [number * single["per_hour"] * prices["hours_per_month"] for number in numbers]
    axes.plot(numbers, costs, "o--", color="#666666", label=f"an endpoint for each, {single['name']}")
    rows.append((f"one each, {single['name']}", costs))
    axes.set(xscale="log", yscale="log", xlabel="models, all in memory", ylabel=f"{prices['currency']} a month")
    axes.legend(frameon=False)
    head = "".join(f"<th>{number:,}</th>" for number in numbers)
    body = "".join(
        f"<tr><th>{html.escape(name)}</th>" + "".join(f"<td>{cost:,.0f}</td>" for cost in costs) + "</tr>"
        for name, costs in rows
    )
    table = f"<table><tr><th>{html.escape(prices['currency'])} a month</th>{head}</tr>{body}</table>"
    note = f"<p>{each / 1e3:.0f} KB a model and {fixed / 1e6:.0f} MB besides, as measured; prices from prices.toml.</p>"
    return _section("Cost", "cost", figure, found, note + table)


SECTIONS: tuple[Callable[[], str | None], ...] = (
    _latencies,
    _throughput,
    _memory,
    _members,
    _residence,
    _cost,
)


def _bars(axes: Axes, names: list[str], values: list[float], form: str) -> None:
    bars = axes.barh(names, values, color=[COLOURS[number % len(COLOURS)] for number in range(len(names))])
    axes.bar_label(bars, [form.format(value) for value in values], padding=3, fontsize=8)
    axes.margins(x=0.3)
    if not axes.yaxis_inverted():  # axes that are shared turn over together
        axes.invert_yaxis()


def _section(title: str, name: str, figure: Any, found: dict[str, Any], more: str = "") -> str:
    """Save the picture; say where the figures come from."""
    figure.set_layout_engine("constrained")
    figure.savefig(OUT / f"{name}.png")
    plt.close(figure)
    machine = found["machine"]
    origin = (
        f"{machine['command']}; commit {machine['commit']}, {machine['date']}, {machine['cpu']}, {machine['cores']} cores, "
        f"load average {machine['load_before'][0]} before and {machine['load_after'][0]} after"
    )
    return (
        f'<section><h2>{html.escape(title)}</h2><img src="{name}.png" alt="{html.escape(title)}">{more}'
        f"<p class=origin>{html.escape(origin)}</p></section>"
    )


_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Benchmarks</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #222 }}
img {{ max-width: 100% }} .origin {{ color: #666; font-size: .8rem }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem }}
th, td {{ padding: .2rem .7rem; text-align: right; border-bottom: 1px solid #ddd }} th:first-child {{ text-align: left }}
</style>
<h1>Benchmarks</h1>
{sections}
</html>
"""

if __name__ == "__main__":
    sys.exit(main())
