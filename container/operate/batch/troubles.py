"""What can go wrong with a run, by what it touches: a row, a file, or the run.

CommandFailed
|-- RunRefused        the run as it is asked for cannot be: nothing was written
|-- RunIncomplete     something could not be had just now; the same command goes on
`-- RunStopped        a signal ended it; the same command goes on
FileUnusable          one data file cannot be scored, and why; the others are
"""

from __future__ import annotations

from container.operate.exits import CommandFailed, Exit


class RunRefused(CommandFailed):
    exit = Exit.USAGE


class RunIncomplete(CommandFailed):
    exit = Exit.NOT_NOW


class RunStopped(CommandFailed):
    exit = Exit.INTERRUPTED


class FileUnusable(Exception):
    """is_passing: it may be had later, so the run is not whole without it."""

    def __init__(self, why: str, *, is_passing: bool = False) -> None:
        super().__init__(why)
        self.why = why
        self.is_passing = is_passing
