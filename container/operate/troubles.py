"""How a long command ends without having done what was asked, and what of it the shell is told.

CommandFailed
|-- Misused     the command as it is written cannot be: nothing was done
|-- Refused     it was understood, and is not to be done
|-- NotNow      something could not be had just now: the same command goes on
`-- Stopped     a signal ended it: the same command goes on
"""

from __future__ import annotations

from container.operate.exits import CommandFailed, Exit


class Misused(CommandFailed):
    exit = Exit.USAGE


class Refused(CommandFailed):
    exit = Exit.REFUSED


class NotNow(CommandFailed):
    exit = Exit.NOT_NOW


class Stopped(CommandFailed):
    exit = Exit.INTERRUPTED
