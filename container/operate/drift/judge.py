"""From one segment's captured rows and scores to how far they have moved.

Rule: an index of few rows says nothing: with n of them chance alone makes about 10 / n. Segments with fewer than are asked
for are told apart, not ranked.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from container.operate.drift.captured import Seen
from container.operate.release.manifest import Features
from container.operate.train.profiles import N_PARTS, Profile, index_of
from handler.payload.rows import Floats


@dataclass(frozen=True, slots=True)
class Moved:
    """One feature. missing_then: of the rows the model was trained on. low, high: of the values that came; NaN for none."""

    name: str
    index: float
    missing: float
    missing_then: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Judged:
    """One segment.

    features      of all whose profile is known, the one that moved most first
    score_index   of the scores, beside those of the time before; None where there are too few of either
    """

    key: str
    n_calls: int
    n_rows: int
    n_failed: int
    n_unread: int
    features: tuple[Moved, ...]
    score_mean: float | None
    score_index: float | None
    is_enough: bool

    @property
    def index(self) -> float | None:
        """By which segments are ranked; None where there is no profile or there are too few rows."""
        return self.features[0].index if self.features and self.is_enough else None


def judge(
    key: str, seen: Seen, features: Features, profile: Profile | None, places: Mapping[int, int], least_rows: int
) -> Judged:
    """places: by feature, where it is in the profile."""
    rows = seen.features(features.n)
    scores = np.concatenate(seen.scores) if seen.scores else np.zeros(0, np.float32)
    before = np.concatenate(seen.before) if seen.before else np.zeros(0, np.float32)
    moved = []
    if profile is not None and len(rows):
        moved = [_moved(rows[:, at], features, at, profile, place) for at, place in places.items()]
    has_scores = len(scores) >= least_rows and len(before) >= least_rows
    return Judged(
        key,
        seen.n_calls,
        seen.n_rows,
        seen.n_failed,
        seen.n_unread,
        tuple(sorted(moved, key=lambda one: -one.index)),
        float(np.mean(scores)) if len(scores) else None,
        _index_between(scores, before) if has_scores else None,
        len(rows) >= least_rows,
    )


def _moved(values: Floats, features: Features, at: int, profile: Profile, place: int) -> Moved:
    there = values[~np.isnan(values)]
    return Moved(
        features.names[at] if features.names else f"f{at}",
        round(index_of(values, profile, place), 4),
        round(1 - len(there) / len(values), 4),
        round(float(profile.shares[place, N_PARTS]), 4),
        float(there.min()) if len(there) else math.nan,
        float(there.max()) if len(there) else math.nan,
    )


def _index_between(now: Floats, before: Floats) -> float:
    """The same index for scores: tenths of those before."""
    in_order = np.sort(before)
    edges = in_order[np.arange(1, N_PARTS) * len(in_order) // N_PARTS]
    shares = np.full((1, N_PARTS + 1), 0.0, np.float32)
    counts = np.bincount(np.searchsorted(edges, before, side="left"), minlength=N_PARTS)
    shares[0, :N_PARTS] = counts / len(before)
    return round(index_of(now, Profile(edges[None, :], shares), 0), 4)
