"""One host's share of a run.

Rule: every host finds its own from the same sorted list, so no two have the same file and none is left over.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from container.operate.tables.files import DataFile


@dataclass(frozen=True, slots=True)
class Share:
    """Which of a run's files are this host's: those whose place in the list leaves `number` over when divided by `of`."""

    number: int = 0
    of: int = 1

    def files(self, files: Sequence[DataFile]) -> list[DataFile]:
        return [file for at, file in enumerate(files) if at % self.of == self.number]
