"""Files of a job known by what is in them.

Rule: files that a platform has copied onto a host have dates and places of that host alone, and other ones after a spot
interruption; their content is the same everywhere. What lies in S3 has a version that is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from container.operate.tables.files import DataFile
from container.operate.troubles import Misused


def by_content(files: Sequence[DataFile]) -> tuple[DataFile, ...]:
    """Files on this host with their content for a version; those in S3 have one that is the same everywhere."""
    return tuple(
        file if "://" in file.location else replace(file, content=_digest(Path(file.location, file.name)))
        for file in files
    )


def models_by_content(location: str, versions: Mapping[str, str]) -> Mapping[str, str]:
    """The same for models: what tells a run's from another's."""
    if "://" in location:
        return versions
    return {target: _digest(Path(location, target)) for target in versions}


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise Misused(f"{path}: {error.strerror}") from error
