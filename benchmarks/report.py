"""One page and a few pictures of what the other benchmarks have found.

    python -m benchmarks.report [--pictures]

Reads out/*.json and prices.toml, writes out/report.html and out/*.png; with --pictures the README's too, below pictures/.
What was not measured is not in it. Each picture says when, where and by which command its figures were taken.
"""

from __future__ import annotations

import argparse
import html
import itertools
import math
import shutil
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")  # pictures, not windows
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from benchmarks import cost
from benchmarks.rig import record
from benchmarks.rig.segments import OUT

PICTURES = Path(__file__).with_name("pictures")
# Okabe and Ito's, told apart by everyone.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#999999", "#000000")
PERCENTILES = {"p50": "p50_us", "p90": "p90_us", "p99": "p99_us", "p99.9": "p999_us"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--pictures", action="store_true", help="put those that the README shows into pictures/")
    chosen = parser.parse_args()
    plt.rcParams.update({"figure.figsize": (7.5, 3.6), "figure.dpi": 130, "axes.spines.top": False})
    plt.rcParams.update({"axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.25, "font.size": 9})
    try:
        sections = [section for draw in SECTIONS if (section := draw()) is not None]
    except cost.PricesInvalid as error:
        print(error, file=sys.stderr)
        return 2
    if not sections:
        print("nothing was measured yet; begin with: python -m benchmarks.compare", file=sys.stderr)
        return 1
    page = OUT / "report.html"
    page.write_text(_PAGE.format(sections="\n".join(sections)))
    print(f"written  {page}")
    if chosen.pictures:
        for name in IN_README:
            if (OUT / f"{name}.png").exists():
                shutil.copy(OUT / f"{name}.png", PICTURES)
                print(f"written  {PICTURES / name}.png")
    return 0


def _verdicts() -> str | None:
    """What was promised, and whether it is so."""
    tables = []
    for name in ("compare", "telemetry", "pictures"):
        found = record.load(name)
        if found is None:
            continue
        rows = "".join(
            f"<tr><th>{html.escape(one['what'])}</th><td>{html.escape(one['form'].format(one['figure']))}</td>"
            f"<td>{one['is_']} {html.escape(one['form'].format(one['limit']))}</td>"
            f"<td>{'met' if one['is_met'] else '<b>missed</b>'}</td></tr>"
            for one in found["verdicts"]
        )
        tables.append(f"<h3>{name}</h3><table>{rows}</table><p class=origin>{html.escape(_origin(found))}</p>")
    return f"<section><h2>Promised and measured</h2>{''.join(tables)}</section>" if tables else None


def _latencies() -> str | None:
    """Percentiles of warm calls of each server, and of cold ones."""
    found = record.load("compare")
    if found is None:
        return None
    figure, (warm, cold) = plt.subplots(1, 2)
    for colour, (name, one) in zip(itertools.cycle(COLOURS), found["servers"].items(), strict=False):
        values = [statistics.median(run["many"][key] for run in one["runs"]) / 1e3 for key in PERCENTILES.values()]
        warm.plot(list(PERCENTILES), values, "o-", color=colour, label=name)
        if "cold_ms" not in one:  # the echo loads nothing
            continue
        shares = (50, 75, 90, 95)
        cold.plot([f"p{share}" for share in shares], np.percentile(one["cold_ms"], shares), "o-", color=colour)
    warm.set(yscale="log", title="warm, 8 connections", ylabel="milliseconds")
    cold.set(yscale="log", title="cold, one at a time, from a directory")
    _plain(warm, cold)
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
    cpu_us = [statistics.median(run["many"]["cpu_us"] for run in each) for each in runs]
    _bars(many, names, per_s, "{:,.0f}/s")
    many.set(title="requests a second, 8 connections")
    _bars(cpu, names, cpu_us, "{:,.0f} us")
    cpu.set(title="CPU of the server for each request")
    return _section("Throughput", "throughput", figure, found)


def _hundreds() -> str | None:
    found = record.load("compare")
    if found is None:
        return None
    scoring = {name: one["runs"] for name, one in found["servers"].items() if "hundred" in one["runs"][0]}
    figure, axes = plt.subplots(figsize=(7.5, 2.6))
    rows = [100 * statistics.median(run["hundred"]["requests_per_s"] for run in runs) for runs in scoring.values()]
    _bars(axes, list(scoring), rows, "{:,.0f}/s", of=list(found["servers"]))
    axes.set(title="rows a second in bodies of 100, 8 connections")
    return _section("Bodies of a hundred rows", "hundred", figure, found)


def _memory() -> str | None:
    found = record.load("compare")
    if found is None:
        return None
    figure, (tree, model) = plt.subplots(1, 2, sharey=True)
    servers = {name: one for name, one in found["servers"].items() if "models" in one}
    names, of = [f"{name}\n{one['models']:,} models" for name, one in servers.items()], list(found["servers"])
    colours_of = [f"{name}\n{found['servers'][name].get('models', 0):,} models" for name in of]
    _bars(tree, names, [one["busy_mb"] for one in servers.values()], "{:,.0f} MB", of=colours_of)
    tree.set(title="whole process tree, PSS")
    # Below a page's worth for each model the difference of two measurements may be zero or less, which no logarithm takes.
    _bars(model, names, [max(one["model_mb"], 1e-3) for one in servers.values()], "{:,.2f} MB", of=colours_of)
    model.set(title="of that, for each model", xscale="log")
    _plain(model)
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


def _climb() -> str | None:
    """Models loaded and hit ratio while the demo's districts are called for the first time: AWS's two curves."""
    found = record.load("pictures")
    if found is None:
        return None
    timeline = found["timeline"]
    at_s = np.array(timeline["at_s"]) - timeline["at_s"][0]
    figure, (loaded, ratio) = plt.subplots(2, 1, sharex=True)
    loaded.plot(at_s, timeline["loaded_models"], color=COLOURS[1])
    loaded.set(ylim=(0, None), ylabel="models loaded")
    ratio.plot(at_s, [math.nan if share is None else share for share in timeline["hit_ratio"]], color=COLOURS[0])
    ratio.set(ylim=(0, 1.02), ylabel="hit ratio of 5 s", xlabel="seconds")
    calls = found["counts"]["client"]["calls"]
    return _section(f"From empty to all in memory: {found['models']} models, {calls:,} calls", "climb", figure, found)


def _exporters() -> str | None:
    """What a report costs in bytes, and the exporters in throughput."""
    found = record.load("telemetry")
    if found is None:
        return None
    figure, (size, cost_of) = plt.subplots(1, 2)
    per_s = [phase["per_s"] for phase in found["phases"]]
    size.plot(per_s, [phase["bytes_each"] / 1e3 for phase in found["phases"]], "o-", color=COLOURS[0])
    size.set(xscale="log", ylim=(0, None), xlabel="calls a second", title="KB of EMF in a report")
    _plain(size)
    for colour, name, of in (("#d55e00", "open / shut", "throughput"), ("#999999", "shut again / shut", "noise")):
        middle = found["cost"][of]
        cost_of.plot([name, name], [middle["low"], middle["high"]], color=colour, linewidth=6, alpha=0.4)
        cost_of.plot([name], [middle["median"]], "o", color=colour)
    cost_of.set(title="throughput: median and middle half of rounds")
    cost_of.margins(x=0.5, y=0.3)
    return _section("Metrics: what a report weighs, what the exporters cost", "exporters", figure, found)


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
    prices = cost.read()
    fixed = sum(found["start"].values())
    footprint = cost.Footprint(fixed, (sum(found["loaded"].values()) - fixed) / found["segments"])
    figure, axes = plt.subplots()
    rows = []
    for colour, instance in zip(COLOURS, prices.shared, strict=False):
        costs = [cost.shared_month(prices, instance, number, footprint) for number in prices.models]
        label = f"all on one endpoint, {prices.instances_at_least} or more {instance.name}"
        axes.plot(prices.models, costs, "o-", color=colour, label=label)
        rows.append((label, costs))
    costs = [cost.single_month(prices, number) for number in prices.models]
    label = f"an endpoint for each, {prices.single_instances} {prices.single.name}"
    axes.plot(prices.models, costs, "o--", color="#666666", label=label)
    rows.append((label, costs))
    axes.set(xscale="log", yscale="log", xlabel="models, all in memory", ylabel=f"{prices.currency} a month")
    _plain(axes)
    axes.xaxis.set_major_formatter(WHOLE)
    axes.legend(frameon=False)
    head = "".join(f"<th>{number:,}</th>" for number in prices.models)
    body = "".join(
        f"<tr><th>{html.escape(name)}</th>" + "".join(f"<td>{one:,.0f}</td>" for one in costs) + "</tr>"
        for name, costs in rows
    )
    table = f"<table><tr><th>{html.escape(prices.currency)} a month</th>{head}</tr>{body}</table>"
    note = (
        f"{footprint.model_bytes / 1e3:.0f} KB a model and {fixed / 1e6:.0f} MB besides, as measured; "
        f"{prices.source}, as of {prices.as_of}, from prices.toml, which is yours to edit."
    )
    return _section("Cost", "cost", figure, found, f"<p>{html.escape(note)}</p>{table}")


SECTIONS: tuple[Callable[[], str | None], ...] = (
    _climb,
    _throughput,
    _latencies,
    _hundreds,
    _memory,
    _members,
    _cost,
    _residence,
    _exporters,
    _verdicts,
)
IN_README = ("throughput", "latency", "memory", "cost")


WHOLE = StrMethodFormatter("{x:,.0f}")


def _plain(*logarithmic: Axes) -> None:
    """1, 10, 100 beside a logarithmic axis, not powers of ten; 2 and 5 too where it spans little."""
    for axes in logarithmic:
        for axis in (axes.xaxis, axes.yaxis):
            if axis.get_scale() == "log":
                low, high = axis.get_view_interval()
                if high < 100 * low:
                    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
                axis.set_major_formatter(StrMethodFormatter("{x:,g}"))
                axis.set_minor_formatter(NullFormatter())


def _bars(axes: Axes, names: list[str], values: list[float], form: str, of: list[str] | None = None) -> None:
    """`of` are the names of which these are some, so that each has the same colour in all pictures."""
    colours = dict(zip(of or names, itertools.cycle(COLOURS), strict=False))
    bars = axes.barh(names, values, color=[colours[name] for name in names])
    axes.bar_label(bars, [form.format(value) for value in values], padding=3, fontsize=8)
    axes.margins(x=0.3)
    if not axes.yaxis_inverted():  # axes that are shared turn over together
        axes.invert_yaxis()


def _section(title: str, name: str, figure: Any, found: dict[str, Any], more: str = "") -> str:
    """Save the picture, with where its figures come from in it and below it."""
    origin = _origin(found)
    figure.set_layout_engine("constrained", rect=(0, 0.07, 1, 0.93))
    figure.text(0.99, 0.015, origin.replace("; ", "\n"), ha="right", fontsize=5.5, color="#777777")
    figure.savefig(OUT / f"{name}.png")
    plt.close(figure)
    return (
        f'<section><h2>{html.escape(title)}</h2><img src="{name}.png" alt="{html.escape(title)}">{more}'
        f"<p class=origin>{html.escape(origin)}</p></section>"
    )


def _origin(found: dict[str, Any]) -> str:
    machine = found["machine"]
    return (
        f"{machine['command']}; commit {machine['commit']}, {machine['date']}, {machine['cpu']}, {machine['cores']} cores, "
        f"load average {machine['load_before'][0]} before and {machine['load_after'][0]} after"
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
