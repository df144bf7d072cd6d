"""The same loop on this machine: train, judge, decide, and where the conditions hold go live.

Rule: each step is the command that the pipeline's step runs, in the same order; a person who reads on sees what each says.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from container.operate.exits import CommandFailed, Exit
from container.operate.printing import say
from container.operate.tables.files import DataFile


class StepFailed(CommandFailed):
    def __init__(self, words: Sequence[str], status: int) -> None:
        super().__init__(f"mme {' '.join(words[:2])} ended with status {status}")
        self.exit = Exit(status) if status in set(Exit) else Exit.FAILED


@dataclass(frozen=True, slots=True)
class Steps:
    """Words of each command, without `mme`. verify: none where no endpoint is named."""

    train: tuple[str, ...]
    diff: tuple[str, ...]
    approve: tuple[str, ...]
    verify: tuple[str, ...] = ()


def run_once(steps: Steps, holds: Callable[[], tuple[str, ...]], main: Callable[[Sequence[str]], int]) -> bool:
    """Whether something is live now that was a candidate. holds: conditions that do not. Raises StepFailed."""
    _step(steps.train, main)
    _step(steps.diff, main)
    broken = holds()
    for why in broken:
        say("not live", why)
    if broken:
        return False
    _step(steps.approve, main)
    if steps.verify:
        _step(steps.verify, main)
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


def _step(words: Sequence[str], main: Callable[[Sequence[str]], int]) -> None:
    print(f"\n$ mme {' '.join(words)}", flush=True)
    status = main(words)
    if status:
        raise StepFailed(words, status)
