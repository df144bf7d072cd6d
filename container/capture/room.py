"""Whether there is room for captured calls where they go.

Rule: a directory's disk is never filled up: models, logs and other people's files are on it, too.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable

# SageMaker's capture stops on a full disk, and its guide says to stay below 75 %. Here it is what is there already that
# counts, so a disk that others have filled further takes some more.
FULL_SHARE = 0.95


def room_of(where: str, usage: Callable[[str], tuple[int, int, int]] = shutil.disk_usage) -> Callable[[], bool]:
    """S3 always has some."""
    if where.startswith("s3://"):
        return lambda: True

    def has_room() -> bool:
        try:
            total, used, _ = usage(where)
        except OSError:  # the store says better what is the matter
            return True
        return used < FULL_SHARE * total

    return has_room
