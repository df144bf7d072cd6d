"""What release commands print: facts as aligned lines, or the same as one JSON document.

Rule: nothing here looks at anything; it is given facts and gives text. A list that may have thousands of lines shows ten.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from container.operate.printing import fact, lines_of, size_text
from container.operate.release.diff import KINDS, Diff, Row
from container.operate.release.live import Change, Current, State
from container.operate.release.manifest import Judged, Manifest
from container.operate.release.verify import FAILED, OLD, RIGHT, UNKNOWN, WRONG, Found
from container.operate.release.whole import Wholeness

N_SHOWN = 10


def short(id: str) -> str:
    return id or "nothing"


def some(word: str, lines: Sequence[str]) -> list[str]:
    """The first ten, and how many more there are."""
    if not lines:
        return []
    more = [f"and {len(lines) - N_SHOWN:,} more; --json has them all"] if len(lines) > N_SHOWN else []
    return [lines_of(word, *lines[:N_SHOWN], *more)]


def refused_lines(refused: dict[str, str]) -> list[str]:
    return some("refused", [f"{key}: {why}" for key, why in sorted(refused.items())])


def manifest_lines(manifest: Manifest) -> list[str]:
    n_bytes = sum(segment.n_bytes for segment in manifest.segments.values())
    lines = [
        fact("release", manifest.id, f"{len(manifest.segments):,} segments", size_text(n_bytes)),
        fact("made", manifest.made_at, f"by {manifest.made_by}", f"from {', '.join(manifest.made_from)}"),
    ]
    if manifest.note:
        lines.append(fact("note", manifest.note))
    corrected = [f"{key}: {text}" for key, segment in sorted(manifest.segments.items()) for text in segment.corrections]
    return [*lines, *some("corrected", corrected), *refused_lines(manifest.refused)]


def diff_lines(diff: Diff) -> list[str]:
    counts = "   ".join(f"{kind} {diff.counts[kind]:,}" for kind in KINDS)
    lines = [fact("release", diff.release), fact("segments", counts)]
    lines += some("worst", [_judged_text(row) for row in diff.worst])
    for total in diff.totals:
        lines.append(
            fact(
                "in all",
                f"{total.metric} {total.live:.6g} -> {total.candidate:.6g}",
                f"weighted by {total.n_rows:,} rows of {total.n_segments:,} segments",
            )
        )
    lines += some("no better", [f"{row.key}: than a constant" for row in diff.rows if row.is_low])
    moved = sorted(((row.drift[1], row.key, row.drift[0]) for row in diff.rows if row.drift), reverse=True)
    lines += some("drift", [f"{key}  {feature} {index:.2f}" for index, key, feature in moved])
    lines += some("features", [f"{row.key}: {row.why}" for row in diff.rows if row.why and row.kind != "refused"])
    lines += some("kept back", [f"{row.key}: {row.kept_back}" for row in diff.kept_back])
    lines += refused_lines({row.key: row.why for row in diff.rows if row.kind == "refused"})
    return lines


def _judged_text(row: Row) -> str:
    judged = row.judged
    assert judged is not None
    assert row.worse_by is not None
    return (
        f"{row.key}  {judged.metric} {judged.live:.6g} -> {judged.candidate:.6g}  "
        f"{row.worse_by:+.1%}  {judged.n_rows:,} rows"
    )


def diff_facts(diff: Diff) -> dict[str, Any]:
    return {
        "release": diff.release,
        "counts": diff.counts,
        "passing": [row.key for row in diff.passing],
        "totals": [asdict(total) for total in diff.totals],
        "segments": [asdict(row) for row in diff.rows],
    }


def whole_lines(whole: Wholeness, location: str) -> list[str]:
    lines = [fact("live", location, f"{len(whole.state.entries):,} segments")]
    lines += [fact("", f"{release}  {n:,} segments") for release, n in whole.releases.items()]
    current = whole.current
    if current.change is not None:
        lines.append(fact("since", current.change.at, f"{current.change.action} by {current.change.who}"))
    if not current.is_settled:
        lines.append(fact("broken off", f"{whole.n_left:,} of {len(whole.state.moves):,} keys are still to be written"))
    lines += some("by hand", [f"{key}: {what}" for key, what in sorted(whole.by_hand.items())])
    if whole.others:
        lines += some("others", [f"{key}  put there by nobody's release" for key in whole.others])
    lines.append(fact("whole", "yes" if whole.is_whole else "no"))
    return lines


def whole_facts(whole: Wholeness, location: str) -> dict[str, Any]:
    return {
        "live": location,
        "is_whole": whole.is_whole,
        "is_settled": whole.current.is_settled,
        "n_left": whole.n_left,
        "releases": whole.releases,
        "change": asdict(whole.current.change) if whole.current.change else None,
        "by_hand": whole.by_hand,
        "others": list(whole.others),
        "segments": {key: [entry.release, entry.digest] for key, entry in sorted(whole.state.entries.items())},
    }


def standing(id: str, current: Current, state: State) -> str:
    """What a release is today."""
    n_live = sum(entry.release == id for entry in state.entries.values())
    if n_live:
        return f"live, {n_live:,} segments"
    said = {"reject": "rejected", "approve": "was live", "rollback": "was live", "undo": "was live"}
    return said.get(current.verdicts.get(id, ""), "candidate")


def change_line(change: Change) -> str:
    what = f"{change.action} {short(change.release)}"
    moved = f"{change.n_written:,} written" + (f", {change.n_removed:,} removed" if change.n_removed else "")
    came = f"instead of {change.instead_of}" if change.instead_of else ""
    parts = (change.at, what, moved if change.n_written or change.n_removed else "", came, f"by {change.who}")
    return "  ".join(part for part in (*parts, f"({change.note})" if change.note else "") if part)


def found_lines(found: Sequence[Found]) -> list[str]:
    by_kind: dict[str, list[Found]] = {}
    for one in found:
        by_kind.setdefault(one.kind, []).append(one)
    counts = "   ".join(f"{kind} {len(by_kind.get(kind, ())):,}" for kind in (RIGHT, OLD, WRONG, FAILED, UNKNOWN))
    lines = [fact("answers", counts)]
    lines += some(OLD, [f"{one.key}  {one.release}, not live since {one.since}" for one in by_kind.get(OLD, ())])
    for kind in (WRONG, FAILED, UNKNOWN):
        lines += some(kind, [f"{one.key}: {one.why}" for one in by_kind.get(kind, ())])
    return lines


def judged_of(facts: dict[str, Any]) -> dict[str, Judged]:
    """What `--metrics FILE` says, by key. Raises ValueError, TypeError, KeyError."""
    return {
        key: Judged(
            str(one["metric"]),
            int(one["n_rows"]),
            float(one["candidate"]),
            None if one.get("live") is None else float(one["live"]),
            one.get("against"),
        )
        for key, one in facts.items()
    }


def printed(lines: Iterable[str]) -> None:
    for line in lines:
        print(line, flush=True)
