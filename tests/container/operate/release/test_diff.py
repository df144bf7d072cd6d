"""What a person is told before approving."""

from __future__ import annotations

import json
from collections.abc import Iterable

import pytest

from container.operate.release.choice import Choice
from container.operate.release.diff import Diff, Gate, compare
from container.operate.release.live import Entry, State
from container.operate.release.manifest import Features, Judged, Manifest, Segment
from container.operate.release.shelf import Manifests
from container.operate.release.telling import diff_facts, diff_lines
from handler.patterns import Patterns


class _Known(Manifests):
    def __init__(self, known: Iterable[Manifest]) -> None:
        self._read = {one.id: one for one in known}

    def get(self, id: str) -> Manifest | None:
        return self._read.get(id)


def segment(digest: str, judged: Judged | None = None, features: Features | None = None) -> Segment:
    return Segment(digest, 1, "reg:squarederror", features or Features(3), judged=judged)


def manifest(id: str, segments: dict[str, Segment], refused: dict[str, str] | None = None) -> Manifest:
    return Manifest(id, "", "", (), "", "", segments, refused or {})


LIVE = manifest(
    "live",
    {key: segment(f"{key}1", features=Features(3, ("x", "y", "z"))) for key in ("a", "b", "c", "d", "e", "g", "r")},
)
STATE = State("s", entries={key: Entry(one.digest, "live") for key, one in LIVE.segments.items()})


def against(key: str, candidate: float, live: float, metric: str = "rmse", n_rows: int = 100) -> Judged:
    return Judged(metric, n_rows, candidate, live, f"{key}1")


NEXT = manifest(
    "next",
    {
        "a": segment("a2", against("a", 1.1, 1.0)),
        "b": segment("b2", against("b", 0.5, 1.0, n_rows=300)),
        "c": segment("c1", against("c", 1.0, 1.0)),
        "d": segment("d2"),
        "e": segment("e2", Judged("rmse", 100, 9.0, 1.0, "somebody else's")),
        "f": segment("f2", Judged("rmse", 100, 1.0)),
    },
    {"r": "it is empty"},
)


def seen(next: Manifest = NEXT, gate: Gate | None = None, choice: Choice | None = None) -> Diff:
    return compare(next, STATE, _Known([LIVE]), gate or Gate(), choice or Choice())


def test_each_segment_is_of_one_kind() -> None:
    kinds = {row.key: row.kind for row in seen().rows}
    said = {"a": "worse", "b": "better", "c": "same", "d": "changed", "e": "changed", "f": "new"}
    assert kinds == said | {"g": "gone", "r": "refused"}


def test_better_and_worse_are_only_said_against_what_is_live() -> None:
    assert {row.key: row.worse_by for row in seen().rows}["e"] is None


def test_the_total_is_weighted_by_rows() -> None:
    (total,) = seen().totals
    assert (total.metric, total.n_segments, total.n_rows) == ("rmse", 2, 400)
    assert total.candidate == pytest.approx((1.1 * 100 + 0.5 * 300) / 400)
    assert total.live == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("metric", "candidate", "live", "worse_by"),
    [
        ("rmse", 1.1, 1.0, 0.1),
        ("auc", 0.8, 0.9, 1 / 9),
        ("ndcg@5", 0.9, 0.8, -0.125),
        ("mlogloss", 0.5, 1.0, -0.5),
        ("rmse", 0.0, 0.0, 0.0),
        ("rmse", 0.1, 0.0, float("inf")),
    ],
)
def test_worse_is_less_where_more_is_better(metric: str, candidate: float, live: float, worse_by: float) -> None:
    assert Judged(metric, 1, candidate, live).worse_by == pytest.approx(worse_by)


def test_the_gate_keeps_back_what_is_worse_by_more() -> None:
    assert [row.key for row in seen(gate=Gate(max_worse=0.05)).kept_back] == ["a"]
    assert [row.key for row in seen(gate=Gate(max_worse=0.11)).kept_back] == []
    assert [row.key for row in seen(gate=Gate(max_worse=0.05)).passing] == ["b", "d", "e", "f"]


@pytest.mark.parametrize(
    ("features", "said"),
    [
        (Features(4), "4 features, live has 3"),
        (Features(3, ("x", "y", "w")), "features differ: +w, -z"),
        (Features(3, ("y", "x", "z")), "the same features in another order"),
        (Features(3), None),
        (Features(3, ("x", "y", "z")), None),
    ],
)
def test_features_that_differ_are_said_and_kept_back(features: Features, said: str | None) -> None:
    (row,) = [row for row in seen(manifest("n", {"a": segment("a2", features=features)})).rows if row.key == "a"]
    assert row.why == (said or "")
    assert bool(row.kept_back) == (said is not None)


def test_only_what_is_chosen_is_shown() -> None:
    assert [row.key for row in seen(choice=Choice(only=Patterns.parse("a,r"))).rows] == ["a", "r"]


def test_a_person_reads_it_in_a_minute() -> None:
    many = {f"{number:04}": segment(f"{number}2", against(f"{number:04}", 2 + number, 1.0)) for number in range(5000)}
    state = State("s", entries={key: Entry(f"{key}1", "live") for key in many})
    lines = "\n".join(diff_lines(compare(manifest("n", many), state, _Known([]), Gate(max_worse=1.0), Choice())))
    assert lines.count("\n") < 40
    assert "worse 5,000" in lines
    assert "4999  rmse 1 -> 5001  +500000.0%  100 rows" in lines
    assert "and 4,990 more" in lines


def test_the_same_facts_are_json() -> None:
    facts = json.loads(json.dumps(diff_facts(seen())))
    assert facts["counts"] == {"new": 1, "better": 1, "worse": 1, "changed": 2, "same": 1, "refused": 1, "gone": 1}
    assert facts["passing"] == ["a", "b", "d", "e", "f"]
    assert len(facts["segments"]) == 8
