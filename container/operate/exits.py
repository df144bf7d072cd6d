"""How a command ends, by name, and the errors that end one. README and `mme invoke --help` tell people the numbers."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    OK = 0
    FAILED = 1
    USAGE = 2  # argparse's own number for a command line it cannot understand
    REFUSED = 3  # the request: no such target, or none that could be (ValidationError)
    MODEL_ERROR = 4  # the model or the body (ModelError)
    NOT_NOW = 5  # still loading, overloaded or restarting: call again
    UNREACHABLE = 6  # nobody answers at the address
    INTERRUPTED = 130  # Ctrl-C before there was anything to end: 128 + SIGINT, as shells say


class CommandFailed(Exception):
    """Ends a command; its text is for the operator, `exit` for the shell."""

    exit = Exit.FAILED
