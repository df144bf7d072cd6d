"""A release in four numbers, for whoever decides without a person.

    worse     share by which a total is worse, weighted by rows; the greatest where there are several metrics
    worst     share by which the worst single segment is worse
    failed    share of segments that got no model, and none covers
    drift     the greatest index of any segment

Rule: what was not measured holds no condition: where nothing was compared, though models are live that would change, neither
`worse` nor `worst` is told.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from container.operate.release.diff import CHANGED, Diff
from container.operate.release.manifest import COVERED, MORE_IS_BETTER, Manifest
from container.operate.troubles import Misused

NAMES = ("worse", "worst", "failed", "drift")
# Stands for what was not measured where there must be a number.
NOT_MEASURED = 1e9


def figures_of(manifest: Manifest, diff: Diff) -> dict[str, float | None]:
    """By name; None for what was not measured."""
    is_any_unmeasured = any(row.kind == CHANGED and row.worse_by is None for row in diff.rows)
    worse = [
        (total.live - total.candidate if MORE_IS_BETTER.fullmatch(total.metric) else total.candidate - total.live)
        / abs(total.live)
        if total.live
        else float(total.candidate != total.live)
        for total in diff.totals
    ]
    singles = [row.worse_by for row in diff.rows if row.worse_by is not None]
    otherwise = None if is_any_unmeasured else 0.0
    n_failed = sum(not why.startswith(COVERED) for why in manifest.refused.values())
    moved = [one.trained.drift for one in manifest.segments.values() if one.trained and one.trained.drift is not None]
    return {
        "worse": max(worse, default=otherwise),
        "worst": max(singles, default=otherwise),
        "failed": n_failed / max(1, n_failed + len(manifest.segments)),
        "drift": max(moved, default=0.0),
    }


@dataclass(frozen=True, slots=True)
class Conditions:
    """at_most: by name."""

    at_most: tuple[tuple[str, float], ...]

    @classmethod
    def parse(cls, text: str) -> Conditions:
        """`worse<=0.01,failed<=5%`. Raises Misused."""
        found = []
        for part in filter(None, (one.strip() for one in text.split(","))):
            name, is_there, value = part.partition("<=")
            number = value.strip()
            try:
                share = float(number.removesuffix("%")) / (100 if number.endswith("%") else 1)
            except ValueError:
                share = float("nan")
            if not is_there or name.strip() not in NAMES or share != share:
                raise Misused(f"condition {part!r}: write NAME<=NUMBER, of {', '.join(NAMES)}")
            found.append((name.strip(), share))
        if not found:
            raise Misused("which conditions? write such as worse<=0.01")
        return cls(tuple(found))

    def __str__(self) -> str:
        return ",".join(f"{name}<={most:g}" for name, most in self.at_most)

    def broken(self, figures: Mapping[str, float | None]) -> tuple[str, ...]:
        """Those that do not hold, in words."""
        said = []
        for name, most in self.at_most:
            value = figures[name]
            if value is None:
                said.append(f"{name} was not measured")
            elif value > most:
                said.append(f"{name} is {value:.4g}, more than {most:.4g}")
        return tuple(said)
