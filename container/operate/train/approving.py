"""`--approve-if`: a release that goes live without a person, if what was measured lets it."""

from __future__ import annotations

from dataclasses import dataclass

from container.operate.release import shelf
from container.operate.release.approve import approve
from container.operate.release.choice import Choice
from container.operate.release.diff import Gate, compare
from container.operate.release.figures import Conditions, figures_of
from container.operate.release.live import settled
from container.operate.release.manifest import Manifest
from container.operate.release.place import Place


@dataclass(frozen=True, slots=True)
class Verdict:
    """broken: conditions that do not hold, in words. release: that went live, or did not."""

    release: str
    broken: tuple[str, ...]


def approve_if(conditions: Conditions, place: Place, manifest: Manifest, who: str) -> Verdict:
    """Make it live if they hold. Raises as approving does."""
    _, state = settled(place)
    diff = compare(manifest, state, shelf.Manifests(place.shelf, manifest), Gate(), Choice())
    broken = conditions.broken(figures_of(manifest, diff))
    if not broken:
        approve(place, manifest, Gate(), Choice(), who=who, note=f"--approve-if {conditions}")
    return Verdict(manifest.id, broken)
