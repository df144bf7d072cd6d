"""The same loop on this machine: train, judge, decide, and where the conditions hold go live.

Rule: each step is the command that the pipeline's step runs, in the same order; a person who reads on sees what each says.
"""

from __future__ import annotations

import shlex
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from container.operate.exits import CommandFailed, Exit
from container.operate.printing import say
from container.operate.tables.files import DataFile


class StepFailed(CommandFailed):
    def __init__(self, words: Sequence[str], status: int) -> None:
        super().__init__(f"mme {' '.join(words[:2])} ended with status {status}")
        self.exit = Exit(status) if status in set(Exit) else Exit.FAILED


@dataclass(frozen=True, slots=True)
class Steps:
    """Words of each command, without `mme`. where: of what `release` acts on. note: of the approval. url: of an endpoint to
    be verified; None for none."""

    train: tuple[str, ...]
    where: tuple[str, ...]
    note: str
    url: str | None = None


def run_once(steps: Steps, broken_of: Callable[[str], tuple[str, ...]], main: Callable[[Sequence[str]], int]) -> bool:
    """Whether a candidate has gone live. broken_of: conditions that do not hold of a release. Raises StepFailed."""
    with tempfile.TemporaryDirectory(prefix="mme-pipeline-") as folder:
        file = Path(folder, "release")
        _step(steps.train, main, "--id-file", str(file))
        release = file.read_text()
    _step(("release", "diff", release, *steps.where), main)
    broken = broken_of(release)
    for why in broken:
        say("not live", why)
    if broken:
        return False
    _step(("release", "approve", release, *steps.where, "--note", steps.note), main)
    if steps.url is not None:
        _step(("release", "verify", *steps.where, "--url", steps.url, "--wait", "60"), main)
    return True


def run_whenever(
    look: Callable[[], tuple[DataFile, ...]], run: Callable[[], object], stop: threading.Event, every_s: float
) -> None:
    """Once for each state that the data come to, until told to end. A state counts when it has been seen twice: of files
    that are still being written the next look finds others."""
    seen: tuple[DataFile, ...] = ()
    ran: tuple[DataFile, ...] = ()
    while True:
        found = look()
        if found and found == seen and found != ran:
            ran = found
            run()
        seen = found
        if stop.wait(every_s):
            return


def _step(words: Sequence[str], main: Callable[[Sequence[str]], int], *unseen: str) -> None:
    """unseen: words that are ours alone."""
    print(f"\n$ mme {shlex.join(words)}", flush=True)
    status = main([*words, *unseen])
    if status:
        raise StepFailed(words, status)
