"""Segments dealt out to buckets: by what their models may take, each once."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from container.operate.batch import buckets
from container.operate.batch.buckets import AT_ONCE, Buckets
from container.operate.batch.models import NO_ROOM
from container.operate.tables.segments import Met, Segments
from handler.errors import ArtifactBroken

SIZES = {"a": 40, "b": 40, "c": 40, "large": 500, "d": 1, "here": 40, "there": 40}
MANY = buckets.FEW_CELLS  # columns of a window, of which one row is many cells


def dealt(n_bytes: int = 100) -> Buckets:
    """Over models of those sizes, of which some are loaded and one cannot be."""
    known = {"here": "loaded", "there": "loaded", "broken": ArtifactBroken("broken", "it is")}
    models: Any = SimpleNamespace(
        model=lambda target: known.get(target, NO_ROOM), guessed_bytes=lambda target: SIZES[target]
    )
    return Buckets(models, n_bytes)


def window(met: Met, *names: str | None) -> Segments:
    """That has words which no row says."""
    met.code(("nobody has me",))
    return Segments(np.array([met.code((name,)) for name in names], np.int32), met.values, "{s}")


def test_a_bucket_takes_segments_whose_models_may_fit_and_a_large_one_has_its_own() -> None:
    made = dealt()
    of_rows = made.sorted(window(Met(), "a", "b", "here", "c", None, "large", "a", "d"), MANY)
    assert [[values[0] for values in bucket.values] for bucket in made.buckets] == [["a", "b"], ["c"], ["large"], ["d"]]
    assert of_rows.buckets.tolist() == [0, 0, AT_ONCE, 1, AT_ONCE, 2, 0, 3]
    assert of_rows.codes.tolist() == [0, 1, 0, 0, 0, 0, 0, 0]


def test_a_segment_stays_where_it_was_put_and_what_no_row_says_is_in_no_bucket() -> None:
    made, met = dealt(10_000), Met()
    made.sorted(window(met, "a"), MANY)
    again = made.sorted(window(met, "b", "a"), MANY)
    assert (again.buckets.tolist(), again.codes.tolist()) == ([0, 0], [1, 0])
    assert list(made.targets.values()) == ["a", "b"]


def test_few_rows_of_a_model_that_is_loaded_wait_for_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buckets, "MOST_ROWS", 3)
    made, met = dealt(), Met()
    few = window(met, "here", "a", "there", "there", "b", "broken", None)
    assert made.sorted(few, MANY // 2 - 1).buckets.tolist() == [0, 1, 0, 0, 1, AT_ONCE, AT_ONCE]
    assert made.sorted(window(met, "here", "here", "here"), MANY).buckets.tolist() == [0, 0, 0]  # decided once
    assert [(bucket.is_loaded, bucket.values) for bucket in made.buckets] == [
        (True, [("here",), ("there",)]),
        (False, [("a",), ("b",)]),
    ]
    enough = dealt().sorted(window(Met(), "here", "a", "there", "there", "b"), MANY // 2)
    assert enough.buckets.tolist() == [0, 1, AT_ONCE, AT_ONCE, 1]


def test_a_bucket_of_loaded_models_is_a_share_for_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buckets, "MOST_ROWS", 2)
    made = dealt()
    assert made.sorted(window(Met(), "here", "here", "there"), 1).buckets.tolist() == [0, 0, 1]
    assert [bucket.is_loaded for bucket in made.buckets] == [True, True]


def test_a_buckets_codes_are_of_16_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buckets, "MAX_SEGMENTS", 2)
    made = dealt(10_000)
    assert made.sorted(window(Met(), "a", "b", "c"), MANY).buckets.tolist() == [0, 0, 1]
