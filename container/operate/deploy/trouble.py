"""How `mme deploy` ends without having done what was asked, and what of it the shell is told."""

from __future__ import annotations

from container.operate.exits import CommandFailed, Exit
from container.operate.troubles import Misused

EXIT_CODES = """\
exit codes
  0  done, or nothing was to do
  1  what was looked at is not as it should be: the doctor found something, an update was rolled back
  2  the file or the command cannot be understood
  3  refused: it may cost too much, belongs to somebody else, was changed by hand, or a right is missing
  5  not now: AWS was busy, the credentials ran out, or it takes longer than it may; call again, it goes on
  6  nobody answers at the address
"""


class FileInvalid(Misused):
    """The file of a deployment cannot be used: which, where, why."""

    def __init__(self, path: str, why: str) -> None:
        super().__init__(f"{path}: {why}")
        self.why = why


class Unreachable(CommandFailed):
    exit = Exit.UNREACHABLE


class NotAsAsked(CommandFailed):
    """AWS ended somewhere else than where it was sent: an update rolled back, a component that failed."""

    exit = Exit.FAILED
