"""What would change if a release were approved, segment by segment, and which of it a gate keeps back.

Rule: better and worse are said only of two models that were judged on the same rows, and only while the one that the
candidate was compared with is still live. Of all other models it is said that they changed.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

from container.operate.release.choice import Choice
from container.operate.release.live import BY_HAND, State
from container.operate.release.manifest import Judged, Manifest, Trained
from container.operate.release.shelf import Manifests

NEW, BETTER, WORSE, SAME, CHANGED, REFUSED, GONE = "new", "better", "worse", "same", "changed", "refused", "gone"
KINDS = (NEW, BETTER, WORSE, CHANGED, SAME, REFUSED, GONE)
MOVING = frozenset({NEW, BETTER, WORSE, CHANGED})
# Population stability index from which on a segment's world is another one, see operate/train/profiles.py.
FAR = 0.25


@dataclass(frozen=True, slots=True)
class Row:
    """One segment.

    kind         same: the same artifact is live; gone: live, and not in the release, which leaves it as it is
    worse_by     share; None where it cannot be said
    kept_back    why a gate keeps it back; empty when none does
    why          of a refused one, or how its features differ
    drift        the feature whose values have moved most, and how far, where they have moved far
    is_low       it was trained and is no better than a constant
    """

    key: str
    kind: str
    judged: Judged | None = None
    worse_by: float | None = None
    kept_back: str = ""
    why: str = ""
    drift: tuple[str, float] | None = None
    is_low: bool = False


@dataclass(frozen=True, slots=True)
class Gate:
    """max_worse: share by which a single segment may be worse; None is any. features_may_differ: let such pass."""

    max_worse: float | None = None
    features_may_differ: bool = False

    def keeps_back(self, worse_by: float | None, features: str | None) -> str:
        if features is not None and not self.features_may_differ:
            return f"{features}; --features-may-differ lets it pass"
        if self.max_worse is not None and worse_by is not None and worse_by > self.max_worse:
            return f"worse by {worse_by:.1%}, more than {self.max_worse:.1%}"
        return ""


@dataclass(frozen=True, slots=True)
class Total:
    """All judged segments together, each by its rows."""

    metric: str
    n_segments: int
    n_rows: int
    candidate: float
    live: float


@dataclass(frozen=True, slots=True)
class Diff:
    release: str
    rows: tuple[Row, ...]

    @property
    def counts(self) -> dict[str, int]:
        counted = Counter(row.kind for row in self.rows)
        return {kind: counted[kind] for kind in KINDS}

    @property
    def passing(self) -> tuple[Row, ...]:
        """What approving would write."""
        return tuple(row for row in self.rows if row.kind in MOVING and not row.kept_back)

    @property
    def kept_back(self) -> tuple[Row, ...]:
        return tuple(row for row in self.rows if row.kept_back)

    @property
    def worst(self) -> tuple[Row, ...]:
        """The worst first, of those that are worse."""
        worse = [row for row in self.rows if row.kind == WORSE]
        return tuple(sorted(worse, key=lambda row: (-(row.worse_by or 0.0), row.key)))

    @property
    def totals(self) -> tuple[Total, ...]:
        """One for each metric, of what is compared."""
        sums: dict[str, list[float]] = {}
        for row in self.rows:
            judged = row.judged
            if judged is None or judged.live is None or row.worse_by is None:
                continue
            one = sums.setdefault(judged.metric, [0, 0, 0.0, 0.0])
            one[0] += 1
            one[1] += judged.n_rows
            one[2] += judged.n_rows * judged.candidate
            one[3] += judged.n_rows * judged.live
        return tuple(
            Total(metric, int(n), int(n_rows), candidate / n_rows, live / n_rows)
            for metric, (n, n_rows, candidate, live) in sorted(sums.items())
            if n_rows
        )


def compare(manifest: Manifest, state: State, manifests: Manifests, gate: Gate, choice: Choice) -> Diff:
    rows = [
        _with_training(_row(key, manifest, state, manifests, gate), manifest.segments[key].trained)
        for key in manifest.segments
        if choice.has(key)
    ]
    rows += [
        Row(key, REFUSED, why=why)
        for key, why in manifest.refused.items()
        if choice.has(key) and key not in manifest.segments
    ]
    rows += [
        Row(key, GONE)
        for key in state.entries
        if choice.has(key) and key not in manifest.segments and key not in manifest.refused
    ]
    return Diff(manifest.id, tuple(sorted(rows, key=lambda row: row.key)))


def _with_training(row: Row, trained: Trained | None) -> Row:
    if trained is None:
        return row
    drift = trained.drift
    is_far = drift is not None and drift >= FAR
    return replace(
        row,
        drift=(trained.drift_feature, drift) if drift is not None and is_far else None,
        is_low=trained.is_above_floor is False,
    )


def _row(key: str, manifest: Manifest, state: State, manifests: Manifests, gate: Gate) -> Row:
    segment, entry = manifest.segments[key], state.entries.get(key)
    if entry is None:
        return Row(key, NEW, segment.judged, None, gate.keeps_back(None, None))
    if entry.digest == segment.digest:
        return Row(key, SAME, segment.judged)
    judged = segment.judged
    worse_by = judged.worse_by if judged is not None and judged.against == entry.digest else None
    kind = CHANGED if worse_by is None else WORSE if worse_by > 0 else BETTER if worse_by < 0 else CHANGED
    theirs = manifests.get(entry.release) if entry.release != BY_HAND else None
    before = theirs.segments.get(key) if theirs is not None else None
    features = segment.features.differ(before.features) if before is not None else None
    return Row(key, kind, judged, worse_by, gate.keeps_back(worse_by, features), features or "")
