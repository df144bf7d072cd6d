"""Long files, read and written whole, without the interpreter lock and without a core that others wait for (files.c)."""

from __future__ import annotations

import os

from handler.compiled import files


def read(descriptor: int, n_bytes: int) -> bytes | None:
    """The next n_bytes, or None where there are fewer. Raises OSError."""
    if files is not None:
        return files.read(descriptor, n_bytes)
    left, pieces = n_bytes, []
    while left and (piece := os.read(descriptor, left)):
        pieces.append(piece)
        left -= len(piece)
    return None if left else b"".join(pieces)


def write(descriptor: int, text: bytes) -> None:
    """Raises OSError; some of it may be written then."""
    if files is not None:
        files.write(descriptor, text)
        return
    left = memoryview(text)
    while left:
        left = left[os.write(descriptor, left) :]
