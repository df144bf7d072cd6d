"""Names that the supervisor, the runtime and callers must spell alike."""

from __future__ import annotations

POOL = "segments"  # the one MMS model of standalone mode; its workers are the runtime's connections
