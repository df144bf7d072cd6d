"""The verdict an operator reads first, and the facts below it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from container.metrics.history import History, Point
from container.metrics.source import Health
from container.metrics.status import judge, status
from handler.telemetry.recorder import LiveRecorder, Reload, Totals

WELL = Health(is_alive=True, is_ready=True)
QUIET = Point.between(Totals.nothing(), LiveRecorder().collect())


def busy(**changes: Any) -> list[Point]:
    return [replace(QUIET, duration_s=5.0, requests=100, lookups=100, hits=99, **changes)]


def test_a_process_that_wants_to_be_replaced_says_why() -> None:
    verdict = judge(Health(False, False, ("the loader died",)), busy(), busy(), [])
    assert (verdict.level, verdict.headline) == ("bad", "Not alive")
    assert "the loader died" in verdict.detail


def test_a_process_that_is_not_ready_says_why() -> None:
    verdict = judge(Health(True, False, ("S3 cannot be listed", "draining")), busy(), busy(), [])
    assert (verdict.level, verdict.headline) == ("bad", "Not ready")
    assert "S3 cannot be listed; draining" in verdict.detail


@pytest.mark.parametrize(("failed", "headline"), [(4, "Healthy"), (5, "Failing")])
def test_a_few_failures_wake_nobody_and_a_share_of_them_does(failed: int, headline: str) -> None:
    assert judge(WELL, busy(errors_5xx=failed), busy(), []).headline == headline


@pytest.mark.parametrize(
    ("loads", "reloads", "headline"), [(1_000, 9, "Healthy"), (1_000, 100, "Healthy"), (50, 10, "Thrashing")]
)
def test_thrash_is_a_share_of_loads_that_bring_back_what_was_just_evicted(
    loads: int, reloads: int, headline: str
) -> None:
    events = [Reload("eu/a", 1.0, 20.0)] * reloads
    verdict = judge(WELL, busy(), busy(loads=loads, reloads=reloads), events)
    assert verdict.headline == headline
    if headline == "Thrashing":
        assert verdict.level == "warn"
        assert "10 of 50 loads" in verdict.detail
        assert "(1 model)" in verdict.detail


def test_more_reloads_than_are_remembered_by_name_are_said_to_be_more() -> None:
    verdict = judge(WELL, busy(), busy(loads=9_000, reloads=8_000), [Reload(f"m{i}", 1.0, 2.0) for i in range(5_000)])
    assert "8,000 of 9,000 loads" in verdict.detail
    assert "(at least 5,000 models)" in verdict.detail


def test_failing_outranks_thrashing() -> None:
    assert judge(WELL, busy(errors_5xx=50), busy(loads=10, reloads=10), []).headline == "Failing"


def test_many_refusals_are_the_callers_trouble_but_shown() -> None:
    verdict = judge(WELL, busy(errors_4xx=60), busy(), [])
    assert (verdict.level, verdict.headline) == ("warn", "Refusing")


def test_no_traffic_is_not_trouble() -> None:
    assert judge(WELL, [], [], []) == judge(WELL, [QUIET], [QUIET], [])
    assert judge(WELL, [], [], []).headline == "Idle"


def test_the_facts_are_plain_json_and_name_the_models_that_matter(
    process: Any, recorder: LiveRecorder, clock: Any
) -> None:
    history, before = History(), recorder.collect()
    process.hold("eu/busy", 1_000)
    for _ in range(3):
        clock.now_s += 5
        recorder.loaded("eu/busy", load_us=20_000, download_us=10_000, downloaded_bytes=500)
        recorder.evicted("eu/gone", unload_us=100, age_us=65_000_000, n_bytes=70_000)
        recorder.loaded("eu/gone", load_us=20_000)
        for i in range(20):
            recorder.invocation("eu/busy", i > 0, 500, 200, 200)
        now = recorder.collect()
        history.append(Point.between(before, now))
        before = now
    facts: dict[str, Any] = json.loads(json.dumps(status(process, recorder, history, clock), allow_nan=False))
    assert facts["title"] == "churn/AllTraffic"
    assert facts["now"]["requests_per_s"] == 4.0
    assert facts["now"]["hit_ratio"] == 0.95
    assert (facts["now"]["loads"], facts["now"]["reloads"]) == (6, 3)
    assert facts["now"]["model_p50_ms"] == 0.2
    assert facts["history"]["loaded_models"] == [1, 1, 1]
    assert {len(column) for column in facts["history"].values()} == {3}
    assert facts["busiest"][0]["model"] == "eu/busy"
    assert facts["busiest"][0]["hit_ratio"] == 0.95
    assert facts["thrashing"] == [{"model": "eu/gone", "reloads": 3, "away_s": 0.0}]
    assert facts["evicted"][0] == {"model": "eu/gone", "at_s": clock.now_s, "age_s": 65.0, "n_bytes": 70_000}


def test_old_reloads_are_forgotten(process: Any, recorder: LiveRecorder, clock: Any) -> None:
    recorder.evicted("eu/gone", unload_us=1, age_us=1, n_bytes=1)
    recorder.loaded("eu/gone", load_us=1)
    clock.now_s += 301
    assert status(process, recorder, History(), clock)["thrashing"] == []


def test_the_history_holds_an_hour_and_no_more() -> None:
    history = History()
    for i in range(1_000):
        history.append(replace(QUIET, at_s=5.0 * i))
    assert len(history.points()) == 720
    assert [point.at_s for point in history.last(15)] == [4985.0, 4990.0, 4995.0]
    assert History().last(60) == ()
