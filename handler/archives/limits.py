"""How large an artifact may be, and what may be in it.

Rule: one limit, set once and carried to every place where an artifact's bytes are taken in: the store that fetches it, the
directory a platform put it into, the process that opens it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

MIB = 1 << 20
ARTIFACT_MAX_BYTES = 512 * MIB
UNPACKED_PER_BYTE = 2  # a booster that fills its archive compresses to half and better


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on an artifact. They are policy, not physics: the defaults hold a booster of a million nodes with room
    to spare."""

    artifact_max_bytes: int = ARTIFACT_MAX_BYTES
    unpacked_max_bytes: int = UNPACKED_PER_BYTE * ARTIFACT_MAX_BYTES
    max_ratio: int = 200  # zlib itself cannot pass 1032; real boosters stay below 30
    max_members: int = 1000
    max_depth: int = 8
    name_max_bytes: int = 512
    ignore_code: bool = False  # serve the booster of an archive that brings its own inference code, without that code

    @classmethod
    def of(cls, artifact_max_bytes: int, *, ignore_code: bool) -> Limits:
        """What an operator sets, and what follows from it."""
        return replace(
            cls(),
            artifact_max_bytes=artifact_max_bytes,
            unpacked_max_bytes=UNPACKED_PER_BYTE * artifact_max_bytes,
            ignore_code=ignore_code,
        )
