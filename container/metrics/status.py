"""The status page's facts: one verdict, the figures of now, the last hour, and which models matter.

Rule: the judgement is made here, on the server, where it is tested; the page only draws it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from container.metrics.history import History, Point
from container.metrics.source import Health, Source
from handler.telemetry.recorder import QUEUE_DEPTH, RELOAD_WINDOW_S, REPORTS_DROPPED, Eviction, LiveRecorder, Reload
from handler.telemetry.traffic import OTHER, ModelTraffic

Level = Literal["good", "warn", "bad"]

NOW_S = 60.0  # what the page calls "now"
FAILING_SHARE, FAILING_MIN = 0.01, 5  # of requests in the last minute; a single failure wakes nobody
REFUSING_SHARE, REFUSING_MIN = 0.10, 10
THRASHING_SHARE, THRASHING_MIN = 0.20, 10  # of loads in the last five minutes that brought back a model just evicted
ROWS, WORST_ROWS = 12, 6


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an operator reads first. `headline` is one or two words, `detail` one sentence."""

    level: Level
    headline: str
    detail: str


def status(source: Source, recorder: LiveRecorder, history: History, clock_s: Callable[[], float]) -> dict[str, object]:
    """Everything the page shows, as plain JSON values. Times are seconds since the epoch, durations milliseconds."""
    now_s = clock_s()
    totals = recorder.collect()
    snapshot = source.snapshot()
    points = history.points()
    minute, minutes = history.last(NOW_S), history.last(RELOAD_WINDOW_S)
    reloads = [reload for reload in recorder.recent_reloads() if reload.at_s > now_s - RELOAD_WINDOW_S]
    verdict = judge(source.health(), minute, minutes, reloads)
    return {
        "at_s": now_s,
        "title": snapshot.title,
        "started_s": snapshot.started_s,
        "verdict": {"level": verdict.level, "headline": verdict.headline, "detail": verdict.detail},
        "now": {
            "requests_per_s": _per_s(minute, lambda point: point.requests),
            "hit_ratio": _share(_sum(minute, lambda point: point.hits), _sum(minute, lambda point: point.lookups)),
            "errors_4xx": _sum(minute, lambda point: point.errors_4xx),
            "errors_5xx": _sum(minute, lambda point: point.errors_5xx),
            "loads": _sum(minutes, lambda point: point.loads),
            "evictions": _sum(minutes, lambda point: point.evictions),
            "reloads": _sum(minutes, lambda point: point.reloads),
            "model_p50_ms": _latest(minute, lambda point: point.model_p50_us),
            "model_p99_ms": _latest(minute, lambda point: point.model_p99_us),
            "loaded_models": snapshot.loaded_models,
            "loaded_bytes": snapshot.loaded_bytes,
            "budget_bytes": snapshot.budget_bytes,
            "process_bytes": snapshot.process_bytes,
            "queue_depth": totals.gauges.get(QUEUE_DEPTH.name),
            "reports_dropped": totals.total(REPORTS_DROPPED),
        },
        "history": _columns(points),
        "busiest": [_busy_row(row) for row in totals.traffic if row.model != OTHER][:ROWS],
        "others": _busy_row(totals.traffic[-1]) if totals.traffic else None,
        "thrashing": _thrashing_rows(reloads),
        "thrashing_models": len({reload.model for reload in reloads}),
        "evicted": [_eviction_row(eviction) for eviction in recorder.recent_evictions()[:ROWS]],
    }


def judge(health: Health, minute: Sequence[Point], minutes: Sequence[Point], reloads: Sequence[Reload]) -> Verdict:
    """The worst thing that is true, in the order an operator would want to hear it."""
    why = "; ".join(health.reasons) or "no reason given"
    if not health.is_alive:
        return Verdict("bad", "Not alive", f"The process asks to be replaced: {why}.")
    if not health.is_ready:
        return Verdict("bad", "Not ready", f"Requests should go elsewhere: {why}.")
    requests = _sum(minute, lambda point: point.requests)
    failed = _sum(minute, lambda point: point.errors_5xx)
    if failed >= FAILING_MIN and failed > FAILING_SHARE * requests:
        return Verdict("bad", "Failing", f"{failed:,} of {requests:,} requests failed here in the last minute (5xx).")
    loads = _sum(minutes, lambda point: point.loads)
    returned = _sum(minutes, lambda point: point.reloads)
    if returned >= THRASHING_MIN and returned >= THRASHING_SHARE * loads:
        n_models = len({reload.model for reload in reloads})
        models = f"{n_models:,} {'model' if n_models == 1 else 'models'}"
        if len(reloads) < returned:  # the recorder counts all reloads, and remembers a bounded number by name
            models = f"at least {models}"
        return Verdict(
            "warn",
            "Thrashing",
            f"{returned:,} of {loads:,} loads in five minutes brought back a model evicted less than five minutes "
            f"before ({models}): the memory budget is too small for the models in use.",
        )
    refused = _sum(minute, lambda point: point.errors_4xx)
    if refused >= REFUSING_MIN and refused > REFUSING_SHARE * requests:
        return Verdict(
            "warn", "Refusing", f"{refused:,} of {requests:,} requests in the last minute were refused (4xx)."
        )
    if requests == 0:
        return Verdict("good", "Idle", "Ready; no requests in the last minute.")
    hits, lookups = _sum(minute, lambda point: point.hits), _sum(minute, lambda point: point.lookups)
    ratio = _share(hits, lookups)
    found = "" if ratio is None else f", {ratio * 100:.3g}% of them from memory"
    return Verdict("good", "Healthy", f"{requests:,} requests in the last minute{found}.")


def _columns(points: Sequence[Point]) -> dict[str, list[float | None]]:
    """The history by column, oldest first: what a chart draws, and a third of the bytes of rows."""
    return {
        "at_s": [round(point.at_s, 1) for point in points],
        "loaded_models": [point.loaded_models for point in points],
        "loaded_bytes": [point.loaded_bytes for point in points],
        "hit_ratio": [_share(point.hits, point.lookups) for point in points],
        "requests_per_s": [round(point.requests / point.duration_s, 2) for point in points],
        "model_p50_ms": [_ms(point.model_p50_us) for point in points],
        "model_p99_ms": [_ms(point.model_p99_us) for point in points],
        "load_p50_ms": [_ms(point.load_p50_us) for point in points],
        "load_p99_ms": [_ms(point.load_p99_us) for point in points],
        "evictions": [point.evictions for point in points],
        "reloads": [point.reloads for point in points],
    }


def _busy_row(row: ModelTraffic) -> dict[str, object]:
    return {
        "model": row.model,
        "requests_per_s": round(row.requests_per_s, 2),
        "hit_ratio": _share(row.hits, row.requests),
        "mean_ms": None if row.requests == 0 else _ms(row.total_us / row.requests),
        "errors": row.errors,
    }


def _thrashing_rows(reloads: Sequence[Reload]) -> list[dict[str, object]]:
    times = Counter(reload.model for reload in reloads)
    last_away_s = {reload.model: reload.away_s for reload in reversed(reloads)}
    return [
        {"model": model, "reloads": count, "away_s": round(last_away_s[model], 1)}
        for model, count in times.most_common(WORST_ROWS)
    ]


def _eviction_row(eviction: Eviction) -> dict[str, object]:
    return {
        "model": eviction.model,
        "at_s": eviction.at_s,
        "age_s": round(eviction.age_us / 1e6, 1),
        "n_bytes": eviction.n_bytes,
    }


def _sum(points: Sequence[Point], what: Callable[[Point], int]) -> int:
    return sum(what(point) for point in points)


def _per_s(points: Sequence[Point], what: Callable[[Point], int]) -> float:
    seconds = sum(point.duration_s for point in points)
    return round(_sum(points, what) / seconds, 2) if seconds else 0.0


def _latest(points: Sequence[Point], what: Callable[[Point], float | None]) -> float | None:
    known = [value for point in points if (value := what(point)) is not None]
    return _ms(known[-1]) if known else None


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None


def _ms(us: float | None) -> float | None:
    return None if us is None else round(us / 1000, 3)
