"""How commands print: facts as a word and what there is to say of it, the same columns in every command.

Rule: facts go to stdout, progress and trouble to stderr, and the next step comes last.
"""

from __future__ import annotations

import sys
from typing import TextIO

from container.operate.exits import CommandFailed


def fact(word: str, *parts: str) -> str:
    """`uploaded  s3://acme/models/churn.tar.gz  1.8 MiB`."""
    return f"{word:<9} {'  '.join(parts)}".rstrip()


def lines_of(word: str, *lines: str) -> str:
    """`word`, then the lines beside it, aligned."""
    return "\n".join(fact(word if at == 0 else "", line) for at, line in enumerate(lines))


def say(word: str, *parts: str, file: TextIO | None = None) -> None:
    """One fact, now."""
    print(fact(word, *parts), file=file, flush=True)


def complain(command: str, error: CommandFailed) -> int:
    """Why a command ends, and its exit code."""
    print(f"mme {command}: {error}", file=sys.stderr)
    return error.exit


def size_text(n_bytes: int) -> str:
    """`60.1 KiB`, for people."""
    size = float(n_bytes)
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{n_bytes} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"
