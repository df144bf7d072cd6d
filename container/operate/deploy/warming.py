"""The busiest targets, called once on a new fleet before the old one goes.

Rule: with a release's golden rows, which the model is known to answer; a made-up body would be a model error, and an alarm on
those would roll the update back. A call that fails is told and stops nothing: alarms judge the fleet, not this.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing

from container.operate.deploy.aws import Aws
from container.operate.deploy.file import Wanted
from container.operate.deploy.resources import invocation
from container.operate.exits import CommandFailed


def warmer(aws: Aws, wanted: Wanted, tell: Callable[[str], None]) -> Callable[[], None] | None:
    """None: the file names no targets."""
    if not wanted.update.warm:
        return None
    return lambda: _warm(aws, wanted, tell)


def _warm(aws: Aws, wanted: Wanted, tell: Callable[[str], None]) -> None:
    try:
        rows = golden_rows(wanted.models, wanted.update.warm)
    except CommandFailed as error:
        tell(f"  no targets are warmed: {error}")
        return
    n_warm = 0
    for target in wanted.update.warm:
        body = rows.get(target)
        if body is None:
            tell(f"  {target} is not warmed: no release has golden rows of it")
            continue
        try:
            aws.invoke(invocation(wanted, target, body.encode()))
            n_warm += 1
        except CommandFailed as error:
            tell(f"  {target} is not warmed: {error}")
    tell(f"  {n_warm} of {len(wanted.update.warm)} targets warmed")


def golden_rows(models: str, targets: tuple[str, ...]) -> dict[str, str]:
    """A CSV body for each target that the live release knows rows of. Raises CommandFailed."""
    from container.operate.release import live
    from container.operate.release.place import place_at
    from container.operate.release.shelf import Manifests
    from container.operate.release.trouble import told

    found = {}
    with told(), closing(place_at(models)) as place:
        _, state = live.settled(place)
        manifests = Manifests(place.shelf)
        for target in targets:
            entry = state.entries.get(target)
            manifest = None if entry is None else manifests.get(entry.release)
            segment = None if manifest is None else manifest.segments.get(target)
            if segment is not None and segment.golden is not None:
                found[target] = "\n".join(segment.golden.rows)
    return found
